//! Stochastic depth (Huang et al. 2016, arXiv 1603.09382), per sample, as timm's `DropPath`.

use burn::module::{Flag, Module, Param};
use burn::tensor::{Device, Distribution, Tensor};

/// Drops a residual branch of whole samples in training; kept ones are scaled by 1 / (1 - prob).
#[derive(Module, Debug)]
pub struct DropPath {
    /// Probability of dropping.
    pub prob: f64,
    /// Cleared by `Module::freeze`.
    pub training: Param<Flag>,
}

impl DropPath {
    /// Drops with probability `prob` in [0, 1).
    pub fn new(prob: f64) -> Self {
        Self {
            prob,
            training: Param::from_bool(true),
        }
    }

    /// True if samples are dropped on `device`: in training (on a device with autodiff), with a probability above 0.
    pub fn drops(&self, device: &Device) -> bool {
        self.prob > 0.0 && self.training.is_enabled() && device.is_autodiff()
    }

    /// The factor of each of `batch` samples' branch, `[batch]`: 0, or 1 / (1 - prob). None if nothing is dropped.
    pub fn factors(&self, batch: usize, device: &Device) -> Option<Tensor<1>> {
        let keep = 1.0 - self.prob;
        self.drops(device).then(|| {
            let mask = Tensor::<1>::random([batch], Distribution::Bernoulli(keep), device);
            mask.mul_scalar(1.0 / keep)
        })
    }
}
