//! What LoHa and LoKr have in common: initialization and dropout of residuals.

use burn::tensor::Tensor;

use super::check::check_probability;
use crate::error::AdapterError;
use crate::factors::{Init, Spec};
use crate::tensor::dropped;

/// A factor that starts uniform in ±1/√columns: Kaiming-uniform with a = √5.
pub(super) fn random(name: &str, suffix: &str, shape: [usize; 2]) -> Spec {
    Spec::new(name, suffix, shape).with_init(Init::Uniform(1.0 / (shape[1] as f64).sqrt()))
}

/// PEFT's rank where a file gives none.
pub(super) fn usual_rank() -> usize {
    8
}

/// PEFT's alpha where a file gives none.
pub(super) fn usual_alpha() -> f64 {
    8.0
}

pub(super) fn yes() -> bool {
    true
}

/// Dropout of residuals, in training.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dropout {
    /// Probability for each output.
    pub rank: f64,
    /// Probability for the whole.
    pub module: f64,
    /// Whether the residuals of the other outputs are scaled up, to keep their sum.
    pub rescaled: bool,
}

impl Dropout {
    pub(super) fn check(&self) -> Result<(), AdapterError> {
        check_probability("rank_dropout", self.rank)?;
        check_probability("module_dropout", self.module)
    }

    /// `update`, `[.., d_out]`, with dropout.
    pub(super) fn apply(&self, mut update: Tensor<2>) -> Tensor<2> {
        let (device, dtype) = (update.device(), update.dtype());
        let left = |count: usize, p: f64| {
            // Undoes the scale of `dropout`, so that the mask is of zeros and ones.
            let kept = dropped(Tensor::<2>::ones([1, count], (&device, dtype)), p);
            let is_left = kept.greater_elem(0.0).float();
            is_left.cast(dtype)
        };
        if self.rank > 0.0 {
            let [_, d_out] = update.dims();
            let mask = left(d_out, self.rank);
            let share = match self.rescaled {
                // Divides by at least one output, so that an empty mask gives 0 and not NaN.
                true => mask.clone().mean().clamp_min(1.0 / d_out as f64),
                false => Tensor::ones([1], (&device, dtype)),
            };
            update = update * (mask / share.unsqueeze::<2>());
        }
        if self.module > 0.0 {
            let mask = left(1, self.module);
            update = update * mask;
        }
        update
    }
}
