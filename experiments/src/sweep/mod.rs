//! Sweeps: which trainings a run folder consists of, and how they are tuned.

pub mod grid;
pub mod jobs;
pub mod trial;

pub use trial::{Stage, Trial};
