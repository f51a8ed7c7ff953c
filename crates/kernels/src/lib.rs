//! Fused operations for Burn's CPU backend (flex), each with a hand-written backward pass. On every other backend, and for
//! dtypes other than f32, each function is the plain Burn implementation, which is also its test oracle.
//!
//! The instruction set (AVX-512, AVX2, NEON or scalar code) is chosen at run time.
//!
//! # Features
//!
//! `flex` (off by default, since a library leaves the backend to its user): the fused operations for Burn's flex backend.
//! Enabling `burn/flex` alone does not enable them: the first operation on a flex tensor then warns on stderr.
//!
//! # Panics
//!
//! Every function checks its operands first (dtype, device, shape) and panics with a message that names the function and
//! the operand, as Burn's own tensor operations do.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod attention;
mod attention_options;
mod cross_entropy;
mod dtype;
#[cfg(feature = "flex")]
mod flex;
mod gate;
mod gated;
mod gelu;
mod input_form;
mod layer_norm;
mod linear;
mod operands;
mod patch_embed;
mod pool;
mod residual;
mod rms_norm;
mod rope;
#[cfg(not(feature = "flex"))]
mod unfused;
mod unsaved_attention;

pub use attention::{attention, attention_qkv};
pub use attention_options::{AttentionOptions, SharedMask, Visible};
pub use cross_entropy::{IGNORE_INDEX, LmHead, linear_cross_entropy, linear_nll};
pub use dtype::compute_dtype;
pub use gate::Gate;
pub use gated::gated;
pub use gelu::gelu;
pub use input_form::{InputEdit, input_form};
pub use layer_norm::layer_norm;
pub use linear::{linear, linear_add, linear_gelu};
pub use patch_embed::patch_embed;
pub use pool::{with_pool, with_spinning_pool};
pub use residual::residual_add;
pub use rms_norm::rms_norm;
pub use rope::{RopeTable, rope};

/// The code of the README is compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
