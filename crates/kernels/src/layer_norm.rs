//! Layer normalization (Ba et al. 2016, arXiv 1607.06450).

use burn::tensor::{Tensor, module};

use crate::compute::wide;

/// `(x - mean) / √(var + epsilon)·gamma + beta` over the last dimension of `x`. `gamma`, `beta`: `[d_model]`,
/// of another type too; the result has that of `x`.
///
/// The backward pass keeps `x` and no more; frozen `gamma` and `beta` get no gradient.
pub fn layer_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, beta: Option<Tensor<1>>, epsilon: f64) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if crate::flex::takes(&x) && crate::flex::takes(&gamma) {
        return crate::flex::norm::layer_norm(x, gamma, beta, epsilon);
    }
    let dtype = x.dtype();
    let x = wide(x);
    let like_x = |vector: Tensor<1>| vector.cast(x.dtype());
    let (gamma, beta) = (like_x(gamma), beta.map(like_x));
    module::layer_norm(x, gamma, beta, epsilon).cast(dtype)
}
