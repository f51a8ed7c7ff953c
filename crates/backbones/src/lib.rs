//! Pretrained models for fine-tuning. One model, one file; module names are the checkpoint's.

pub mod drop_path;
pub mod hub;
pub mod import;
mod layers;
pub mod pos_embed;
pub mod vit;

pub use hub::resolve;
pub use import::{ImportError, Normalization, Pretrained, load_vit};
pub use vit::{Pool, Vit, VitConfig};
