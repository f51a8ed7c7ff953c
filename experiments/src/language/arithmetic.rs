//! The `arithmetic` experiment of the WeGeFT paper (arXiv 2312.00700): Math10k, evaluated on word problems.

use burn::train::Interrupter;
use datasets::language::arithmetic::{self, SETS};
use datasets::language::published::ARITHMETIC;
use datasets::language::{Template, sample};

use crate::language::chosen::{limited, with_questions};
use crate::language::flags::Args;
use crate::language::outcome::Outcome;
use crate::language::settings::Settings;
use crate::language::suite::{Suite, TestSet, run};
use crate::output::tell;

const PROGRAM: &str = "arithmetic";

/// Runs what `args` ask for; `interrupter` stops it.
///
/// # Errors
/// One sentence: bad settings, data or weights, a training that failed, an interruption.
pub fn arithmetic(args: &Args, interrupter: &Interrupter) -> Result<Vec<Outcome>, String> {
    let settings = args.settings(PROGRAM, |args| if args.is_sample() { of_sample() } else { full() })?;
    let suite = match &settings.data {
        Some(_) => from_files(&settings)?,
        None => Suite::of_sample(PROGRAM, sample::arithmetic::suite(), Template::Alpaca, &settings)?,
    };
    run(&suite, args, &settings, interrupter)
}

/// Settings of WeGeFT's released code.
pub(crate) fn full() -> Settings {
    Settings {
        max_new_tokens: 512,
        ..Settings::default()
    }
}

/// Settings for the generated problems and the small model that ships.
pub(crate) fn of_sample() -> Settings {
    Settings {
        max_new_tokens: 40,
        ..Settings::of_sample()
    }
}

fn from_files(settings: &Settings) -> Result<Suite, String> {
    let root = settings.data.clone().unwrap_or_default();
    let picked = with_questions(&settings.sets, &SETS.map(|set| (set.name, set.folder)), &root)?;
    let sets = SETS
        .iter()
        .filter(|set| picked.contains(&set.name))
        .map(|set| {
            Ok(TestSet {
                name: set.name.into(),
                questions: limited(arithmetic::test(&root, *set).map_err(|e| e.to_string())?, settings),
                scored: set.scored,
            })
        })
        .collect::<Result<Vec<_>, String>>()?;
    let files = settings.train_file.clone();
    let train = move || {
        let files = match files.is_empty() {
            true => {
                let file = arithmetic::train_file(&root).map_err(|e| e.to_string())?;
                tell(format_args!("training on {}", file.display()));
                vec![file]
            }
            false => files.clone(),
        };
        let read = arithmetic::train(&files).map_err(|e| e.to_string())?;
        if read.empty > 0 {
            tell(format_args!(
                "{} training examples dropped, their outputs empty",
                read.empty
            ));
        }
        if let Some(bad) = read.describe_bad() {
            tell(format_args!("{bad}"));
        }
        Ok(read.examples)
    };
    Ok(Suite {
        experiment: PROGRAM,
        sets,
        train: Box::new(train),
        template: Template::Alpaca,
        published: &ARITHMETIC,
        published_sets: SETS.iter().filter(|set| set.scored).map(|set| set.name).collect(),
    })
}
