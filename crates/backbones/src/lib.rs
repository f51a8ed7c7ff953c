//! Pretrained models for fine-tuning: vision transformers, language models under [`lm`], text encoders under [`encoder`],
//! and classifiers of texts under [`classify`]. One model, one file; module names are the checkpoint's.

pub mod classify;
pub mod drop_path;
pub mod encoder;
pub mod hub;
pub mod import;
mod layers;
pub mod lm;
pub mod pos_embed;
pub mod vit;

pub use hub::{resolve, resolve_lm};
pub use import::{ImportError, Normalization, Pretrained, load_vit};
pub use vit::{Pool, Vit, VitConfig};
