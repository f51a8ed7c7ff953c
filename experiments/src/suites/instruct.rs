//! `instruct`: instruction tuning, tested on verifiable instructions (IFEval) and, with a judge, on AlpacaEval and
//! MT-Bench.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backbones::lm::LmTokenizer;
use clap::{Args, Command, ValueEnum, ValueHint};
use datasets::language::instruct::{self, Compared, Conversation, Recipe};
use datasets::language::published::{ALPACA_EVAL, MT_BENCH, Row};
use datasets::language::sample::instructions;
use datasets::language::{Fields, Template, ifeval};
use serde::{Deserialize, Serialize};

use crate::cli::output::tell;
use crate::cli::settings::{absolute, check_decay, check_positive};
use crate::language::corpus::{Aftermath, Corpus};
use crate::language::evaluation::Answer;
use crate::language::instruct::ask::Asker;
use crate::language::instruct::endpoint::{Access, Endpoint, KEYS};
use crate::language::instruct::grading::Grader;
use crate::language::instruct::length_control::Gamed;
use crate::language::instruct::outputs::{self, Elsewhere, model_name};
use crate::language::instruct::prompts::JudgePrompts;
use crate::language::instruct::verify;
use crate::language::judge::TestSet;
use crate::language::lab::LanguageLab;
use crate::language::model;
use crate::language::settings::{Evaluation, Form, SAMPLE, Settings};
use crate::run::outcome::RunError;
use crate::run::suite::Program;
use crate::suites::experiment::{Experiment, Given, Opened, Preset, Text};
use crate::suites::sets;

/// The experiment.
pub struct Instruct;

const MORE: &str = "\
--data is a folder with the benchmarks' files: IFEval's ifeval_input_data.jsonl (or input_data.jsonl), \
alpaca_eval.json, MT-Bench's mt_bench_question.jsonl (or question.jsonl) and mt_bench_reference_gpt-4.jsonl (or \
gpt-4.jsonl). --train-file names Alpaca's, UltraFeedback's or WizardLM's files, or any files with instructions or \
chats.

IFEval is verified here, by the rules of its own code. All answers are written in the benchmarks' own formats \
(METHOD/IFEval.responses.jsonl, METHOD/AlpacaEval.model_outputs.json, METHOD/MT-Bench.answers.jsonl). Those to \
AlpacaEval and MT-Bench are judged if --judge-url names an OpenAI-compatible endpoint (its key in JUDGE_API_KEY or \
OPENAI_API_KEY) or --judge-file contains judgements.

To judge answers that were written without a judge, remove summary.json and run the same command with one.

With neither --model nor --data it runs on generated instructions with the small model that ships with the program, \
and with its own settings: methods none, lora and wegeft, ranks of 16 (WeGeFT) and 8 (LoRA), learning rates of 0.01 \
and 0.005. Running the same command again continues the run, even in the middle of a test set or of its judgement.";

/// Settings of `instruct`.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
pub struct InstructSettings {
    /// Settings that all language programs share.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Settings,
    /// The data.
    #[command(flatten)]
    #[serde(flatten)]
    pub data: InstructData,
    /// How prompts are answered.
    #[command(flatten)]
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// The judge.
    #[command(flatten)]
    #[serde(flatten)]
    pub judging: Judging,
}

/// Data of `instruct`.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Data")]
pub struct InstructData {
    /// Folder with the benchmarks' files [default: generated instructions].
    #[arg(long, value_hint = ValueHint::DirPath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Benchmarks, separated by commas: IFEval, AlpacaEval, MT-Bench; or `all` that --data contains.
    #[arg(long, alias = "sets", value_delimiter = ',', default_value = "all")]
    pub task: Vec<String>,
    /// Training files (JSON, JSONL or parquet), separated by commas or given by several flags.
    #[arg(long, value_delimiter = ',', value_hint = ValueHint::FilePath)]
    pub train_file: Vec<PathBuf>,
    /// Name of a field in your training files, as `output=response`; repeat the flag for several fields.
    #[arg(long)]
    pub field: Vec<String>,
    /// How an instruction becomes a prompt, in training and in tests.
    #[arg(long, value_enum, default_value_t = Form::Alpaca)]
    pub template: Form,
    /// How training examples are prepared.
    #[arg(long, value_enum, default_value_t = Examples::Plain)]
    pub recipe: Examples,
    /// Use only the first N prompts of each benchmark [default: all].
    #[arg(long, alias = "max-eval-samples")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
}

