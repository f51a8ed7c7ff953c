//! Linear layers, with the bias, then GELU or the residual sum, in the same pass.

use burn::tensor::{DType, Tensor};

use crate::gelu;
use crate::operands::Operands;

/// `x W + b`. `x`: `[n, d_in]`, `weight`: `[d_in, d_out]`, `bias`: `[d_out]`; result `[n, d_out]` in the dtype of `x`.
///
/// The weight may have another dtype: bf16, f16 or quantized. Flex upcasts or dequantizes it block by block and computes in
/// f32; other backends convert the whole weight first. `x` is saved for backward only if the weight requires a gradient, and
/// gradients that nothing requires are not computed.
///
/// # Panics
/// `x` or `bias` is not a float tensor, `weight` neither float nor quantized; shapes that do not match; operands on different
/// devices.
#[track_caller]
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    check("linear", &x, &weight, bias.as_ref());
    #[cfg(feature = "flex")]
    if crate::flex::supports(&x) && crate::flex::supports_weight(&weight) {
        return crate::flex::linear::linear(x, weight, bias);
    }
    plain(x, weight, bias)
}

/// `gelu(x W + b)`, with the shapes and dtypes of [`linear`].
///
/// # Panics
/// As [`linear`].
#[track_caller]
pub fn linear_gelu(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    check("linear_gelu", &x, &weight, bias.as_ref());
    #[cfg(feature = "flex")]
    if crate::flex::supports(&x) && crate::flex::supports(&weight) {
        return crate::flex::linear::linear_gelu(x, weight, bias);
    }
    gelu(linear(x, weight, bias))
}

/// `residual + x W + b`, with the shapes and dtypes of [`linear`]. `residual`: `[n, d_out]`, of any float dtype; it is cast to
/// that of `x`.
///
/// # Panics
/// As [`linear`].
#[track_caller]
pub fn linear_add(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, residual: Tensor<2>) -> Tensor<2> {
    let operands = check("linear_add", &x, &weight, bias.as_ref());
    check_residual(&operands, &residual, &x, &weight);
    let residual = residual.cast(x.dtype());
    #[cfg(feature = "flex")]
    if crate::flex::supports(&x) && crate::flex::supports_weight(&weight) {
        if matches!(weight.dtype(), DType::QFloat(_)) {
            return residual + crate::flex::linear::linear(x, weight, bias);
        }
        return crate::flex::linear::linear_add(x, weight, bias, residual);
    }
    residual + plain(x, weight, bias)
}

/// Checks the operands of a linear layer.
#[track_caller]
pub(crate) fn check(operation: &'static str, x: &Tensor<2>, weight: &Tensor<2>, bias: Option<&Tensor<1>>) -> Operands {
    let operands = Operands::of(operation, "x", x);
    let ([_, d_in], [rows, d_out]) = (x.dims(), weight.dims());
    operands.weight("weight", weight).require(rows == d_in, || {
        format!(
            "`weight` has shape {:?}; expected [d_in, d_out] with d_in = {d_in}, the last dimension of `x`",
            [rows, d_out]
        )
    });
    if let Some(bias) = bias {
        operands
            .float("bias", bias)
            .shape("bias", &bias.dims(), &[d_out], "[d_out]");
    }
    operands
}

/// Checks the tensor that a linear layer's output is added to.
#[track_caller]
pub(crate) fn check_residual(operands: &Operands, residual: &Tensor<2>, x: &Tensor<2>, weight: &Tensor<2>) {
    let expected = [x.dims()[0], weight.dims()[1]];
    operands
        .float("residual", residual)
        .shape("residual", &residual.dims(), &expected, "[n, d_out]");
}

fn plain(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let dtype = x.dtype();
    let shape = [x.dims()[0], weight.dims()[1]];
    if shape.contains(&0) {
        return Tensor::zeros(shape, (&x.device(), dtype));
    }
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
