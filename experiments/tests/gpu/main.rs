//! Trainings and texts on a GPU are those of flex. CI runs them on Mesa's lavapipe with the feature `wgpu`; CubeCL's kernels for
//! `vulkan` crash it (`docs/gpus.md`).
#![cfg(feature = "gpu")]

mod decoding;
#[path = "../halves/mod.rs"]
mod halves;
mod images;
mod methods;
mod missing;
mod program;
mod texts;
#[path = "../trained/mod.rs"]
mod trained;
