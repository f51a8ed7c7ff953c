//! Gated activations of transformer MLPs (Shazeer 2020, arXiv 2002.05202).

use burn::tensor::{Tensor, activation};

use crate::gate::Gate;
use crate::operands::Operands;

/// `act(gate)·up`. Any shape, the same for both.
///
/// Only the two inputs are saved for backward.
///
/// # Panics
/// `gate` and `up` differ in shape, dtype or device.
#[track_caller]
pub fn gated<const D: usize>(gate: Tensor<D>, up: Tensor<D>, act: Gate) -> Tensor<D> {
    Operands::of("gated", "gate", &gate)
        .same("up", &up)
        .shape("up", &up.dims(), &gate.dims(), "the shape of `gate`");
    #[cfg(feature = "flex")]
    if crate::flex::supports(&gate) && crate::flex::supports(&up) {
        return crate::flex::gated::gated(gate, up, act);
    }
    let gate = match act {
        Gate::Silu => activation::silu(gate),
        Gate::GeluTanh => activation::gelu_approximate(gate),
    };
    gate * up
}
