//! Small tensor operations that methods share: casts, dropout, products with a frozen weight.

use burn::nn::DropoutConfig;
use burn::tensor::{DType, Tensor};

/// `x` in `dtype`; free if it already is. A quantized weight is returned unchanged, since products accept it.
pub fn cast<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    if x.dtype() == dtype || is_quantized(x.dtype()) {
        return x;
    }
    x.cast(dtype)
}

/// `x` in the type of the products between it and factors, to which these are cast, so that their gradients arrive in f32: its
/// own, or f32 where half precision is only a storage format.
pub(crate) fn for_products<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let dtype = kernels::compute_dtype(&x);
    cast(x, dtype)
}

/// `x` with dropout of probability `p`, in training.
pub fn dropped<const D: usize>(x: Tensor<D>, p: f64) -> Tensor<D> {
    match p > 0.0 {
        true => DropoutConfig::new(p).init().forward(x),
        false => x,
    }
}

/// `factor`, `[r, d]`, in training with dropout on its d inputs: one mask for all rows of a forward pass.
pub(crate) fn dropped_inputs(factor: Tensor<2>, p: f64) -> Tensor<2> {
    if p == 0.0 {
        return factor;
    }
    let [_, d] = factor.dims();
    let mask = Tensor::ones([1, d], (&factor.device(), factor.dtype()));
    factor * dropped(mask, p)
}

/// `x` as a float tensor.
pub(crate) fn dequantized<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match is_quantized(x.dtype()) {
        true => x.dequantize(),
        false => x,
    }
}

/// True for Burn's quantized types.
pub(crate) fn is_quantized(dtype: DType) -> bool {
    matches!(dtype, DType::QFloat(_))
}

/// `x·weight`, `[n, d_in]` times `[d_in, d_out]`. The weight may be quantized or of a narrower dtype than `x`.
pub fn product(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    kernels::linear(x, weight, None)
}

/// `residual + x W + b`; `residual` and `bias` are optional. `x`: `[n, d_in]`, `weight`: `[d_in, d_out]`, `bias`: `[d_out]`,
/// `residual` and result: `[n, d_out]`.
pub(crate) fn affine(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<2>>,
) -> Tensor<2> {
    match residual {
        Some(residual) => kernels::linear_add(x, weight, bias, residual),
        None => kernels::linear(x, weight, bias),
    }
}

/// `residual + out + bias`; `residual` and `bias` are optional. `out` and `residual`: `[n, d_out]`, `bias`: `[d_out]`.
pub(crate) fn with_rest(out: Tensor<2>, bias: Option<Tensor<1>>, residual: Option<Tensor<2>>) -> Tensor<2> {
    let out = match bias {
        Some(bias) => {
            let dtype = out.dtype();
            out + cast(bias, dtype).unsqueeze::<2>()
        }
        None => out,
    };
    match residual {
        Some(residual) => residual + out,
        None => out,
    }
}
