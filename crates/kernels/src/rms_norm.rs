//! Root mean square normalization (Zhang and Sennrich 2019, arXiv 1910.07467).

use burn::tensor::Tensor;

/// `x / √(mean(x²) + epsilon)·gamma` over the last dimension of `x`. `gamma`: `[d_model]`.
///
/// The backward pass keeps `x` and no more; a frozen `gamma` gets no gradient.
pub fn rms_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, epsilon: f64) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if crate::flex::takes(&x) && crate::flex::takes(&gamma) {
        return crate::flex::norm::rms_norm(x, gamma, epsilon);
    }
    let scale = x.clone().square().mean_dim(D - 1).add_scalar(epsilon).sqrt();
    x / scale * gamma.unsqueeze::<D>()
}
