//! Programs written by a language model: prompts, extraction from the output, execution and counting.

pub mod expression;
pub mod form;
pub mod judge;
pub mod pass_at;
pub mod samples;
pub mod score;
