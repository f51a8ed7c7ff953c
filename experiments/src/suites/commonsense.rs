//! `commonsense`: the WeGeFT paper's commonsense reasoning (arXiv 2312.00700), one model trained on all sets and evaluated
//! on each.

use clap::{Args, Command};
use datasets::language::commonsense::{self, SETS};
use datasets::language::published::COMMONSENSE;
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
pub struct Commonsense;

impl Experiment for Commonsense {
    fn text(&self) -> Text {
        Text {
            name: "commonsense",
            about: "Fine-tune a language model on commonsense questions and evaluate it on eight test sets",
            more: SUITE_MORE,
            examples: "commonsense
                commonsense --config paper-commonsense-llama3 --data ROOT
                commonsense --data ROOT --model org/name --adapter runs/mine/wegeft/adapter --task boolq,piqa",
            defaults: concat!(
                include_str!("language.toml"),
                "learning_rate = 2e-4\nmax_new_tokens = 32\n"
            ),
            presets: &[
                Preset {
                    name: "paper-commonsense-llama1",
                    text: include_str!("../../configs/paper-commonsense-llama1.toml"),
                },
                Preset {
                    name: "paper-commonsense-llama2",
                    text: include_str!("../../configs/paper-commonsense-llama2.toml"),
                },
                Preset {
                    name: "paper-commonsense-llama3",
                    text: include_str!("../../configs/paper-commonsense-llama3.toml"),
                },
                Preset {
                    name: "old-commonsense-llama3",
                    text: include_str!("../../configs/old-commonsense-llama3.toml"),
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
        let sample = [SAMPLE, "max_new_tokens = 12"];
        let (settings, program) = given.settings::<SuiteSettings>(&sample, SuiteSettings::check)?;
        let corpus = match &settings.data.data {
            Some(_) => from_files(&settings)?,
            None => sets::of_sample(sample::commonsense::suite(), Template::Plain, &settings)?,
        };
        let published = settings.data.data.as_ref().map(|_| &COMMONSENSE[..]);
        let layout = sets::layout(&corpus, published, SETS.iter().map(|set| set.name));
        Ok(Opened {
            lab: Box::new(LanguageLab::new(program, settings.common, corpus)),
            layout,
        })
    }

    fn published(&self, found: &[String]) -> Option<Frame> {
        benchmarks::commonsense(found)
    }
}

fn from_files(settings: &SuiteSettings) -> Result<Corpus, String> {
    let root = settings.data.data.clone().unwrap_or_default();
    let protocol = settings.protocol();
    let picked = sets::with_questions(&settings.data.task, &SETS.map(|set| (set.name, set.folder)), &root)?;
    let tests = SETS
        .iter()
        .filter(|set| picked.contains(&set.name))
        .map(|set| {
            Ok(TestQuestions {
                name: set.name.into(),
                questions: commonsense::test(&root, *set).map_err(|e| e.to_string())?,
                scored: true,
                file: test_file(&root.join(set.folder)),
            })
        })
        .collect::<Result<Vec<_>, String>>()?;
    let given = settings.data.train_file.clone();
    let folder = root.clone();
    let examples = move || {
        let files = match given.is_empty() {
            true => {
                let (files, missing) = commonsense::train_files(&folder, protocol).map_err(|e| e.to_string())?;
                if !missing.is_empty() {
                    tell(format_args!(
                        "no train.json for {}: trained without it",
                        missing.join(", ")
                    ));
                }
                files
            }
            false => given.clone(),
        };
        let read = commonsense::train(&files, protocol).map_err(|e| e.to_string())?;
        if let Some(bad) = read.describe_bad() {
            tell(format_args!("{bad}"));
        }
        Ok(read)
    };
    let own = match settings.data.train_file.is_empty() {
        true => commonsense::train_files(&root, protocol)
            .map(|(files, _)| files)
            .unwrap_or_default(),
        false => settings.data.train_file.clone(),
    };
    sets::of_files(tests, Box::new(examples), own, Template::Plain, settings)
}
