//! Text encoders: BERT (MiniLM too), RoBERTa and XLM-R, DistilBERT, ELECTRA, DeBERTa-v2 and v3, ModernBERT.
//!
//! One family, one file and one line of `FAMILIES`; what they share is a file each. [`Encoder`] is any of them, with
//! Hugging Face's module names (`bert.encoder.layer.0.attention.self.query`); [`crate::classify`] puts a head on it and
//! reads both from a folder.

mod attention;
pub mod bert;
pub mod config;
pub mod deberta;
pub mod distilbert;
mod electra;
mod head;
pub mod hooks;
pub mod layers;
mod model;
pub mod modernbert;
mod relative;
mod roberta;

pub use attention::{Mask, Pass};
pub use config::EncoderConfig;
pub use head::{Head, HeadConfig, Pool, pooled};
pub use hooks::LayerHooks;
pub use model::Encoder;

use burn::tensor::Device;

use crate::error::ConfigError;
use crate::lm::fields::Fields;
use model::Body;

/// One family of encoders.
#[derive(Debug)]
pub(crate) struct Family {
    /// `model_type` in config.json, and the class that transformers has for sequence classification with it.
    pub model_types: &'static [(&'static str, &'static str)],
    /// Name of the encoder inside a model with a head.
    pub prefix: &'static str,
    /// Reads config.json.
    pub config: fn(&Fields) -> Result<EncoderConfig, ConfigError>,
    /// A randomly initialized encoder.
    pub build: fn(&EncoderConfig, &Device) -> Body,
    /// Sizes that config.json and the weights must agree in.
    pub sizes: fn(&EncoderConfig) -> Vec<Size>,
}

/// A tensor whose shape follows from config.json.
pub(crate) struct Size {
    /// Its name, without the family's prefix.
    pub tensor: &'static str,
    /// Field and size of each dimension, as the file has them.
    pub shape: [(&'static str, usize); 2],
}

/// The only list of families.
pub(crate) const FAMILIES: [&Family; 6] = [
    &bert::FAMILY,
    &roberta::FAMILY,
    &distilbert::FAMILY,
    &electra::FAMILY,
    &deberta::FAMILY,
    &modernbert::FAMILY,
];

/// The family of a `model_type`.
pub(crate) fn family(model_type: &str) -> Option<&'static Family> {
    let named = |family: &&Family| family.model_types.iter().any(|(name, _)| *name == model_type);
    FAMILIES.into_iter().find(named)
}

/// Every `model_type`, for messages.
pub(crate) fn model_types() -> impl Iterator<Item = &'static str> {
    FAMILIES
        .into_iter()
        .flat_map(|family| family.model_types)
        .map(|(name, _)| *name)
}
