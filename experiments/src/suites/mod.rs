//! The experiments: one file each.

pub mod arithmetic;
pub mod code;
pub mod commonsense;
pub mod experiment;
pub mod fgvc;
pub mod finetune;
pub mod gsm8k;
pub mod instruct;
pub mod sets;
pub mod vtab;
