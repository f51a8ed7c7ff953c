//! Pretrained models for fine-tuning: vision transformers, language models under [`lm`], text encoders under [`encoder`],
//! and classifiers of texts under [`classify`]. Each model is one file; module names are the checkpoint's.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod classify;
pub mod drawn_start;
pub mod drop_path;
pub mod encoder;
mod error;
pub mod hub;
pub mod import;
mod json;
mod layers;
pub mod lm;
pub mod long_text;
mod normalization;
mod own_ranks;
pub mod pos_embed;
pub mod preprocess;
mod tokens;
pub mod vit;
mod watch;
mod wrapped;

pub use error::{ConfigError, ImportError, LabelsError, TokenizerError, UnknownName};
pub use hub::{resolve, resolve_lm};
pub use import::{Pretrained, Translated, load_vit, load_vit_for};
pub use normalization::Normalization;
pub use preprocess::Preprocessing;
pub use vit::{HeadPool, Pool, Vit, VitConfig};

/// The code of the README is compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
