//! `metamath`: trains on MetaMathQA and tests on GSM8K, as in the WeGeFT paper's Table 1 (LoRA-GA's protocol) or in
//! PEFT's method_comparison.

use std::path::PathBuf;
use std::sync::Arc;

use backbones::lm::LmTokenizer;
use clap::{Args, Command, ValueEnum, ValueHint};
use datasets::language::metamath::{Comparison, Pair};
use datasets::language::published::GSM8K;
use datasets::language::question::Verdict;
use datasets::language::sample::{self, text::document};
use datasets::language::{Example, Gold, Template};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cli::output::tell;
use crate::cli::settings::{absolute, check_positive};
use crate::language::corpus::{Corpus, ReadExamples};
use crate::language::judge::{Asked, Judge, TestSet};
use crate::language::lab::LanguageLab;
use crate::language::model;
use crate::language::settings::{Evaluation, SAMPLE, Settings};
use crate::suites::experiment::{Experiment, Given, Opened, Preset, Text};
use crate::suites::{peft_result, sets};

/// The experiment.
pub struct MetaMath;

/// Settings of `metamath`.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
pub struct MetaMathSettings {
    /// Settings that all programs of language models share.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Settings,
    /// The data.
    #[command(flatten)]
    #[serde(flatten)]
    pub data: Data,
    /// The evaluation.
    #[command(flatten)]
    #[serde(flatten)]
    pub evaluation: Evaluation,
}

/// Data of `metamath`.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Data")]
pub struct Data {
    /// Folder with MetaMathQA-395K.json and GSM8K's test.jsonl, as their authors distribute them [default: generated
    /// questions].
    #[arg(long, value_hint = ValueHint::DirPath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// MetaMathQA: JSON, JSONL or parquet with query, response and type [default: in --data].
    #[arg(long, value_hint = ValueHint::FilePath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_file: Option<PathBuf>,
    /// GSM8K's test questions: JSONL or parquet with question and answer [default: in --data].
    #[arg(long, value_hint = ValueHint::FilePath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_file: Option<PathBuf>,
    /// GSM8K's training questions: 50 of them, drawn at random, are answered at every evaluation (--eval-steps), as in
    /// PEFT's comparison [default: none].
    #[arg(long, value_hint = ValueHint::FilePath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_file: Option<PathBuf>,
    /// General text, one paragraph per line; its loss before and after training shows what the model forgets [default:
    /// none; with the generated questions, text of the kind that the model was pretrained on].
    #[arg(long, value_hint = ValueHint::FilePath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub general_file: Option<PathBuf>,
    /// Published comparison to follow.
    #[arg(long, value_enum, default_value_t = Protocol::LoraGa)]
    pub protocol: Protocol,
    /// LoRA-GA's limit: training examples whose question and answer together have this many tokens or more are left
    /// out.
    #[arg(long, default_value_t = 512)]
    pub fewer_tokens: usize,
    /// Use only the first N test questions [default: all].
    #[arg(long, alias = "max-eval-samples")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
}

/// A published comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// LoRA-GA's, as in the paper.
    LoraGa,
    /// PEFT's method_comparison.
    Peft,
}

impl From<Protocol> for Comparison {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::LoraGa => Self::LoraGa,
            Protocol::Peft => Self::Peft,
        }
    }
}

impl MetaMathSettings {
    fn check(&mut self) -> Result<(), String> {
        self.common.check()?;
        self.evaluation.check()?;
        let data = &mut self.data;
        check_positive(&[
            ("test_limit", data.test_limit.unwrap_or(1)),
            ("fewer_tokens", data.fewer_tokens),
        ])?;
        let paths = [
            &mut data.data,
            &mut data.train_file,
            &mut data.test_file,
            &mut data.valid_file,
            &mut data.general_file,
        ];
        for path in paths.into_iter().flatten() {
            *path = absolute(path)?;
        }
        Ok(())
    }
}

const MORE: &str = "\
With neither --model nor --data it runs on generated questions with the small model that ships with the program, and \
with its own settings: methods none, lora and wegeft, ranks of 16 and 8, a learning rate of 0.005.