/// How training examples are prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Examples {
    /// As they are in the files.
    Plain,
    /// As in LoRA-GA's protocol: a space before each answer, and no answers that say sorry or "as an AI".
    LoraGa,
}

impl From<Examples> for Recipe {
    fn from(examples: Examples) -> Self {
        match examples {
            Examples::Plain => Self::Plain,
            Examples::LoraGa => Self::LoraGa,
        }
    }
}

/// The judge of answers, and how it is asked.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Judge")]
pub struct Judging {
    /// Address of an OpenAI-compatible endpoint that judges AlpacaEval and MT-Bench, such as http://127.0.0.1:8000/v1.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge_url: Option<String>,
    /// Model of the judge.
    #[arg(long, default_value = "gpt-4")]
    pub judge_model: String,
    /// Prompts for the judge, in the format of FastChat's judge_prompts.jsonl [default: this project's own wording].
    #[arg(long, value_hint = ValueHint::FilePath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge_prompts: Option<PathBuf>,
    /// Judgements made elsewhere, instead of an endpoint: FastChat's grades or AlpacaEval's annotations.
    #[arg(long, conflicts_with = "judge_url", value_hint = ValueHint::FilePath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge_file: Option<PathBuf>,
    /// Baseline answers for AlpacaEval, a model_outputs.json [default: those in alpaca_eval.json].
    #[arg(long, value_hint = ValueHint::FilePath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<PathBuf>,
    /// AlpacaEval's df_gamed.csv, for the length-controlled win rate as on its leaderboard [default: without the term
    /// for the instruction's difficulty].
    #[arg(long, value_hint = ValueHint::FilePath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamed_baselines: Option<PathBuf>,
    /// How many times the judge is asked again after a failure.
    #[arg(long, default_value_t = 5)]
    pub judge_retries: usize,
    /// Seconds to wait before the first retry; doubled for each further retry.
    #[arg(long, default_value_t = 1.0)]
    pub judge_wait: f64,
    /// Seconds to wait for an answer from the judge.
    #[arg(long, default_value_t = 120.0)]
    pub judge_timeout: f64,
    /// Answers to judge in parallel.
    #[arg(long, default_value_t = 4)]
    pub judge_parallel: usize,
    /// Price of the judge in dollars per million tokens read and written, as 10,30; its cost is then printed.
    #[arg(long, value_delimiter = ',', num_args = 1)]
    pub judge_price: Vec<f64>,
}

impl InstructSettings {
    fn check(&mut self) -> Result<(), String> {
        self.common.check()?;
        let (data, judging) = (&mut self.data, &mut self.judging);
        let files = [
            &mut judging.judge_prompts,
            &mut judging.judge_file,
            &mut judging.baseline,
            &mut judging.gamed_baselines,
        ];
        for path in data
            .data
            .iter_mut()
            .chain(&mut data.train_file)
            .chain(files.into_iter().flatten())
        {
            *path = absolute(path)?;
        }
        check_positive(&[
            ("test_limit", data.test_limit.unwrap_or(1)),
            ("judge_parallel", judging.judge_parallel),
        ])?;
        for (field, seconds) in [
            ("judge_wait", judging.judge_wait),
            ("judge_timeout", judging.judge_timeout),
        ] {
            if !(0.0..=86_400.0).contains(&seconds) || (field == "judge_timeout" && seconds == 0.0) {
                return Err(format!(
                    "field '{field}' is {seconds}; it must be above 0 and at most 86400 seconds"
                ));
            }
        }
        if !matches!(judging.judge_price[..], [] | [_, _]) {
            return Err("field 'judge_price' needs two prices, for tokens read and for tokens written".into());
        }
        let mut prices = judging.judge_price.iter();
        prices.try_for_each(|price| check_decay("judge_price", *price))?;
        Fields::renamed(&data.field).map_err(|e| format!("field 'field': {e}"))?;
        self.evaluation.check()
    }
}

impl Experiment for Instruct {
    fn text(&self) -> Text {
        Text {
            name: "instruct",
            about: "Fine-tune a language model on instructions and test it on IFEval, AlpacaEval and MT-Bench",
            more: MORE,
            examples: "instruct
                instruct --data DATA --model org/name --dtype bf16 --train-file alpaca_data_cleaned.json --task IFEval
                instruct --data DATA --model org/name --method none --task MT-Bench --judge-url https://HOST/v1",
            defaults: concat!(
                include_str!("language.toml"),
                "learning_rate = 4e-4\nmax_new_tokens = 1024\nmax_length = 1024\n"
            ),
            presets: &[
                Preset {
                    name: "paper-instruct-llama2",
                    text: include_str!("../../configs/paper-instruct-llama2.toml"),
                },
                Preset {
                    name: "old-instruct-llama2",
                    text: include_str!("../../configs/old-instruct-llama2.toml"),
                },
            ],
        }
    }

