//! Lines of summary.json.

use serde::{Deserialize, Serialize};

/// One method on one test set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Program.
    pub experiment: String,
    /// Test set; of `finetune` the name of the first training file.
    pub task: String,
    /// Method.
    pub method: String,
    /// Trainable values.
    pub trainable_params: usize,
    /// Of the frozen values, percent.
    pub percent_trainable: f64,
    /// Name of `value`.
    pub metric: String,
    /// Accuracy by generation, percent; of `finetune` the loss on the held-out examples, if there are any.
    pub value: Option<f64>,
    /// Accuracy of the most likely option, percent.
    pub likelihood: Option<f64>,
    /// Questions.
    pub questions: usize,
    /// Wall time of the evaluation (of `finetune`, of the training).
    pub seconds: f64,
    /// Wall time of the training.
    pub training_seconds: f64,
    /// Tokens a second while training, padding included.
    pub tokens_per_second: Option<f64>,
    /// Peak memory so far, MB: what a GPU's allocator held, or the resident memory of the process.
    #[serde(alias = "peak_rss_mb")] // as earlier runs wrote it
    pub peak_mb: Option<f64>,
    /// Seed.
    pub seed: u64,
}
