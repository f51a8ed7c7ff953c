//! `code`: code generation, trained on CodeFeedback (as in the WeGeFT paper, by the protocol of LoRA-GA, arXiv
//! 2407.05000) and tested on HumanEval and MBPP.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Arg, ArgAction, Args, Command, ValueEnum, ValueHint};
use datasets::language::code::{self, Benchmark, MBPP_LAST, MBPP_PROMPTS, mbpp_number};
use datasets::language::published::CODE;
use datasets::language::sample::programs;
use datasets::language::{CodeTask, Template};
use serde::{Deserialize, Serialize};

use crate::cli::output::{note, tell};
use crate::cli::settings::{absolute, check_positive};
use crate::language::code::form::Form;
use crate::language::code::judge::{Runner, asked};
use crate::language::code::samples;
use crate::language::code::score::{Sampled, ScoreLab};
use crate::language::corpus::{Aftermath, Corpus};
use crate::language::judge::TestSet;
use crate::language::lab::LanguageLab;
use crate::language::settings::{Evaluation, SAMPLE, Settings};
use crate::report::layout::Layout;
use crate::run::outcome::RunError;
use crate::run::suite::Program;
use crate::sandbox::{Limits, Python};
use crate::suites::experiment::{Experiment, Given, Opened, Preset, Text};
use crate::suites::sets::{self, SUITE_MORE};

/// The experiment.
pub struct Code;

/// Names of the benchmarks and of their files.
const FILES: [(&str, &[&str]); 3] = [
    (
        "HumanEval",
        &[
            "HumanEval.jsonl",
            "HumanEval.jsonl.gz",
            "human-eval.jsonl",
            "human-eval.jsonl.gz",
        ],
    ),
    ("MBPP", &["mbpp.jsonl", "mbpp.jsonl.gz"]),
    ("MBPP-sanitized", &["sanitized-mbpp.json", "sanitized-mbpp.jsonl"]),
];

/// The flag that allows programs written by a model to be run.
const ALLOW: &str = "allow_code_execution";

const MORE: &str = "\
--data is a folder with HumanEval.jsonl (or .jsonl.gz), mbpp.jsonl and sanitized-mbpp.json, or one of these files; \
--train-file names CodeFeedback's files, or any files with query and answer (or instruction and output). Answers are \
programs, which must be run to be judged. They are run only with --allow-code-execution, each in its own process \
without access to files, the network or other processes (the program says at the start which of these protections your \
system has).

The run folder also contains the samples in HumanEval's own format, METHOD/SET.samples.jsonl. --score FILE scores such \
a file without a model.";

/// Settings of `code`.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
pub struct CodeSettings {
    /// Settings that all language programs share.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Settings,
    /// The data.
    #[command(flatten)]
    #[serde(flatten)]
    pub data: CodeData,
    /// How tasks are answered.
    #[command(flatten)]
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// How programs are run.
    #[command(flatten)]
    #[serde(flatten)]
    pub running: Running,
}

/// Data of `code`.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Data")]
pub struct CodeData {
    /// Folder with the benchmarks' files, or one of them [default: generated tasks].
    #[arg(long, value_hint = ValueHint::AnyPath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Benchmarks, separated by commas: HumanEval, MBPP, MBPP-sanitized; or `all` that --data contains.
    #[arg(long, alias = "sets", value_delimiter = ',', default_value = "all")]
    pub task: Vec<String>,
    /// Training files (JSON, JSONL or parquet), separated by commas or given by several flags.
    #[arg(long, value_delimiter = ',', value_hint = ValueHint::FilePath)]
    pub train_file: Vec<PathBuf>,
    /// Use only the first N tasks of each benchmark [default: all].
    #[arg(long, alias = "max-eval-samples")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
    /// How a task becomes a prompt.
    #[arg(long, value_enum, default_value_t = Asking::Completion)]
    pub form: Asking,
    /// Score the samples in this file (JSON lines with task_id and completion); no model is loaded.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<PathBuf>,
    /// With --score: leave out tasks that have no sample.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    pub ignore_incomplete: bool,
}

/// How a task becomes a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asking {
    /// As the authors of the benchmarks do.
    Completion,
    /// As an instruction, with LoRA-GA's post-processing of the answers.
    Instruction,
}

/// How programs are run and counted.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Programs")]
pub struct Running {
    /// Values of k for pass@k, separated by commas; values above the number of samples are left out.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100")]
    pub k: Vec<usize>,
    /// Time limit of a program, seconds.
    #[arg(long, default_value_t = 3.0)]
    pub program_timeout: f64,
    /// Memory limit of a program, MB.
    #[arg(long, default_value_t = 1024)]
    pub program_memory: u64,
}

