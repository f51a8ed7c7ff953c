//! GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415), the exact form `x·Φ(x)`.

use burn::tensor::{Tensor, activation};

use crate::operands::Operands;

/// `x·Φ(x)`, any shape.
///
/// On flex with f32: one pass over `x` on all cores, with an absolute error below 1e-6 (in the backward pass 1e-6 times the
/// incoming gradient). Elsewhere Burn's own implementation.
///
/// # Panics
/// `x` is not a float tensor.
#[track_caller]
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Operands::of("gelu", "x", &x);
    #[cfg(feature = "flex")]
    if crate::flex::supports(&x) {
        return crate::flex::activations::gelu(x);
    }
    activation::gelu(x)
}
