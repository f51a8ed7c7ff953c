//! What a text classifier is trained for, and where it comes from: the seam between the lab and the benchmarks.

use std::path::{Path, PathBuf};

use backbones::classify::Labels;
use datasets::glue::{Label, Metric};
use datasets::texts::TextItem;

/// A text or a pair, with its answer where that is known.
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
    /// What is told apart.
    pub labels: Labels,
    /// Metrics, that by which trainings are judged and compared first.
    pub metrics: Vec<Metric>,
    /// Texts to train on.
    pub train: Vec<Item>,
    /// Labelled texts to judge by, the first of them compared; at least one.
    pub valid: Vec<Part>,
    /// Texts to answer, with answers or without.
    pub test: Vec<Part>,
    /// Greatest number of tokens that an adapter was trained with, for those that are only evaluated.
    pub max_length: Option<usize>,
}

/// Where the tasks of a program come from.
pub trait TextTasks {
    /// A task with its texts.
    ///
    /// # Errors
    /// Data that is missing or malformed.
    fn load(&self, name: &str) -> Result<TextTask, String>;

    /// The files that all tasks are read from.
    fn files(&self) -> Vec<PathBuf>;

    /// Where they lie, for tables; `None` if they are part of the program.
    fn place(&self) -> Option<String>;

    /// Writes the answers to the texts of `part` into `folder`, in the form that its users expect.
    ///
    /// # Errors
    /// A file that cannot be written.
    fn write(&self, task: &TextTask, part: &Part, answers: &[Answer], folder: &Path) -> Result<(), String>;

    /// Field of the text, or the two of a pair, that new texts have too.
    fn fields(&self) -> Option<String> {
        None
    }
}

/// What a model says of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The most likely class, or the score.
    pub label: Label,
    /// Probability of each class; none of a score.
    pub probabilities: Vec<f32>,
}
