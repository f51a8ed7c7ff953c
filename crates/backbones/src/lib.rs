//! Pretrained models for fine-tuning. One model, one file; module names are the checkpoint's.

pub mod drop_path;
pub mod import;
pub mod vit;

pub use import::{ImportError, load_vit};
pub use vit::{Pool, Vit, VitConfig};
