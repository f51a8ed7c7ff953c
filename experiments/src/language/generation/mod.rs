//! Text from a language model: prompts in batches of unequal length, greedy, sampled or by beam search.
//!
//! The rules and their order are those of `generate` in transformers, so that the same settings give the same tokens.

pub mod beam;
mod choice;
mod generate;
pub mod generator;
mod progress;
pub mod reading;
pub mod repeated;
pub mod rules;
pub mod sampling;
pub mod settings;
pub mod text;
mod together;

pub use generator::{Generated, Generator, too_long};
pub use settings::Generation;
