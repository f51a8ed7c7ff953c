//! Sequence classification and regression with encoders and decoders: transformers' `…ForSequenceClassification`.
//!
//! [`load_classifier`] reads a model by folder or hub name and gives it the head that its family has;
//! [`save_classifier`] writes a folder that transformers loads.

pub mod labels;
mod load;
mod model;
mod names;
mod save;
pub mod texts;

pub use labels::{Labels, Problem, Targets};
pub use load::{
    ClassifierError, ClassifierOptions, PretrainedClassifier, PretrainedEncoder, load_classifier, load_encoder,
};
pub use model::{ClassifierPass, SequenceClassifier};
pub use save::save_classifier;
pub use texts::{Encoded, TextBatch, TextTokenizer};
