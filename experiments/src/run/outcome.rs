//! The result of a trial: a row of summary.json, whatever was trained.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Name of the score that says how much greater the loss on general text is than before the training.
pub const FORGETTING: &str = "forgetting";

/// One method on one task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// Program.
    pub experiment: String,
    /// Task or test set; of `finetune` the name of the first training file.
    pub task: String,
    /// Group of the task, empty if there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Method.
    pub method: String,
    /// Pretrained model; absent for the one that ships.
    pub model: Option<String>,
    /// Where the data lies; absent for the sample that ships.
    pub data: Option<String>,
    /// Trainable parameters, those of a classifier's head left out.
    pub trainable_params: usize,
    /// Of the frozen parameters, percent.
    pub percent_trainable: f64,
    /// Name of `value`.
    pub metric: String,
    /// The result, after the last epoch or of the adapter that was kept; absent where nothing was held out.
    pub value: Option<f64>,
    /// Every metric of a task that has several, `value` among them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub scores: BTreeMap<String, f64>,
    /// The same metric on what was held out from training; absent if that was trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<f64>,
    /// Accuracy of the most likely option, percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub likelihood: Option<f64>,
    /// Questions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub questions: Option<usize>,
    /// Wall time of training and evaluation, of all sessions of a resumed run together; of a test set that of its answers.
    pub seconds: f64,
    /// Wall time of the training, where test sets share one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training_seconds: Option<f64>,
    /// Optimizer steps per second of the last session, evaluation included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_per_second: Option<f64>,
    /// Images per second while training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images_per_second: Option<f64>,
    /// Tokens per second while training, padding included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// Peak memory during the run, MB: what a GPU's allocator held at its end, or the resident memory of the process (where
    /// the system cannot start its peak anew, since the process began).
    #[serde(alias = "peak_rss_mb")] // as earlier runs wrote it
    pub peak_mb: Option<f64>,
    /// Peak learning rate.
    #[serde(rename = "lr", alias = "learning_rate")]
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
    #[error("interrupted; what was finished is kept, the same command goes on from there")]
    Interrupted,
    /// A loss that is not a number.
    #[error("{0}")]
    Diverged(String),
    /// Anything else, in one sentence.
    #[error("{0}")]
    Failed(String),
}
