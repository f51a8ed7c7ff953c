//! Root-mean-square norm (Zhang and Sennrich 2019, arXiv 1910.07467).

use burn::module::{Initializer, Module, Param};
use burn::tensor::{DType, Device, Tensor};

/// x / rms(x) · w, or x / rms(x) · (1 + w) with Gemma's unit offset. Burn's own has neither the offset nor the whole
/// computation in f32, which half-precision checkpoints were trained with.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[d]`
    pub weight: Param<Tensor<1>>,
    eps: f64,
    unit_offset: bool,
}

impl RmsNorm {
    /// A norm of `d` channels whose scale is 1.
    pub fn new(d: usize, eps: f64, unit_offset: bool, device: &Device) -> Self {
        let neutral = if unit_offset {
            Initializer::Zeros
        } else {
            Initializer::Ones
        };
        Self {
            weight: neutral.init([d], device),
            eps,
            unit_offset,
        }
    }

    /// `[.., d]` to the same.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let dtype = x.dtype();
        let offset = if self.unit_offset { 1.0 } else { 0.0 };
        kernels::rms_norm(x.cast(DType::F32), self.weight.val(), offset, self.eps).cast(dtype)
    }
}
