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

    /// False if [`DropPath::forward`] leaves a branch on `device` as it is.
    pub fn drops(&self, device: &Device) -> bool {
        self.prob > 0.0 && self.training.is_enabled() && device.is_autodiff()
    }

    /// `branch`: `[batch, tokens, d_model]`.
    pub fn forward(&self, branch: Tensor<3>) -> Tensor<3> {
        if !self.drops(&branch.device()) {
            return branch;
        }
        let keep = 1.0 - self.prob;
        let [batch, ..] = branch.dims();
        let mask = Tensor::<3>::random([batch, 1, 1], Distribution::Bernoulli(keep), &branch.device());
        branch * mask.mul_scalar(1.0 / keep)
    }
}
