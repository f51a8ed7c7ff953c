//! Fused operations for Burn's flex backend (the CPU), each with a hand-written backward pass. On every other
//! backend, and for other types than f32, each function is the plain Burn operation that is also its test oracle.
//!
//! The instruction set (AVX-512, AVX2, NEON or none of them) is chosen at run time.

mod attention;
mod compute;
mod cross_entropy;
#[cfg(feature = "flex")]
mod flex;
mod gated;
mod gelu;
mod input_form;
mod layer_norm;
mod linear;
mod patch_embed;
mod pool;
mod residual;
mod rms_norm;
mod rope;

pub use attention::{AttentionOptions, Visible, attention, attention_qkv};
pub use compute::computes_in;
pub use cross_entropy::{LmHead, linear_cross_entropy, linear_nll};
pub use gated::{Gate, gated};
pub use gelu::gelu;
pub use input_form::{InputEdit, input_form};
pub use layer_norm::layer_norm;
pub use linear::{linear, linear_add, linear_gelu};
pub use patch_embed::patch_embed;
pub use pool::{in_awake_pool, in_pool};
pub use residual::residual_add;
pub use rms_norm::rms_norm;
pub use rope::rope;
