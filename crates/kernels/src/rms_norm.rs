//! Root mean square normalization (Zhang and Sennrich 2019, arXiv 1910.07467).

use burn::tensor::Tensor;

use crate::dtype::upcast;
use crate::layer_norm::check_vector;
use crate::operands::Operands;

/// `x / √(mean(x²) + epsilon)·(offset + gamma)` over the last dimension of `x`, in the dtype of `x`. `gamma`: `[d_model]`,
/// of any float dtype; `offset` is 0, or 1 for checkpoints that store the scale minus 1 (Gemma).
///
/// Only `x` is saved for backward; a frozen `gamma` gets no gradient.
///
/// # Panics
/// `gamma` is not a float tensor of `[d_model]` on the device of `x`.
#[track_caller]
pub fn rms_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, offset: f64, epsilon: f64) -> Tensor<D> {
    check_vector(&Operands::of("rms_norm", "x", &x), "gamma", &gamma, x.dims()[D - 1]);
    if x.shape().num_elements() == 0 {
        return x;
    }
    #[cfg(feature = "flex")]
    if crate::flex::supports(&x) {
        return crate::flex::norm::rms_norm(x, gamma, offset, epsilon);
    }
    let dtype = x.dtype();
    let x = upcast(x);
    let gamma = gamma.cast(x.dtype());
    let gamma = if offset == 0.0 { gamma } else { gamma.add_scalar(offset) };
    // Before the rest, which a GPU fuses if no change of shape comes between.
    let gamma = gamma.unsqueeze::<D>();
    let scale = x.clone().square().mean_dim(D - 1).add_scalar(epsilon).sqrt();
    (x / scale * gamma).cast(dtype)
}
