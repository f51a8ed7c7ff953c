//! The experiments: one file each.

pub mod arithmetic;
pub mod classify;
pub mod code;
pub mod commonsense;
pub mod experiment;
pub mod fgvc;
pub mod finetune;
pub mod glue;
pub mod gsm8k;
pub mod instruct;
pub mod metamath;
mod peft_result;
pub mod sets;
mod unread;
pub mod vtab;
