//! The description of a family of encoders.

use super::config::EncoderConfig;
use crate::error::ConfigError;
use crate::lm::fields::Fields;

/// One family of encoders.
#[derive(Debug)]
pub(crate) struct Family {
    /// `model_type` in config.json, and the class that transformers has for sequence classification with it.
    pub model_types: &'static [(&'static str, &'static str)],
    /// Name of the encoder inside a model with a head.
    pub prefix: &'static str,
    /// Reads config.json.
    pub config: fn(&Fields) -> Result<EncoderConfig, ConfigError>,
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