impl CodeSettings {
    fn check(&mut self) -> Result<(), String> {
        self.common.check()?;
        let data = &mut self.data;
        for path in data.data.iter_mut().chain(&mut data.train_file).chain(&mut data.score) {
            *path = absolute(path)?;
        }
        check_positive(&[
            ("test_limit", data.test_limit.unwrap_or(1)),
            ("k", self.running.k.iter().copied().min().unwrap_or(1)),
        ])?;
        let seconds = self.running.program_timeout;
        if !(seconds > 0.0 && seconds <= 3600.0) {
            return Err(format!(
                "field 'program_timeout' is {seconds}; it must be above 0 and at most 3600"
            ));
        }
        if !(64..=1 << 20).contains(&self.running.program_memory) {
            return Err(format!(
                "field 'program_memory' is {}; it must be from 64 to 1048576 MB",
                self.running.program_memory
            ));
        }
        self.evaluation.check()
    }

    fn limits(&self) -> Limits {
        Limits {
            seconds: self.running.program_timeout,
            memory_mb: self.running.program_memory,
            ..Limits::default()
        }
    }

    /// The values of k for which there are enough samples.
    fn ks(&self) -> Vec<usize> {
        let of_samples = self.running.k.iter().copied().filter(|k| *k <= self.evaluation.samples);
        of_samples.collect()
    }
}

impl Experiment for Code {
    fn text(&self) -> Text {
        Text {
            name: "code",
            about: "Fine-tune a language model on coding instructions and test it on HumanEval and MBPP",
            more: MORE_TEXT.get_or_init(|| format!("{MORE}\n\n{SUITE_MORE}")),
            examples: "code
                code --data DATA --model org/name --dtype bf16 --train-file CodeFeedback.jsonl --allow-code-execution
                code --data HumanEval.jsonl --score samples.jsonl --allow-code-execution",
            defaults: concat!(
                include_str!("language.toml"),
                "learning_rate = 4e-4\nmax_new_tokens = 512\n"
            ),
            presets: &[Preset {
                name: "paper-code-llama2",
                text: include_str!("../../configs/paper-code-llama2.toml"),
            }],
        }
    }

    fn flags(&self, command: Command) -> Command {
        let allow = Arg::new(ALLOW)
            .long("allow-code-execution")
            .action(ArgAction::SetTrue)
            .help_heading("Programs")
            .help(
                "Run the programs that the model writes. They are untrusted: without a sandbox, one of them could \
                 delete your files. No preset and no run folder can set this flag",
            );
        CodeSettings::augment_args(command).arg(allow)
    }

    fn task_names(&self) -> Vec<&'static str> {
        FILES.iter().map(|(name, _)| *name).collect()
    }

    fn open(&self, given: &Given) -> Result<Opened, String> {
        let sample = [SAMPLE, "max_new_tokens = 24"];
        let (settings, program) = given.settings::<CodeSettings>(&sample, CodeSettings::check)?;
        let allowed = given.has(ALLOW);
        match (&settings.data.data, &settings.data.score) {
            (Some(_), Some(file)) => score(&settings, program, file, &runner(&settings, allowed)?),
            (None, Some(_)) => Err("--score needs --data, the benchmark that the samples are of".into()),
            (Some(_), None) => of_files(settings, program, allowed),
            (None, None) => of_sample(settings, program, allowed),
        }
    }
}

static MORE_TEXT: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// Python in the sandbox, if the user allows programs to run.
fn runner(settings: &CodeSettings, allowed: bool) -> Result<Runner, String> {
    if !allowed {
        return Err(
            "answers are programs that nobody has read, and running them on this machine is the only way to judge them; give \
             --allow-code-execution to let them run in a sandbox"
                .into(),
        );
    }
    let python = Python::of_this_program(settings.limits())?;
    tell(python.describe());
    Ok(Runner::Python(Arc::new(python)))
}

/// The benchmarks in `--data` that `--task` names: name, file, tasks.
fn benchmarks(settings: &CodeSettings) -> Result<Vec<(String, PathBuf, Vec<CodeTask>)>, String> {
    let data = settings.data.data.clone().unwrap_or_default();
    let files = files(&data)?;
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    let picked = sets::chosen(&settings.data.task, &names)?;
    let files = files.into_iter().filter(|(name, _)| picked.contains(name));
    files
        .map(|(name, file)| {
            let tasks = code::read(&file).map_err(|e| e.to_string())?;
            Ok((name.to_string(), file, tasks))
        })
        .collect()
}