Answers are extracted as each protocol's released code does. LoRA-GA's code takes the digits right after the first \
#### and stops at signs and commas, in answers and references alike: \"1,000\" counts as \"1\", and an answer \
without such digits counts as 0. PEFT's code takes what follows the last \"The answer is\" or ####. \"forgetting\" is the increase of the mean loss per token of the general \
text from before to after training.

The run folder contains config.toml, summary.json, report.html and, for each method, metrics.jsonl, checkpoints/, \
adapter/ (Hugging Face PEFT's layout), a file of answers, and peft_result.json, the result in the format of PEFT's \
method_comparison. Running the same command again continues the run.";

impl Experiment for MetaMath {
    fn text(&self) -> Text {
        Text {
            name: "metamath",
            about: "Fine-tune a language model on MetaMathQA and evaluate it on GSM8K",
            more: MORE,
            examples: "metamath
                metamath --config paper-metamath-llama2 --data ROOT --learning-rate 2e-4
                metamath --config peft-metamath-llama32 --data ROOT --general-file wiki.txt",
            defaults: concat!(
                include_str!("language.toml"),
                "learning_rate = 2e-4\nmax_new_tokens = 512\n"
            ),
            presets: &[
                Preset {
                    name: "paper-metamath-llama2",
                    text: include_str!("../../configs/paper-metamath-llama2.toml"),
                },
                Preset {
                    name: "peft-metamath-llama32",
                    text: include_str!("../../configs/peft-metamath-llama32.toml"),
                },
            ],
        }
    }

    fn flags(&self, command: Command) -> Command {
        MetaMathSettings::augment_args(command)
    }

    fn open(&self, given: &Given) -> Result<Opened, String> {
        let sample = [SAMPLE, "max_new_tokens = 40"];
        let (settings, program) = given.settings::<MetaMathSettings>(&sample, MetaMathSettings::check)?;
        let protocol = Comparison::from(settings.data.protocol);
        let given = [&settings.data.data, &settings.data.train_file, &settings.data.test_file];
        let files = given.into_iter().any(Option::is_some);
        if let (Some(_), false) = (&settings.data.valid_file, files) {
            return Err("--valid-file needs --data, or --train-file and --test-file".into());
        }
        let (corpus, general) = match files {
            true => (from_files(&settings, protocol)?, general(&settings.data)?),
            false => {
                let texts = (0..60).map(|index| document(GENERAL, index));
                (from_sample(&settings, protocol), texts.collect())
            }
        };
        let table = program.table.clone();
        let valid = valid(&settings, protocol)?;
        // Published rows are of GSM8K's own questions, by LoRA-GA's protocol.
        let published = (files && protocol == Comparison::LoraGa).then_some(&GSM8K[..]);
        let layout = sets::layout(&corpus, published, [SET].into_iter());
        let lab = LanguageLab::new(program, settings.common, corpus)
            .with_general(general)
            .with_valid(valid)
            .with_finish(Box::new(move |finished| peft_result::write(finished, &table, protocol)));
        Ok(Opened {
            lab: Box::new(lab),
            layout,
        })
    }
}

/// Seed for generated text that the model was not pretrained on.
const GENERAL: u64 = 7;

/// Name of the test set.
const SET: &str = "GSM8K";

/// Judges an output by the worked answer.
struct Worked {
    answer: String,
    protocol: Comparison,
}

impl Judge for Worked {
    fn gold(&self) -> String {
        self.answer.clone()
    }

    fn judge(&self, prompt: &str, output: &str) -> Verdict {
        self.protocol.judge(&format!("{prompt}{output}"), &self.answer)
    }
}

fn asked(protocol: Comparison, question: &str, answer: String) -> Asked {
    Asked {
        prompt: protocol.test_prompt(question),
        options: None,
        judge: Arc::new(Worked { answer, protocol }),
    }
}

/// A training example: LoRA-GA trains on the answer, PEFT on the whole text.
fn example(protocol: Comparison, pair: Pair) -> Example {
    match protocol {
        Comparison::LoraGa => Example::Completion {
            prompt: pair.prompt,
            completion: format!(" {}", pair.response),
        },
        Comparison::Peft => Example::Completion {
            prompt: String::new(),
            completion: pair.prompt + &pair.response,
        },
    }
}

fn corpus(settings: &MetaMathSettings, examples: ReadExamples, questions: Vec<Asked>, files: Vec<PathBuf>) -> Corpus {
    let limit = settings.data.test_limit.unwrap_or(usize::MAX);
    Corpus {
        name: String::new(),
        place: files.first().map(|file| file.display().to_string()),
        examples,
        template: Template::Plain,
        sets: vec![TestSet {
            name: SET.into(),
            questions: questions.into_iter().take(limit).collect(),
            scored: true,
            metric: "accuracy",
        }],
        files,
        evaluation: Some(settings.evaluation.clone()),
    }
}

/// The first of `names` that is in the data folder, unless `given` names a file.
fn file(given: Option<&PathBuf>, data: &Data, names: &[&str], flag: &str) -> Result<PathBuf, String> {
    if let Some(path) = given {
        return Ok(path.clone());
    }
    let Some(root) = &data.data else {
        return Err(format!("give {flag}, or --data, a folder with {}", names[0]));
    };
    let found = names.iter().map(|name| root.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| format!("{} holds no {}; give {flag}", root.display(), names.join(" or ")))
}

fn from_files(settings: &MetaMathSettings, protocol: Comparison) -> Result<Corpus, String> {
    let data = &settings.data;
    let test = file(
        data.test_file.as_ref(),
        data,
        &[
            "test.jsonl",
            "gsm8k/test.jsonl",
            "test.parquet",
            "test-00000-of-00001.parquet",
        ],
        "--test-file",
    )?;
    let questions = protocol.test(&test).map_err(|e| e.to_string())?;
    let questions = questions
        .into_iter()
        .map(|(question, answer)| asked(protocol, &question, answer));
    let questions = questions.collect();
    let train = file(
        data.train_file.as_ref(),
        data,
        &["MetaMathQA-395K.json", "MetaMathQA.json", "train.jsonl"],
        "--train-file",
    );
    let files = train
        .iter()
        .cloned()
        .chain([test])
        .chain(data.valid_file.clone())
        .collect();
    let (model, fewer) = (settings.common.model.clone(), data.fewer_tokens);
    let (limit, seed) = (
        settings.common.examples.train_limit,
        settings.common.execution.seed.clone(),
    );
    let examples = move || {
        let read = protocol
            .train(train.as_ref().map_err(Clone::clone)?)
            .map_err(|e| e.to_string())?;
        let mut pairs = read.pairs;
        let mut too_long = read.too_long;
        match protocol {
            Comparison::LoraGa => {
                let folder = model::folder(&model)?;
                let tokenizer = LmTokenizer::load(&folder).map_err(|e| e.to_string())?;
                too_long += keep_short(&mut pairs, &tokenizer, fewer, limit)?;
            }
            // In PEFT's comparison, a training reads a random part of the file.
            Comparison::Peft => pairs.shuffle(&mut StdRng::seed_from_u64(seed.first().copied().unwrap_or(0))),
        }
        if pairs.is_empty() {
            return Err(format!(
                "none of MetaMathQA's examples is used: {} are of other kinds, {too_long} have {fewer} tokens or more; raise \
                 --fewer-tokens",
                read.other_kinds
            ));
        }
        tell(format_args!(
            "MetaMathQA: {} examples; {} of other kinds and {too_long} that are too long left out",
            pairs.len(),
            read.other_kinds
        ));
        Ok(pairs
            .into_iter()
            .map(|pair| example(protocol, pair))
            .collect::<Vec<_>>()
            .into())
    };
    Ok(corpus(settings, Box::new(examples), questions, files))
}

/// Keeps the first `limit` pairs with fewer than `fewer` tokens in question, a space and answer together; returns how
/// many pairs were longer.
fn keep_short(
    pairs: &mut Vec<Pair>,
    tokenizer: &LmTokenizer,
    fewer: usize,
    limit: Option<usize>,
) -> Result<usize, String> {
    let limit = limit.unwrap_or(usize::MAX);
    let mut kept = Vec::new();
    let mut too_long = 0;
    // In chunks, so that hardly more pairs are tokenized than needed.
    for stretch in pairs.chunks(1 << 13) {
        let short = |pair: &Pair| -> Result<bool, String> {
            let tokens = tokenizer.encode(&format!("{} {}", pair.prompt, pair.response), true)?;
            Ok(tokens.len() < fewer)
        };
        let short: Vec<bool> = stretch.par_iter().map(short).collect::<Result<_, String>>()?;
        for (pair, short) in stretch.iter().zip(short) {
            if kept.len() == limit {
                break;
            }
            match short {
                true => kept.push(pair.clone()),
                false => too_long += 1,
            }
        }
        if kept.len() == limit {
            break;
        }
    }
    *pairs = kept;
    Ok(too_long)
}

/// Questions that PEFT's comparison validates on.
const VALID: usize = 50;

/// Questions that are answered while a model trains.
fn valid(settings: &MetaMathSettings, protocol: Comparison) -> Result<Vec<Asked>, String> {
    let Some(path) = &settings.data.valid_file else {
        return Ok(Vec::new());
    };
    let mut questions = protocol.test(path).map_err(|e| e.to_string())?;
    // The same ones for every seed.
    questions.shuffle(&mut StdRng::seed_from_u64(0));
    questions.truncate(VALID);
    let questions = questions.into_iter();
    Ok(questions
        .map(|(question, answer)| asked(protocol, &question, answer))
        .collect())
}

/// The paragraphs of the general text.
fn general(data: &Data) -> Result<Vec<String>, String> {
    let Some(path) = &data.general_file else {
        return Ok(Vec::new());
    };
    let text = files::read_text(path, u64::MAX).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<String> = lines.map(String::from).collect();
    match lines.is_empty() {
        true => Err(format!("{} has no text; write one paragraph per line", path.display())),
        false => Ok(lines),
    }
}

/// The arithmetic suite's questions, with answers in the form of this protocol.
fn from_sample(settings: &MetaMathSettings, protocol: Comparison) -> Corpus {
    let suite = sample::arithmetic::suite();
    let pair = |example: &Example| match example {
        Example::Instruction {
            instruction, output, ..
        } => {
            let (worked, answer) = output.rsplit_once("The answer is").unwrap_or((output, ""));
            let number = answer.trim_matches([' ', '.', ':']);
            Some(Pair {
                prompt: protocol.prompt(instruction),
                response: format!("{}\n#### {number}", worked.trim()),
            })
        }
        _ => None,
    };
    let pairs: Vec<Pair> = suite.train.iter().filter_map(pair).collect();
    let questions = suite.sets.iter().flat_map(|(_, questions)| questions);
    let questions = questions.map(|question| {
        let number = match question.gold {
            Gold::Number(number) => number,
            _ => 0.0,
        };
        asked(protocol, &question.instruction, format!("#### {number}"))
    });
    let questions = questions.collect();
    let examples = move || {
        Ok(pairs
            .iter()
            .cloned()
            .map(|pair| example(protocol, pair))
            .collect::<Vec<_>>()
            .into())
    };
    corpus(settings, Box::new(examples), questions, Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_answers_are_judged_right() {
        let suite = sample::arithmetic::suite();
        assert!(suite.train.iter().all(|example| {
            matches!(example, Example::Instruction { output, .. } if output.contains("The answer is"))
        }));
        for protocol in [Comparison::LoraGa, Comparison::Peft] {
            let made = asked(protocol, "How many?", "#### 12".into());
            let judged = |output: &str| made.judge.judge(&made.prompt, output).correct;
            assert!(judged("3 * 4 = 12\n#### 12") && !judged("#### 11"));
        }
    }
}