    fn flags(&self, command: Command) -> Command {
        InstructSettings::augment_args(command)
    }

    fn task_names(&self) -> Vec<&'static str> {
        BENCHMARKS.iter().map(|(name, _)| *name).collect()
    }

    fn open(&self, given: &Given) -> Result<Opened, String> {
        let sample = [SAMPLE, "max_new_tokens = 32\n[methods.wegeft]\nlearning_rate = 1e-2"];
        let (settings, program) = given.settings::<InstructSettings>(&sample, InstructSettings::check)?;
        match &settings.data.data {
            Some(root) => of_files(&settings, program, root, given),
            None => of_sample(settings, program),
        }
    }
}

/// Refuses what only the benchmarks and training files of `--data` have a use for.
fn check_sample(settings: &InstructSettings) -> Result<(), String> {
    let (data, judging) = (&settings.data, &settings.judging);
    let given = [
        ("--train-file", !data.train_file.is_empty()),
        ("--field", !data.field.is_empty()),
        ("--recipe", data.recipe != Examples::Plain),
        ("--judge-url", judging.judge_url.is_some()),
        ("--judge-file", judging.judge_file.is_some()),
        ("--baseline", judging.baseline.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(format!(
            "{flag} needs --data, the folder with the benchmarks: the generated instructions have examples and verifiers of \
             their own"
        )),
        None => Ok(()),
    }
}

fn of_sample(settings: InstructSettings, program: Program) -> Result<Opened, String> {
    check_sample(&settings)?;
    let asker = asker(&settings)?;
    let made = instructions::instructions();
    let names: Vec<&str> = made.sets.iter().map(|(name, _)| name.as_str()).collect();
    let picked: Vec<String> = sets::chosen(&settings.data.task, &names)?
        .into_iter()
        .map(String::from)
        .collect();
    let limit = settings.data.test_limit.unwrap_or(usize::MAX);
    let tested = made.sets.into_iter().filter(|(name, _)| picked.contains(name));
    let tested = tested.map(|(name, set)| {
        Ok(TestSet {
            name,
            questions: verify::sample(set.into_iter().take(limit), &asker)?,
            scored: true,
            metric: "instructions followed",
        })
    });
    let train = made.train;
    let corpus = Corpus {
        name: String::new(),
        place: None,
        examples: Box::new(move || Ok(train.clone().into())),
        template: settings.data.template.into(),
        sets: tested.collect::<Result<_, String>>()?,
        files: Vec::new(),
        evaluation: Some(settings.evaluation.clone()),
    };
    let layout = sets::layout(&corpus, None, [].into_iter());
    Ok(Opened {
        lab: Box::new(LanguageLab::new(program, settings.common, corpus)),
        layout,
    })
}

/// Names of the benchmarks and of their files.
const BENCHMARKS: [(&str, &[&str]); 3] = [
    ("IFEval", &["ifeval_input_data.jsonl", "input_data.jsonl"]),
    ("AlpacaEval", &["alpaca_eval.json"]),
    ("MT-Bench", &["mt_bench_question.jsonl", "question.jsonl"]),
];

/// File names of MT-Bench's reference answers.
const REFERENCES: [&str; 3] = [
    "mt_bench_reference_gpt-4.jsonl",
    "reference_answer/gpt-4.jsonl",
    "gpt-4.jsonl",
];

/// The questions of each benchmark.
#[derive(Default)]
struct Asked {
    ifeval: Vec<String>,
    alpaca: Vec<Compared>,
    mt_bench: Vec<Conversation>,
}

/// The source of judgements for answers that no program can verify.
enum Verdicts {
    Nobody,
    Judge(Box<Grader>),
    File(Elsewhere),
}

fn of_files(settings: &InstructSettings, program: Program, root: &Path, given: &Given) -> Result<Opened, String> {
    let data = &settings.data;
    let trains = settings.common.trained_methods().next().is_some() && settings.common.model.adapter.is_none();
    if data.train_file.is_empty() && trains {
        return Err(
            "no training file; give --train-file FILE (JSON, JSONL or parquet), or --method none to test the model as it is"
                .into(),
        );
    }
    let verdicts = verdicts(settings, given)?;
    let gamed = settings
        .judging
        .gamed_baselines
        .as_deref()
        .map(Gamed::read)
        .transpose()?;
    let asker = Arc::new(asker(settings)?);
    let (sets, asked, mut files) = tested(settings, root, &asker)?;
    // Asked for before hours of training.
    if let (Verdicts::Judge(_), Some(at)) = (
        &verdicts,
        asked.alpaca.iter().position(|prompt| prompt.output.is_none()),
    ) {
        return Err(format!(
            "AlpacaEval's prompt {} has no baseline answer to compare with; give --baseline FILE, a model_outputs.json",
            at + 1
        ));
    }
    files.extend(data.train_file.iter().cloned());
    let (paths, fields, recipe) = (
        data.train_file.clone(),
        Fields::renamed(&data.field)?,
        Recipe::from(data.recipe),
    );
    let examples = move || {
        let read = instruct::train(&paths, &fields, recipe).map_err(|e| e.to_string())?;
        if let Some(bad) = read.describe_bad() {
            tell(format_args!("{bad}"));
        }
        Ok(read)
    };
    let corpus = Corpus {
        name: String::new(),
        place: Some(root.display().to_string()),
        examples: Box::new(examples),
        template: data.template.into(),
        sets,
        files,
        evaluation: Some(settings.evaluation.clone()),
    };
    let layout = {
        let has = |name: &str| corpus.sets.iter().any(|set| set.name == name);
        let (rows, of): (Option<&'static [Row]>, &'static str) = match (has("AlpacaEval"), has("MT-Bench")) {
            (true, _) => (Some(&ALPACA_EVAL), "AlpacaEval"),
            (false, true) => (Some(&MT_BENCH), "MT-Bench turn 1"),
            (false, false) => (None, ""),
        };
        sets::layout(&corpus, rows, [of].into_iter().filter(|of| !of.is_empty()))
    };
    let after = move |set: &TestSet, answers: &[Answer], folder: &Path| {
        aftermath(set, answers, folder, &asked, &verdicts, gamed.as_ref())
    };
    let lab = LanguageLab::new(program, settings.common.clone(), corpus).with_after(Box::new(after));
    Ok(Opened {
        lab: Box::new(lab),
        layout,
    })
}

fn asker(settings: &InstructSettings) -> Result<Asker, String> {
    let template = Template::from(settings.data.template);
    let tokenizer = match template {
        Template::Chat => {
            let folder = model::folder(&settings.common.model)?;
            Some(LmTokenizer::load(&folder).map_err(|e| e.to_string())?)
        }
        Template::Alpaca | Template::Plain => None,
    };
    Ok(Asker::new(template, tokenizer))
}

/// The test sets under `root`, the questions of each, and the files that they were read from.
fn tested(
    settings: &InstructSettings,
    root: &Path,
    asker: &Arc<Asker>,
) -> Result<(Vec<TestSet>, Asked, Vec<PathBuf>), String> {
    let found = BENCHMARKS.iter().filter_map(|(name, names)| {
        let mut paths = names.iter().map(|file| root.join(file));
        Some((*name, paths.find(|path| path.is_file())?))
    });
    let found: Vec<(&str, PathBuf)> = found.collect();
    if found.is_empty() {
        return Err(format!(
            "{} holds none of ifeval_input_data.jsonl, alpaca_eval.json and mt_bench_question.jsonl",
            root.display()
        ));
    }
    let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
    let picked = sets::chosen(&settings.data.task, &names)?;
    let limit = settings.data.test_limit.unwrap_or(usize::MAX);
    let (mut sets, mut asked, mut files) = (Vec::new(), Asked::default(), Vec::new());
    for (name, path) in found.into_iter().filter(|(name, _)| picked.contains(name)) {
        let (questions, metric) = match name {
            "IFEval" => {
                let mut prompts = ifeval::read(&path).map_err(|e| e.to_string())?;
                prompts.truncate(limit);
                asked.ifeval = prompts.iter().map(|prompt| prompt.prompt.clone()).collect();
                (verify::ifeval(prompts, asker)?, "prompts followed, strict")
            }
            "AlpacaEval" => {
                asked.alpaca = compared(&path, settings.judging.baseline.as_deref())?;
                asked.alpaca.truncate(limit);
                let prompts = asked.alpaca.iter().map(|prompt| {
                    let baseline = prompt.output.clone().unwrap_or_default();
                    verify::written(prompt.instruction.clone(), baseline, asker)
                });
                (prompts.collect::<Result<_, String>>()?, "win rate")
            }
            _ => {
                let mut places = REFERENCES.iter().map(|file| root.join(file));
                let references = places.find(|path| path.is_file());
                let questions = instruct::mt_bench(&path, references.as_deref());
                asked.mt_bench = questions.map_err(|e| e.to_string())?;
                asked.mt_bench.truncate(limit);
                files.extend(references);
                let questions = asked
                    .mt_bench
                    .iter()
                    .map(|question| verify::conversation(question, asker));
                (questions.collect::<Result<_, String>>()?, "grade, 1 to 10")
            }
        };
        sets.push(TestSet {
            name: name.into(),
            questions,
            // Percentages and grades have no mean.
            scored: sets.is_empty(),
            metric,
        });
        files.push(path);
    }
    Ok((sets, asked, files))
}

/// AlpacaEval's prompts, with the answers in `baseline` if it is given.
fn compared(path: &Path, baseline: Option<&Path>) -> Result<Vec<Compared>, String> {
    let mut prompts = instruct::alpaca_eval(path).map_err(|e| e.to_string())?;
    if let Some(path) = baseline {
        let answers = instruct::alpaca_eval(path).map_err(|e| e.to_string())?;
        for prompt in &mut prompts {
            let found = answers.iter().find(|answer| answer.instruction == prompt.instruction);
            let found = found.filter(|found| found.output.is_some()).ok_or_else(|| {
                let begun: String = prompt.instruction.chars().take(60).collect();
                format!("{}: no answer to '{begun}', which AlpacaEval asks", path.display())
            })?;
            prompt.output.clone_from(&found.output);
            prompt.generator.clone_from(&found.generator);
        }
    }
    Ok(prompts)
}

/// The source of judgements; an error before anything is trained if it is not usable.
fn verdicts(settings: &InstructSettings, given: &Given) -> Result<Verdicts, String> {
    let judging = &settings.judging;
    if let Some(path) = &judging.judge_file {
        return Ok(Verdicts::File(Elsewhere::read(path)?));
    }
    let Some(url) = &judging.judge_url else {
        return Ok(Verdicts::Nobody);
    };
    let endpoint = Endpoint::new(Access {
        url: url.clone(),
        model: judging.judge_model.clone(),
        key: KEYS
            .iter()
            .filter_map(|name| Some(std::env::var(name).ok()?.trim().to_string()))
            .find(|key| !key.is_empty()),
        retries: judging.judge_retries,
        wait: judging.judge_wait,
        timeout: judging.judge_timeout,
    })?;
    Ok(Verdicts::Judge(Box::new(Grader {
        endpoint,
        prompts: JudgePrompts::read(judging.judge_prompts.as_deref())?,
        parallel: judging.judge_parallel,
        price: match judging.judge_price[..] {
            [read, written] => Some([read, written]),
            _ => None,
        },
        interrupter: given.interrupter(),
    })))
}

/// Writes a set's answers to the benchmark's own file and has them judged.
fn aftermath(
    set: &TestSet,
    answers: &[Answer],
    folder: &Path,
    asked: &Asked,
    verdicts: &Verdicts,
    gamed: Option<&Gamed>,
) -> Result<Aftermath, RunError> {
    let model = model_name(folder);
    let file = |ending: &str| folder.join(format!("{}.{ending}", set.name));
    let judged = file("judgements.jsonl");
    match set.name.as_str() {
        "IFEval" => {
            outputs::ifeval(&file("responses.jsonl"), &asked.ifeval, answers)?;
            Ok(Aftermath::default())
        }
        "AlpacaEval" => {
            outputs::alpaca_eval(&file("model_outputs.json"), &asked.alpaca, answers, &model)?;
            match verdicts {
                Verdicts::Nobody => Ok(Aftermath::default()),
                Verdicts::Judge(grader) => outputs::compare(grader, &judged, &asked.alpaca, answers, gamed),
                Verdicts::File(elsewhere) => elsewhere.preferences(&asked.alpaca, answers, &model, gamed),
            }
        }
        _ => {
            outputs::mt_bench(&file("answers.jsonl"), &asked.mt_bench, answers, &model)?;
            match verdicts {
                Verdicts::Nobody => Ok(Aftermath::default()),
                Verdicts::Judge(grader) => outputs::grade_turns(grader, &judged, &asked.mt_bench, answers),
                Verdicts::File(elsewhere) => elsewhere.grades(&asked.mt_bench, &model),
            }
        }
    }
}
