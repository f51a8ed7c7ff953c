//! Linear layers with what follows them in the same pass: the bias, then GELU or the sum with a residual stream.

use burn::tensor::Tensor;

use crate::gelu;

/// `x W + b`. `x`: `[n, d_in]`, `weight`: `[d_in, d_out]`, `bias`: `[d_out]`; result `[n, d_out]`.
///
/// The backward pass keeps `x` only if the weight requires a gradient, and forms no gradient that nothing asks for.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::flex::takes(&x) && crate::flex::takes(&weight) {
        return crate::flex::linear::linear(x, weight, bias);
    }
    plain(x, weight, bias)
}

/// `gelu(x W + b)`, shapes as [`linear`].
pub fn linear_gelu(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::flex::takes(&x) && crate::flex::takes(&weight) {
        return crate::flex::linear::linear_gelu(x, weight, bias);
    }
    gelu(plain(x, weight, bias))
}

/// `residual + x W + b`, shapes as [`linear`], `residual`: `[n, d_out]`.
pub fn linear_add(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, residual: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::flex::takes(&x) && crate::flex::takes(&weight) {
        return crate::flex::linear::linear_add(x, weight, bias, residual);
    }
    residual + plain(x, weight, bias)
}

fn plain(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let out = x.matmul(weight);
    match bias {
        Some(bias) => out + bias.unsqueeze::<2>(),
        None => out,
    }
}
