//! Gated activations of transformer MLPs (Shazeer 2020, arXiv 2002.05202).

use burn::tensor::{Tensor, activation};

/// The activation of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// `x·σ(x)`: SwiGLU, as in Llama.
    Silu,
    /// GELU in its tanh approximation: GeGLU, as in Gemma.
    GeluTanh,
}

/// `act(gate)·up`, any shape, the same for both.
///
/// The backward pass keeps the two inputs and no more.
pub fn gated<const D: usize>(gate: Tensor<D>, up: Tensor<D>, act: Gate) -> Tensor<D> {
    assert_eq!(gate.dims(), up.dims(), "gate and up differ in shape");
    #[cfg(feature = "flex")]
    if crate::flex::takes(&gate) && crate::flex::takes(&up) {
        return crate::flex::gated::gated(gate, up, act);
    }
    let gate = match act {
        Gate::Silu => activation::silu(gate),
        Gate::GeluTanh => activation::gelu_approximate(gate),
    };
    gate * up
}
