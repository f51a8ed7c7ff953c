//! The type that activations have beside weights of half precision.

use burn::tensor::{DType, Tensor};

/// The type to compute in with `x`: f32 where flex has it in half precision, which is only a way to store weights there
/// (products read such weights as they are); its own elsewhere.
pub fn computes_in<const D: usize>(x: &Tensor<D>) -> DType {
    #[cfg(feature = "flex")]
    if matches!(x.dtype(), DType::BF16 | DType::F16) && crate::flex::is_here(x) {
        return DType::F32;
    }
    x.dtype()
}

/// `x` in f32 if it is of half precision. Sums and exponentials need it: the square of 300 is no f16, and a bf16 has 8 bits
/// for a sum over a whole row.
pub(crate) fn wide<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match x.dtype() {
        DType::BF16 | DType::F16 => x.cast(DType::F32),
        _ => x,
    }
}
