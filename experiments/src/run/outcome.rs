//! The result of a trial: a row of summary.json, for any kind of model.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Name of the score for the increase of the loss on general text through the training.
pub const FORGETTING: &str = "forgetting";

/// One method on one task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// Program.
    pub experiment: String,
    /// Task or test set; for `finetune`, the name of the first training file.
    pub task: String,
    /// Group of the task, empty if there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Method.
    pub method: String,
    /// Pretrained model; absent for the one that ships with the program.
    pub model: Option<String>,
    /// Location of the data; absent for the sample that ships with the program.
    pub data: Option<String>,
    /// Trainable parameters, without those of a classifier's head.
    pub trainable_params: usize,
    /// Percentage of the frozen parameters.
    pub percent_trainable: f64,
    /// Name of `value`.
    pub metric: String,
    /// The result after the last epoch, or of the adapter that was kept; absent if nothing was held out.
    pub value: Option<f64>,
    /// All metrics of a task that has several, including `value`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub scores: BTreeMap<String, f64>,
    /// The same metric on data held out from training; absent if that data was trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<f64>,
    /// Accuracy of the most likely option, percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub likelihood: Option<f64>,
    /// Questions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub questions: Option<usize>,
    /// Wall time of training and evaluation, over all sessions of a resumed run; for a test set, the time for its
    /// answers.
    pub seconds: f64,
    /// Wall time of the training, if test sets share it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training_seconds: Option<f64>,
    /// Optimizer steps per second of the last session, evaluation included, the first step not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_per_second: Option<f64>,
    /// Images per second while training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images_per_second: Option<f64>,
    /// Tokens per second while training, padding included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// Peak memory during the run, MB: the memory of a GPU's allocator at its end, or the resident memory of the
    /// process (since the start of the process if the system cannot reset its peak).
    #[serde(alias = "peak_rss_mb")] // as earlier runs wrote it
    pub peak_mb: Option<f64>,
    /// Peak learning rate.
    #[serde(alias = "lr")] // as earlier runs wrote it
    pub learning_rate: Option<f64>,
    /// Weight decay.
    pub weight_decay: Option<f64>,
    /// Seed.
    pub seed: u64,
}

/// Why a trial gave no outcome.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Ctrl-C.
    #[error("interrupted; finished work is kept, and the same command continues from there")]
    Interrupted,
    /// A loss that is not a number.
    #[error("{0}")]
    Diverged(String),
    /// Anything else, in one sentence.
    #[error("{0}")]
    Failed(String),
}
