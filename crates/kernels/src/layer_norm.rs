//! Layer normalization (Ba et al. 2016, arXiv 1607.06450).

use burn::tensor::Tensor;

use crate::dtype::upcast;
use crate::operands::Operands;

/// `(x - mean) / √(var + epsilon)·gamma + beta` over the last dimension of `x`. `gamma`, `beta`: `[d_model]`, of any
/// float dtype; the result has that of `x`.
///
/// Only `x` is saved for backward; frozen `gamma` and `beta` get no gradient.
///
/// # Panics
/// `gamma` or `beta` is not a float tensor of `[d_model]` on the device of `x`.
#[track_caller]
pub fn layer_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, beta: Option<Tensor<1>>, epsilon: f64) -> Tensor<D> {
    let operands = Operands::of("layer_norm", "x", &x);
    check_vector(&operands, "gamma", &gamma, x.dims()[D - 1]);
    if let Some(beta) = &beta {
        check_vector(&operands, "beta", beta, x.dims()[D - 1]);
    }
    if x.shape().num_elements() == 0 {
        return x;
    }
    #[cfg(feature = "flex")]
    if crate::flex::supports(&x) {
        return crate::flex::norm::layer_norm(x, gamma, beta, epsilon);
    }
    let dtype = x.dtype();
    let x = upcast(x);
    let like_x = |vector: Tensor<1>| vector.cast(x.dtype()).unsqueeze::<D>();
    // As Burn's own, but with the shapes changed before the rest, which a GPU fuses if nothing comes between.
    let (gamma, beta) = (like_x(gamma), beta.map(like_x));
    let centered = x.clone() - x.mean_dim(D - 1);
    let variance = (centered.clone() * centered.clone()).mean_dim(D - 1);
    let scaled = centered / variance.add_scalar(epsilon).sqrt() * gamma;
    match beta {
        Some(beta) => scaled + beta,
        None => scaled,
    }
    .cast(dtype)
}

/// Checks a scale or shift of the last dimension.
#[track_caller]
pub(crate) fn check_vector(operands: &Operands, name: &str, vector: &Tensor<1>, d_model: usize) {
    operands
        .float(name, vector)
        .shape(name, &vector.dims(), &[d_model], "[d_model]");
}
