//! The flex backend's side: registration through Burn's backend extension, backward passes, and the loops.

pub mod activations;
mod ahead;
pub mod attention;
pub mod cross_entropy;
pub mod gated;
mod gemm;
mod heads;
pub mod input_form;
mod lanes;
pub mod linear;
mod memory;
pub mod norm;
mod normal;
pub mod patch_embed;
pub mod residual;
pub mod rope;
mod stored;
mod wide;

use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::ops::FloatTensorOps;
use burn::backend::{DispatchDevice, Flex};
use burn::tensor::{Bytes, DType, Device, FloatDType, Shape, Tensor};

/// True if `x` lives on flex as f32.
pub fn takes<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && is_here(x)
}

/// True if `weight` lives on flex in a type that products read: f32, half precision, quantized.
pub fn takes_weight(weight: &Tensor<2>) -> bool {
    let readable = matches!(weight.dtype(), DType::F32 | DType::BF16 | DType::F16 | DType::QFloat(_));
    readable && is_here(weight)
}

/// True if `x` lives on flex in f32 or half precision.
pub fn takes_vector(x: &Tensor<1>) -> bool {
    matches!(x.dtype(), DType::F32 | DType::BF16 | DType::F16) && is_here(x)
}

/// True if `x` lives on flex.
pub fn is_here<const D: usize>(x: &Tensor<D>) -> bool {
    is_flex(&x.device())
}

/// True for flex, with and without autodiff.
pub fn is_flex(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), DispatchDevice::Flex(_))
}

/// The tensor in that type: itself if it has it.
fn in_type(tensor: FlexTensor, dtype: DType) -> FlexTensor {
    match tensor.dtype() == dtype {
        true => tensor,
        false => Flex::float_cast(tensor, FloatDType::from(dtype)),
    }
}

/// The values of a tensor that the caller made contiguous.
fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("the caller made it contiguous f32")
}

/// A contiguous tensor.
fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), DType::F32)
}

/// Sums over the rows of a matrix `[rows, columns]`, such as the gradient of a bias: `[columns]`.
fn column_sums(matrix: FlexTensor) -> FlexTensor {
    let sums = Flex::float_sum_dim(matrix, 0);
    let width = sums.layout().num_elements();
    Flex::float_reshape(sums, Shape::from([width]))
}

/// Rows and their length, of a tensor seen as a matrix of its last dimension.
fn rows(tensor: &FlexTensor) -> [usize; 2] {
    let shape = tensor.layout().shape();
    let width = shape[shape.num_dims() - 1];
    [shape.num_elements() / width.max(1), width]
}
