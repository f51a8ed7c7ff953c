//! Vision transformers: data, objective and evaluation.

pub mod augment;
pub mod confusion;
pub mod data;
pub mod description;
pub mod evaluation;
pub mod lab;
pub mod load;
pub mod objective;
pub mod prefix;
pub mod prepared;
pub mod samples;
pub mod settings;
pub mod steps;
pub mod tasks;
