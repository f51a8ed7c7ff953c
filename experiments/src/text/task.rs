//! Tasks of text classifiers and their sources: the seam between the lab and the benchmarks.

use std::path::{Path, PathBuf};

use backbones::classify::Labels;
use datasets::glue::{Label, Metric};
use datasets::texts::TextItem;

/// A text or a pair, with its answer if known.
pub type Item = TextItem<Label>;

/// Texts that a trained model answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Name in files and messages.
    pub name: String,
    /// The texts.
    pub items: Vec<Item>,
}

impl Part {
    /// True if every text has its answer.
    pub fn is_labelled(&self) -> bool {
        !self.items.is_empty() && self.items.iter().all(|item| item.label.is_some())
    }
}

/// A task.
#[derive(Debug, Clone, PartialEq)]
pub struct TextTask {
    /// Name in tables.
    pub name: String,
    /// The labels to predict.
    pub labels: Labels,
    /// Metrics; trainings are judged and compared by the first one.
    pub metrics: Vec<Metric>,
    /// Texts to train on.
    pub train: Vec<Item>,
    /// Labelled parts for validation, at least one; the first one is used for comparisons.
    pub valid: Vec<Part>,
    /// Texts to make predictions for, with or without answers.
    pub test: Vec<Part>,
    /// Maximum number of tokens in the adapter's training, if an adapter is only evaluated.
    pub max_length: Option<usize>,
}

/// Source of a program's tasks.
pub trait TextTasks {
    /// A task with its texts.
    ///
    /// # Errors
    /// Data that is missing or malformed.
    fn load(&self, name: &str) -> Result<TextTask, String>;

    /// The files that all tasks are read from.
    fn files(&self) -> Vec<PathBuf>;

    /// Their location, for tables; `None` if they are part of the program.
    fn place(&self) -> Option<String>;

    /// Writes the predictions for the texts of `part` into `folder`, in the benchmark's format.
    ///
    /// # Errors
    /// A file that cannot be written.
    fn write(&self, task: &TextTask, part: &Part, answers: &[Answer], folder: &Path) -> Result<(), String>;

    /// Field of the text, or the two fields of a pair, which new texts must have too.
    fn fields(&self) -> Option<String> {
        None
    }
}

/// A model's prediction for a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The most likely class, or the score.
    pub label: Label,
    /// Probability of each class; empty for a score.
    pub probabilities: Vec<f32>,
}
