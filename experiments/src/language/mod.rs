//! Language models: what `finetune`, `commonsense` and `arithmetic` are made of.

pub mod answer;
pub mod arithmetic;
pub mod batches;
pub mod checkpointing;
pub mod chosen;
pub mod commonsense;
pub mod estimate;
pub mod evaluate;
pub mod finetune;
pub mod flags;
pub mod folder;
pub mod held_out;
pub mod likelihood;
pub mod model;
pub mod objective;
pub mod outcome;
pub mod packing;
pub mod report;
pub mod schedule;
pub mod settings;
pub mod suite;
pub mod table;
pub mod throughput;
pub mod tokens;
pub mod training;
