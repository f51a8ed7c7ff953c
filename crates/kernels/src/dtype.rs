//! The dtype of activations next to half-precision weights.

use burn::tensor::{DType, Tensor};

/// The dtype to compute in with `x`: f32 for half precision on flex, where it is only a storage format for weights (matrix
/// products read it directly); its own dtype otherwise.
pub fn compute_dtype<const D: usize>(x: &Tensor<D>) -> DType {
    #[cfg(feature = "flex")]
    if matches!(x.dtype(), DType::BF16 | DType::F16) && crate::flex::on_flex(x) {
        return DType::F32;
    }
    x.dtype()
}

/// `x` as f32 if it is half precision. Sums and exponentials need it: the square of 300 overflows f16, and bf16 has 8 bits for
/// a sum over a whole row.
pub(crate) fn upcast<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match x.dtype() {
        DType::BF16 | DType::F16 => x.cast(DType::F32),
        _ => x,
    }
}
