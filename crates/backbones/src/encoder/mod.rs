//! Text encoders: BERT (MiniLM too), RoBERTa and XLM-R, DistilBERT, ELECTRA, DeBERTa-v2 and v3, ModernBERT.
//!
//! Each family is one file and one line of `FAMILIES`; what families share has files of its own. [`Encoder`] is any of them, with
//! Hugging Face's module names (`bert.encoder.layer.0.attention.self.query`); [`crate::classify`] puts a head on it and
//! reads both from a folder.

mod attention;
pub mod bert;
pub mod config;
pub mod deberta;
pub mod distilbert;
mod electra;
mod families;
mod family;
mod from_hf;
mod head;
mod head_config;
pub mod hooks;
pub mod layers;
mod model;
pub mod modern_config;
pub mod modernbert;
mod parts;
mod relative;
mod roberta;

pub use attention::{Mask, Pass};
pub use config::EncoderConfig;
pub(crate) use families::{family, model_types};
pub use head::{Head, pooled};
pub use head_config::{HeadConfig, Pool};
pub use hooks::LayerHooks;
pub use model::Encoder;
