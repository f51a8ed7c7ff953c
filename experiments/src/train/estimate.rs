//! Estimate of a training's memory before it starts.

use crate::cli::device::members;
use crate::run::memory::available_mb;

/// Memory of a training, in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The model's weights.
    pub weights: u64,
    /// Gradients and the optimizer's two moments of the trained parameters.
    pub trained: u64,
    /// Activations that one batch saves for the backward pass.
    pub activations: u64,
}

impl Estimate {
    /// The estimate for a model with `params` parameters in `bytes` bytes, of which `trained` are trained, and a batch
    /// that saves `activations` f32 elements.
    pub fn new(params: usize, bytes: usize, trained: usize, activations: usize) -> Self {
        Self {
            weights: (params * bytes) as u64,
            trained: (trained * 12) as u64,
            activations: (activations * 4) as u64,
        }
    }

    /// The sum, in MB (10^6 bytes).
    pub fn total_mb(&self) -> u64 {
        (self.weights + self.trained + self.activations) / 1_000_000
    }

    /// Checks the sum against `limit` MB. `batch` describes a batch, `advice` says what to change.
    ///
    /// # Errors
    /// A sum above the limit, in one sentence.
    pub fn check(&self, limit: Option<u64>, batch: &str, advice: &str) -> Result<(), String> {
        let mb = |bytes: u64| bytes / 1_000_000;
        match limit {
            Some(limit) if self.total_mb() > limit => Err(format!(
                "the training needs about {} MB (weights {}, trained part {}, {batch} {}), more than the {limit} MB available; {advice}",
                self.total_mb(),
                mb(self.weights),
                mb(self.trained),
                mb(self.activations),
            )),
            _ => Ok(()),
        }
    }

    /// The memory that a training on `device`, several perhaps, may take, MB, its weights there already; `None` where
    /// nobody knows: another device than the host has a memory of its own, which it does not tell.
    pub fn free_mb(&self, device: &str) -> Option<u64> {
        let on_host = |name: &str| matches!(name.split(':').next(), Some("flex" | "ndarray"));
        let is_host = members(device).into_iter().all(on_host);
        let loaded = self.weights / 1_000_000;
        available_mb().filter(|_| is_host).map(|mb| mb + loaded)
    }
}