/// The benchmarks' files in `data`.
fn files(data: &Path) -> Result<Vec<(&'static str, PathBuf)>, String> {
    if data.is_file() {
        let file = data.file_name().unwrap_or_default().to_string_lossy();
        let known = FILES.iter().find(|(_, names)| names.contains(&&*file));
        let name = match known {
            Some((name, _)) => name,
            None if file.to_lowercase().contains("mbpp") => "MBPP",
            None => "HumanEval",
        };
        return Ok(vec![(name, data.to_path_buf())]);
    }
    let found = FILES.iter().filter_map(|(name, names)| {
        let mut paths = names.iter().map(|file| data.join(file));
        Some((*name, paths.find(|path| path.is_file())?))
    });
    let found: Vec<(&str, PathBuf)> = found.collect();
    match found.is_empty() {
        true => Err(format!(
            "{} holds none of HumanEval.jsonl, HumanEval.jsonl.gz, mbpp.jsonl and sanitized-mbpp.json",
            data.display()
        )),
        false => Ok(found),
    }
}

/// The tasks to test, and the form of their prompts.
fn tested(settings: &CodeSettings, tasks: Vec<CodeTask>) -> (Vec<CodeTask>, Form) {
    let number = |task: &CodeTask| mbpp_number(task).unwrap_or(u32::MAX);
    let is_mbpp = |task: &CodeTask| task.benchmark == Benchmark::Mbpp;
    let form = match settings.data.form {
        Asking::Instruction => Form::Instruction,
        // The three tasks in the authors' prompts.
        Asking::Completion => Form::Completion {
            shots: tasks
                .iter()
                .filter(|task| is_mbpp(task) && (2..=4).contains(&number(task)))
                .cloned()
                .collect(),
        },
    };
    if let Form::Completion { shots } = &form
        && tasks.iter().any(is_mbpp)
        && shots.len() < 3
    {
        tell(format_args!(
            "the prompts show {} solved tasks of MBPP: the file lacks some of its tasks 2 to 4",
            shots.len()
        ));
    }
    let in_test = |task: &CodeTask| !is_mbpp(task) || (MBPP_PROMPTS + 1..=MBPP_LAST).contains(&number(task));
    let limit = settings.data.test_limit.unwrap_or(usize::MAX);
    (tasks.into_iter().filter(in_test).take(limit).collect(), form)
}

fn of_files(settings: CodeSettings, program: Program, allowed: bool) -> Result<Opened, String> {
    let train = settings.data.train_file.clone();
    if train.is_empty() && settings.common.trained_methods().next().is_some() && settings.common.model.adapter.is_none()
    {
        return Err(
            "no training file; give --train-file FILE (CodeFeedback's, JSON, JSONL or parquet), or --method none to test the \
             model as it is"
                .into(),
        );
    }
    let runner = runner(&settings, allowed)?;
    let (mut sets, mut files) = (Vec::new(), train.clone());
    for (name, file, tasks) in benchmarks(&settings)? {
        let (tasks, form) = tested(&settings, tasks);
        if tasks.is_empty() {
            return Err(format!(
                "{}: none of its tasks is in the benchmark's test set",
                file.display()
            ));
        }
        sets.push((name, tasks, form));
        files.push(file);
    }
    let examples = move || {
        let read = code::feedback(&train).map_err(|e| e.to_string())?;
        if let Some(bad) = read.describe_bad() {
            tell(format_args!("{bad}"));
        }
        tell(format_args!(
            "{} answers without a block of code are left out",
            read.empty
        ));
        Ok(read.examples.into())
    };
    let place = settings.data.data.as_ref().map(|path| path.display().to_string());
    let corpus = Corpus {
        name: String::new(),
        place,
        examples: Box::new(examples),
        template: Template::Alpaca,
        sets: Vec::new(),
        files,
        evaluation: Some(settings.evaluation.clone()),
    };
    opened(settings, program, corpus, sets, &runner, true)
}

fn of_sample(settings: CodeSettings, program: Program, allowed: bool) -> Result<Opened, String> {
    if !settings.data.train_file.is_empty() {
        return Err(
            "--train-file needs --data, the folder with the benchmarks: the generated tasks have examples of their own"
                .into(),
        );
    }
    let runner = match allowed {
        false => {
            tell(
                "the generated tasks' expressions are evaluated here; with --allow-code-execution, python3 runs them in a sandbox",
            );
            Runner::Expressions
        }
        true => runner(&settings, true).unwrap_or_else(|message| {
            note(format_args!(
                "{message}; the generated tasks' expressions are evaluated without it"
            ));
            Runner::Expressions
        }),
    };
    let made = programs::programs();
    let names: Vec<&str> = made.sets.iter().map(|(name, _)| name.as_str()).collect();
    let picked: Vec<String> = sets::chosen(&settings.data.task, &names)?
        .into_iter()
        .map(String::from)
        .collect();
    let limit = settings.data.test_limit.unwrap_or(usize::MAX);
    let sets = made.sets.into_iter().filter(|(name, _)| picked.contains(name));
    let sets = sets.map(|(name, tasks)| {
        let form = Form::Completion { shots: Vec::new() };
        (name, tasks.into_iter().take(limit).collect(), form)
    });
    let sets = sets.collect();
    let train = made.train;
    let corpus = Corpus {
        name: String::new(),
        place: None,
        examples: Box::new(move || Ok(train.clone().into())),
        template: Template::Alpaca,
        sets: Vec::new(),
        files: Vec::new(),
        evaluation: Some(settings.evaluation.clone()),
    };
    opened(settings, program, corpus, sets, &runner, false)
}

