//! Instruction following: prompts, instructions that a program verifies, and questions to an external judge.

pub mod ask;
pub mod endpoint;
pub mod grading;
pub mod length_control;
pub mod outputs;
pub mod prompts;
pub mod verify;
