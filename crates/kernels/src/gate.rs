//! The activations of gates.

/// The activation of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// `x·σ(x)`: SwiGLU, as in Llama.
    Silu,
    /// GELU in its tanh approximation: GeGLU, as in Gemma.
    GeluTanh,
}
