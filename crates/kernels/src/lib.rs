//! Fused operations for Burn's flex backend (the CPU), each with a hand-written backward pass. On every other
//! backend, and for other types than f32, each function is the plain Burn operation that is also its test oracle.
//!
//! The instruction set (AVX-512, AVX2, NEON or none of them) is chosen at run time.

mod cross_entropy;
#[cfg(feature = "flex")]
mod flex;
mod gelu;
#[cfg(feature = "flex")]
mod normal;

pub use cross_entropy::{LmHead, linear_cross_entropy, linear_nll};
pub use gelu::gelu;
