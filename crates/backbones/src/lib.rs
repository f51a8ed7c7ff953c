//! Pretrained models for fine-tuning: vision transformers, and language models under [`lm`]. One model, one file; module
//! names are the checkpoint's.

pub mod drop_path;
pub mod hub;
pub mod import;
mod layers;
pub mod lm;
pub mod pos_embed;
pub mod preprocess;
pub mod vit;

pub use hub::{resolve, resolve_lm};
pub use import::{ImportError, Normalization, Pretrained, Translated, load_vit, load_vit_for};
pub use preprocess::Preprocessing;
pub use vit::{HeadPool, Pool, Vit, VitConfig};
