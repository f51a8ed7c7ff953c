//! Language models: data, objective, generation and evaluation.

pub mod adapted;
pub mod answer;
pub mod buckets;
pub mod checkpointing;
pub mod code;
pub mod corpus;
pub mod data;
pub mod estimate;
pub mod evaluation;
pub mod general;
pub mod generation;
pub mod head;
pub mod instruct;
pub mod judge;
pub mod lab;
pub mod likelihood;
pub mod model;
pub mod objective;
pub mod packing;
pub mod settings;
pub mod tokenized;
pub mod tokens;
pub mod trained_file;
pub mod valid;
