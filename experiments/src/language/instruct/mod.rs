//! Instruction following: how questions are asked, what a program verifies, and what a judge elsewhere is asked.

pub mod ask;
pub mod endpoint;
pub mod grading;
pub mod length_control;
pub mod outputs;
pub mod prompts;
pub mod verify;
