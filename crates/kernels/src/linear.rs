//! Linear layers with what follows them in the same pass: the bias, then GELU or the sum with a residual stream.

use burn::tensor::{DType, Tensor};

use crate::gelu;

/// `x W + b`. `x`: `[n, d_in]`, `weight`: `[d_in, d_out]`, `bias`: `[d_out]`; result `[n, d_out]` in the type of `x`.
///
/// The weight may be of another type: bf16, f16 or quantized. Flex widens it a block at a time and computes in f32; other
/// backends widen it first. The backward pass keeps `x` only if the weight requires a gradient, and forms no gradient
/// that nothing asks for.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::flex::takes(&x) && crate::flex::takes_weight(&weight) {
        return crate::flex::linear::linear(x, weight, bias);
    }
    plain(x, weight, bias)
}

/// `gelu(x W + b)`, shapes and types as [`linear`].
pub fn linear_gelu(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::flex::takes(&x) && crate::flex::takes(&weight) {
        return crate::flex::linear::linear_gelu(x, weight, bias);
    }
    gelu(linear(x, weight, bias))
}

/// `residual + x W + b`, shapes and types as [`linear`], `residual`: `[n, d_out]`.
pub fn linear_add(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, residual: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::flex::takes(&x) && crate::flex::takes_weight(&weight) {
        if matches!(weight.dtype(), DType::QFloat(_)) {
            return residual + crate::flex::linear::linear(x, weight, bias);
        }
        return crate::flex::linear::linear_add(x, weight, bias, residual);
    }
    residual + plain(x, weight, bias)
}

fn plain(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let dtype = x.dtype();
    let weight = match weight.dtype() {
        DType::QFloat(_) => weight.dequantize(),
        _ => weight,
    };
    let out = x.matmul(weight.cast(dtype));
    match bias {
        Some(bias) => out + bias.cast(dtype).unsqueeze::<2>(),
        None => out,
    }
}
