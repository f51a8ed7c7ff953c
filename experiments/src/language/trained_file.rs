//! The results of a training, saved next to its adapter, so that a resumed run need not train again.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::run::files::{read_json, write_sealed};
use crate::run::whole::has_adapter;

/// Written last, next to the adapter: if it exists, the adapter is complete.
const NAME: &str = "trained.json";

/// Results of a training.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TrainedFile {
    /// Trainable parameters.
    pub trainable_params: usize,
    /// Their percentage of all parameters.
    pub percent_trainable: f64,
    /// Wall time of the training.
    pub seconds: f64,
    /// Tokens per second.
    pub tokens_per_second: Option<f64>,
    /// Peak memory of the training, MB.
    #[serde(default)]
    pub peak_mb: Option<f64>,
    /// Steps per second.
    #[serde(default)]
    pub steps_per_second: Option<f64>,
    /// Loss on held-out examples.
    #[serde(default)]
    pub validation: Option<f64>,
    /// Mean memory after a step, and its 99th percentile, MB.
    #[serde(default)]
    pub memory_mb: Option<(f64, f64)>,
    /// Tokens trained on, padding left out.
    #[serde(default)]
    pub tokens: usize,
}

impl TrainedFile {
    /// The results of the training in a trial's `folder`; `None` if it is not finished.
    ///
    /// # Errors
    /// A damaged file.
    pub fn read(folder: &Path) -> Result<Option<Self>, String> {
        match has_adapter(folder, &[]) {
            true => read_json(&folder.join(NAME), "remove it to train again"),
            false => Ok(None),
        }
    }

    /// Saves it in a trial's `folder`, after the adapter.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), String> {
        write_sealed(&folder.join(NAME), self)
    }
}
