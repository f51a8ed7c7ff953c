//! The wing of text classifiers: data, objective and evaluation of encoders and decoders with a head for classes or
//! scores. Batches, data types and the trainer are those of the language models.

pub mod adapter;
mod checkpointing;
pub mod data;
pub mod description;
mod features;
pub mod lab;
pub mod loss;
mod memory;
pub mod model;
pub mod objective;
pub mod order;
pub mod prediction;
mod prepared;
mod samples;
pub mod settings;
pub mod task;
