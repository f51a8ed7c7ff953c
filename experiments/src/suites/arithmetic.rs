//! `arithmetic`: the WeGeFT paper's arithmetic reasoning (arXiv 2312.00700), Math10k evaluated on word problems.

use clap::{Args, Command};
use datasets::language::arithmetic::{self, SETS};
use datasets::language::published::ARITHMETIC;
use datasets::language::records::test_file;
use datasets::language::{Template, sample};

use crate::cli::output::tell;
use crate::language::corpus::Corpus;
use crate::language::lab::LanguageLab;
use crate::language::settings::{SAMPLE, SuiteSettings};
use crate::report::benchmarks;
use crate::report::table::Frame;
use crate::suites::experiment::{Experiment, Given, Opened, Preset, Text};
use crate::suites::sets::{self, SUITE_MORE, TestQuestions};

/// The experiment.
pub struct Arithmetic;

impl Experiment for Arithmetic {
    fn text(&self) -> Text {
        Text {
            name: "arithmetic",
            about: "Fine-tune a language model on arithmetic word problems and evaluate it on up to seven test sets",
            more: SUITE_MORE,
            examples: "arithmetic
                arithmetic --config paper-arithmetic-llama2 --data ROOT --train-file math_10k.json
                arithmetic --data ROOT --model org/name --method none --task gsm8k",
            defaults: concat!(
                include_str!("language.toml"),
                "learning_rate = 4e-4\nmax_new_tokens = 512\n"
            ),
            presets: &[
                Preset {
                    name: "paper-arithmetic-llama1",
                    text: include_str!("../../configs/paper-arithmetic-llama1.toml"),
                },
                Preset {
                    name: "paper-arithmetic-llama2",
                    text: include_str!("../../configs/paper-arithmetic-llama2.toml"),
                },
                Preset {
                    name: "paper-arithmetic-llama3",
                    text: include_str!("../../configs/paper-arithmetic-llama3.toml"),
                },
                Preset {
                    name: "adapters-arithmetic",
                    text: include_str!("../../configs/adapters-arithmetic.toml"),
                },
            ],
        }
    }

    fn flags(&self, command: Command) -> Command {
        SuiteSettings::augment_args(command)
    }

    fn task_names(&self) -> Vec<&'static str> {
        SETS.iter().map(|set| set.name).collect()
    }

    fn open(&self, given: &Given) -> Result<Opened, String> {
        let sample = [SAMPLE, "max_new_tokens = 40"];
        let (settings, program) = given.settings::<SuiteSettings>(&sample, SuiteSettings::check)?;
        let corpus = match &settings.data.data {
            Some(_) => from_files(&settings)?,
            None => sets::of_sample(sample::arithmetic::suite(), Template::Alpaca, &settings)?,
        };
        let published = settings.data.data.as_ref().map(|_| &ARITHMETIC[..]);
        let scored = SETS.iter().filter(|set| set.scored).map(|set| set.name);
        let layout = sets::layout(&corpus, published, scored);
        Ok(Opened {
            lab: Box::new(LanguageLab::new(program, settings.common, corpus)),
            layout,
        })
    }

    fn published(&self, found: &[String]) -> Option<Frame> {
        benchmarks::arithmetic(found)
    }
}

fn from_files(settings: &SuiteSettings) -> Result<Corpus, String> {
    let root = settings.data.data.clone().unwrap_or_default();
    let picked = sets::with_questions(&settings.data.task, &SETS.map(|set| (set.name, set.folder)), &root)?;
    let tests = SETS
        .iter()
        .filter(|set| picked.contains(&set.name))
        .map(|set| {
            Ok(TestQuestions {
                name: set.name.into(),
                questions: arithmetic::test(&root, *set).map_err(|e| e.to_string())?,
                scored: set.scored,
                file: test_file(&root.join(set.folder)),
            })
        })
        .collect::<Result<Vec<_>, String>>()?;
    let given = settings.data.train_file.clone();
    let folder = root.clone();
    let examples = move || {
        let files = match given.is_empty() {
            true => {
                let file = arithmetic::train_file(&folder).map_err(|e| e.to_string())?;
                tell(format_args!("training on {}", file.display()));
                vec![file]
            }
            false => given.clone(),
        };
        let read = arithmetic::train(&files).map_err(|e| e.to_string())?;
        if let Some(bad) = read.describe_bad() {
            tell(format_args!("{bad}"));
        }
        Ok(read)
    };
    let own = match settings.data.train_file.is_empty() {
        true => arithmetic::train_file(&root).into_iter().collect(),
        false => settings.data.train_file.clone(),
    };
    sets::of_files(tests, Box::new(examples), own, Template::Alpaca, settings)
}
