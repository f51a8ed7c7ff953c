//! The flex backend's implementations: registration through Burn's backend extension, backward passes, and the loops.

pub mod activations;
pub mod attention;
pub mod cross_entropy;
pub mod gated;
mod gemm;
mod heads;
pub mod input_form;
mod lanes;
pub mod linear;
mod math;
mod memory;
pub mod norm;
pub mod patch_embed;
mod prefetch;
pub mod residual;
pub mod rope;
mod simd;
mod weight;

use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::ops::FloatTensorOps;
use burn::backend::{DispatchDevice, Flex};
use burn::tensor::{Bytes, DType, Device, FloatDType, Shape, Tensor};

/// Whether `x` is a non-empty f32 tensor on flex. Empty tensors are left to Burn's own operations.
pub fn supports<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && on_flex(x) && x.shape().num_elements() > 0
}

/// Whether `weight` is a non-empty tensor on flex of a dtype that products read: f32, half precision, quantized.
pub fn supports_weight(weight: &Tensor<2>) -> bool {
    let readable = matches!(weight.dtype(), DType::F32 | DType::BF16 | DType::F16 | DType::QFloat(_));
    readable && on_flex(weight) && weight.shape().num_elements() > 0
}

/// Whether `x` is on flex.
pub fn on_flex<const D: usize>(x: &Tensor<D>) -> bool {
    is_flex(&x.device())
}

/// Whether `device` is flex, with or without autodiff.
pub fn is_flex(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), DispatchDevice::Flex(_))
}

/// `tensor` as `dtype`; no copy if it already is.
fn cast_to(tensor: FlexTensor, dtype: DType) -> FlexTensor {
    match tensor.dtype() == dtype {
        true => tensor,
        false => Flex::float_cast(tensor, FloatDType::from(dtype)),
    }
}

/// The elements of a tensor that the caller made contiguous.
fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("the caller made it contiguous f32")
}

/// A contiguous tensor.
///
/// # Panics
/// `shape` does not have as many elements as `values`: flex trusts it, and reads by it.
fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    let mut sizes = shape.iter();
    let elements = sizes.try_fold(1usize, |product, size| product.checked_mul(*size));
    assert!(
        elements == Some(values.len()),
        "{} elements for a tensor of {shape:?}",
        values.len()
    );
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), DType::F32)
}

/// Sums over the rows of a matrix `[rows, columns]`, such as the gradient of a bias: `[columns]`.
fn column_sums(matrix: FlexTensor) -> FlexTensor {
    let sums = Flex::float_sum_dim(matrix, 0);
    let width = sums.layout().num_elements();
    Flex::float_reshape(sums, Shape::from([width]))
}

/// Number and length of the rows of a tensor, viewed as a matrix of its last dimension.
fn rows(tensor: &FlexTensor) -> [usize; 2] {
    let shape = tensor.layout().shape();
    let width = shape[shape.num_dims() - 1];
    [shape.num_elements() / width.max(1), width]
}