/// The lab for `sets`, which writes their samples in HumanEval's format.
fn opened(
    settings: CodeSettings,
    program: Program,
    mut corpus: Corpus,
    sets: Vec<(String, Vec<CodeTask>, Form)>,
    runner: &Runner,
    published: bool,
) -> Result<Opened, String> {
    let names: Vec<(String, Vec<String>)> = sets
        .iter()
        .map(|(name, tasks, _)| (name.clone(), tasks.iter().map(|task| task.id.clone()).collect()))
        .collect();
    let ks = settings.ks();
    for (name, tasks, form) in sets {
        corpus.sets.push(TestSet {
            name,
            questions: tasks.into_iter().map(|task| asked(task, &form, runner, &ks)).collect(),
            scored: true,
            metric: "pass@1",
        });
    }
    let human_eval = corpus.sets.iter().any(|set| set.name == "HumanEval");
    let rows = (published && human_eval).then_some(&CODE[..]);
    let layout = sets::layout(&corpus, rows, ["HumanEval"].into_iter());
    let lab = LanguageLab::new(program, settings.common, corpus).with_after(Box::new(move |set, answers, folder| {
        let tasks = names
            .iter()
            .find(|(name, _)| *name == set.name)
            .map_or(&[][..], |(_, tasks)| tasks);
        let path = folder.join(format!("{}.samples.jsonl", set.name));
        samples::write(&path, tasks, answers).map_err(RunError::Failed)?;
        Ok(Aftermath::default())
    }));
    Ok(Opened {
        lab: Box::new(lab),
        layout,
    })
}

/// A lab that scores the samples in `file`.
fn score(settings: &CodeSettings, program: Program, file: &Path, runner: &Runner) -> Result<Opened, String> {
    let benchmarks = benchmarks(settings)?;
    let known = |id: &str| {
        benchmarks
            .iter()
            .any(|(_, _, tasks)| tasks.iter().any(|task| task.id == id))
    };
    let samples = samples::read(file, known)?;
    let (mut files, mut sets) = (vec![file.to_path_buf()], Vec::new());
    for (name, path, tasks) in benchmarks {
        let (mut tasks, _) = tested(settings, tasks);
        let all = tasks.len();
        let of_set = tasks
            .iter()
            .filter_map(|task| Some((task.id.clone(), samples.get(&task.id)?.clone())));
        let of_set: std::collections::BTreeMap<String, Vec<String>> = of_set.collect();
        // The samples may belong to only one of several benchmarks.
        if of_set.is_empty() {
            continue;
        }
        if let Some(missing) = tasks.iter().find(|task| !of_set.contains_key(&task.id))
            && !settings.data.ignore_incomplete
        {
            return Err(format!(
                "{}: {} of the {all} tasks of {name} have no sample, such as {}; give --ignore-incomplete to score the others",
                file.display(),
                all - of_set.len(),
                missing.id
            ));
        }
        tasks.retain(|task| of_set.contains_key(&task.id));
        files.push(path);
        sets.push(Sampled {
            name,
            tasks,
            samples: of_set,
        });
    }
    let scored: usize = sets.iter().map(|set: &Sampled| set.samples.len()).sum();
    if 0 < scored && scored < samples.len() {
        tell(format_args!(
            "samples of {} tasks are left out: they are not in the test set, or beyond --test-limit",
            samples.len() - scored
        ));
    }
    if sets.is_empty() {
        return Err(format!(
            "{}: none of the samples belongs to a task that is tested",
            file.display()
        ));
    }
    let layout = Layout::Sets {
        scored: sets.iter().map(|set| set.name.clone()).collect(),
        published: &[],
        published_sets: Vec::new(),
    };
    let lab = ScoreLab::new(program, files, sets, runner.clone(), settings.running.k.clone());
    Ok(Opened {
        lab: Box::new(lab),
        layout,
    })
}
