//! Root mean square normalization (Zhang and Sennrich 2019, arXiv 1910.07467).

use burn::tensor::Tensor;

use crate::compute::wide;

/// `x / √(mean(x²) + epsilon)·(offset + gamma)` over the last dimension of `x`, in the type of `x`. `gamma`: `[d_model]`,
/// of half precision too; `offset` is 0, or 1 where a checkpoint holds what the scale differs from 1 by (Gemma).
///
/// The backward pass keeps `x` and no more; a frozen `gamma` gets no gradient.
pub fn rms_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, offset: f64, epsilon: f64) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if crate::flex::takes(&x) && crate::flex::takes_vector(&gamma) {
        return crate::flex::norm::rms_norm(x, gamma, offset, epsilon);
    }
    let dtype = x.dtype();
    let x = wide(x);
    let gamma = gamma.cast(x.dtype());
    let gamma = if offset == 0.0 { gamma } else { gamma.add_scalar(offset) };
    let scale = x.clone().square().mean_dim(D - 1).add_scalar(epsilon).sqrt();
    (x / scale * gamma.unsqueeze::<D>()).cast(dtype)
}
