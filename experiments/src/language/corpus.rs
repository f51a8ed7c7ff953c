//! What a program passes to the lab of language models: examples, questions, and callbacks for answers and finished
//! trials.

use std::path::{Path, PathBuf};

use datasets::language::{Examples, Template};

use crate::language::evaluation::Answer;
use crate::language::judge::TestSet;
use crate::language::settings::Evaluation;
use crate::run::outcome::{Outcome, RunError};
use crate::run::trial::Trial;

/// Reads examples.
pub type ReadExamples = Box<dyn Fn() -> Result<Examples, String>>;

/// What a program trains and tests on.
pub struct Corpus {
    /// Name of the training in tables, if there are no test sets.
    pub name: String,
    /// Where the data comes from, for tables.
    pub place: Option<String>,
    /// Training examples; read only if something is trained.
    pub examples: ReadExamples,
    /// Template of the prompts.
    pub template: Template,
    /// Test sets; without any, the loss on held-out examples is the result.
    pub sets: Vec<TestSet>,
    /// The files that all this is read from.
    pub files: Vec<PathBuf>,
    /// How questions are answered.
    pub evaluation: Option<Evaluation>,
}

/// Further results of a set's answers, in addition to their score.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Aftermath {
    /// The result of the whole set, if its questions are not judged one by one.
    pub value: Option<f64>,
    /// Further values: name, value.
    pub further: Vec<(String, f64)>,
}

/// Called with each set, its answers and the trial's folder: writes the benchmark's own files, asks judges elsewhere.
pub type After = Box<dyn Fn(&TestSet, &[Answer], &Path) -> Result<Aftermath, RunError>>;

/// A finished trial, for the program's own files about it.
pub struct Finished<'a> {
    /// The trial.
    pub trial: &'a Trial,
    /// Its folder.
    pub folder: &'a Path,
    /// Its outcomes.
    pub outcomes: &'a [Outcome],
    /// Parameters of the model, without the adapter's.
    pub model_params: usize,
    /// All parameters that were trained.
    pub trained_params: usize,
    /// Mean memory after a step, and its 99th percentile, MB.
    pub memory_mb: Option<(f64, f64)>,
    /// Tokens trained on, without padding.
    pub tokens: usize,
}

/// Called with each finished trial.
pub type Finish = Box<dyn Fn(&Finished) -> Result<(), String>>;
