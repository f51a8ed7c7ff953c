//! What a program gives the lab of language models: examples, questions, and what is done with answers and finished trials.

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
    /// The name of its training in tables, where there is no test set.
    pub name: String,
    /// Where the data lies, for tables.
    pub place: Option<String>,
    /// Training examples; read only if something is trained.
    pub examples: ReadExamples,
    /// Form of the prompts.
    pub template: Template,
    /// Test sets; without, the loss on what is held out is the result.
    pub sets: Vec<TestSet>,
    /// The files that all this is read from.
    pub files: Vec<PathBuf>,
    /// How questions are answered.
    pub evaluation: Option<Evaluation>,
}

/// What a set's answers come to, beside their score.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Aftermath {
    /// The set's own value, where its questions are not judged one by one.
    pub value: Option<f64>,
    /// Further values: name, value.
    pub further: Vec<(String, f64)>,
}

/// Called with each set, its answers and the trial's folder: writes the benchmark's own files, asks judges elsewhere.
pub type After = Box<dyn Fn(&TestSet, &[Answer], &Path) -> Result<Aftermath, RunError>>;

/// A trial that is finished, for what a program writes of it.
pub struct Finished<'a> {
    /// The trial.
    pub trial: &'a Trial,
    /// Its folder.
    pub folder: &'a Path,
    /// Its outcomes.
    pub outcomes: &'a [Outcome],
    /// Parameters of the model, the adapter's left out.
    pub model_params: usize,
    /// All parameters that were trained.
    pub trained_params: usize,
    /// Mean memory after a step, and its 99th percentile, MB.
    pub memory_mb: Option<(f64, f64)>,
    /// Tokens trained on, padding left out.
    pub tokens: usize,
}

/// What a program does with a finished trial.
pub type Finish = Box<dyn Fn(&Finished) -> Result<(), String>>;
