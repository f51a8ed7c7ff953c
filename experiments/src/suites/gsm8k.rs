//! `gsm8k`: grade-school word problems (Cobbe et al. 2021, arXiv 2110.14168), trained on their own solutions.

use std::path::PathBuf;

use clap::{Args, Command};
use datasets::language::metamath::{Comparison, gold};
use datasets::language::{Example, Gold, Question, Template};
use serde::Deserialize;

use crate::language::corpus::Corpus;
use crate::language::lab::LanguageLab;
use crate::language::settings::SuiteSettings;
use crate::run::files::read_json_lines;
use crate::suites::experiment::{Experiment, Given, Opened, Text};
use crate::suites::sets::{self, TestQuestions};

/// The experiment.
pub struct Gsm8k;

impl Experiment for Gsm8k {
    fn text(&self) -> Text {
        Text {
            name: "gsm8k",
            about: "Fine-tune a language model on GSM8K's solutions and evaluate it on its test set",
            more: "--data is the folder with train.jsonl and test.jsonl as their authors distribute them.",
            examples:
                "gsm8k --data grade-school-math/data --model org/name --dtype bf16 --method lora,wegeft --seed 42,43,44
                gsm8k --data grade-school-math/data --model org/name --method none --test-limit 100",
            defaults: concat!(
                include_str!("language.toml"),
                "learning_rate = 4e-4\nmax_new_tokens = 256\n"
            ),
            presets: &[],
        }
    }

    fn flags(&self, command: Command) -> Command {
        SuiteSettings::augment_args(command)
    }

    fn open(&self, given: &Given) -> Result<Opened, String> {
        let (settings, program) = given.settings::<SuiteSettings>(&[], SuiteSettings::check)?;
        let corpus = corpus(&settings)?;
        let layout = sets::layout(&corpus, None, [].into_iter());
        Ok(Opened {
            lab: Box::new(LanguageLab::new(program, settings.common, corpus)),
            layout,
        })
    }
}

/// A line of the files: the answer ends in `#### ` and a number.
#[derive(Deserialize)]
struct Problem {
    question: String,
    answer: String,
}

fn corpus(settings: &SuiteSettings) -> Result<Corpus, String> {
    let root = settings
        .data
        .data
        .clone()
        .ok_or("give --data, a folder with train.jsonl and test.jsonl")?;
    sets::chosen(&settings.data.task, &["GSM8K"])?;
    let train = match settings.data.train_file.is_empty() {
        true => vec![root.join("train.jsonl")],
        false => settings.data.train_file.clone(),
    };
    let test = root.join("test.jsonl");
    // Read as `metamath` reads them: a bad line is told by its number.
    let problems = Comparison::Peft.test(&test).map_err(|e| e.to_string())?;
    let questions = problems.into_iter().map(|(instruction, answer)| Question {
        instruction,
        gold: Gold::Number(gold(&answer).unwrap_or(f64::NAN)),
        options: Vec::new(),
    });
    let test = TestQuestions {
        name: "GSM8K".into(),
        questions: questions.collect(),
        scored: true,
        file: test,
    };
    let files = train.clone();
    let examples = move || {
        let example = |problem: Problem| Example::Instruction {
            instruction: problem.question,
            input: String::new(),
            output: problem.answer,
        };
        let read = |file: &PathBuf| read_json_lines::<Problem>(file);
        let problems = files.iter().map(read).collect::<Result<Vec<_>, String>>()?;
        Ok(problems.into_iter().flatten().map(example).collect::<Vec<_>>().into())
    };
    sets::of_files(vec![test], Box::new(examples), train, Template::Alpaca, settings)
}
