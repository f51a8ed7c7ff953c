//! The `commonsense` experiment of the WeGeFT paper (arXiv 2312.00700): one model trained on all sets, evaluated on each.

use burn::train::Interrupter;
use datasets::language::commonsense::{self, SETS};
use datasets::language::published::COMMONSENSE;
use datasets::language::{Protocol, Template, sample};

use crate::language::chosen::{limited, with_questions};
use crate::language::flags::Args;
use crate::language::outcome::Outcome;
use crate::language::settings::Settings;
use crate::language::suite::{Suite, TestSet, run};
use crate::output::tell;

const PROGRAM: &str = "commonsense";

/// Runs what `args` ask for; `interrupter` stops it.
///
/// # Errors
/// One sentence: bad settings, data or weights, a training that failed, an interruption.
pub fn commonsense(args: &Args, interrupter: &Interrupter) -> Result<Vec<Outcome>, String> {
    let settings = args.settings(PROGRAM, |args| if args.is_sample() { of_sample() } else { full() })?;
    let suite = match &settings.data {
        Some(_) => from_files(&settings)?,
        None => Suite::of_sample(PROGRAM, sample::commonsense::suite(), Template::Plain, &settings)?,
    };
    run(&suite, args, &settings, interrupter)
}

/// Settings of WeGeFT's released code.
pub(crate) fn full() -> Settings {
    Settings {
        learning_rate: 2e-4,
        max_new_tokens: 32,
        ..Settings::default()
    }
}

/// Settings for the generated questions and the small model that ships.
pub(crate) fn of_sample() -> Settings {
    Settings {
        max_new_tokens: 12,
        ..Settings::of_sample()
    }
}

fn from_files(settings: &Settings) -> Result<Suite, String> {
    let root = settings.data.clone().unwrap_or_default();
    let protocol = Protocol::named(&settings.protocol)?;
    let names = SETS.map(|set| set.name);
    let picked = with_questions(&settings.sets, &SETS.map(|set| (set.name, set.folder)), &root)?;
    let sets = SETS
        .iter()
        .filter(|set| picked.contains(&set.name))
        .map(|set| {
            Ok(TestSet {
                name: set.name.into(),
                questions: limited(commonsense::test(&root, *set).map_err(|e| e.to_string())?, settings),
                scored: true,
            })
        })
        .collect::<Result<Vec<_>, String>>()?;
    let files = settings.train_file.clone();
    let train = move || {
        let files = match files.is_empty() {
            true => {
                let (files, missing) = commonsense::train_files(&root, protocol).map_err(|e| e.to_string())?;
                if !missing.is_empty() {
                    tell(format_args!("no train.json of {}: trained without", missing.join(", ")));
                }
                files
            }
            false => files.clone(),
        };
        let read = commonsense::train(&files, protocol).map_err(|e| e.to_string())?;
        if let Some(bad) = read.describe_bad() {
            tell(format_args!("{bad}"));
        }
        Ok(read.examples)
    };
    Ok(Suite {
        experiment: PROGRAM,
        sets,
        train: Box::new(train),
        template: Template::Plain,
        published: &COMMONSENSE,
        published_sets: names.to_vec(),
    })
}
