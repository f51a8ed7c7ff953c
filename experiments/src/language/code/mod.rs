//! Programs that a language model writes: how they are asked for, cut out of its output, run and counted.

pub mod expression;
pub mod form;
pub mod judge;
pub mod pass_at;
pub mod samples;
pub mod score;
