//! What a family of decoders is: the models that share one kind of layer and its names on disk.

use super::config::DecoderConfig;
use super::fields::Fields;
use crate::error::ConfigError;

/// One family; each has a file of its own here and a line in [`super::families::FAMILIES`].
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Its name in [`DecoderConfig::family`].
    pub name: &'static str,
    /// The `model_type`s of config.json that it reads.
    pub model_types: &'static [&'static str],
    /// What the names of all parameters below the head begin with in a checkpoint.
    pub base: &'static str,
    /// Linear weights but the head's are stored as `[d_in, d_out]` in a checkpoint.
    pub conv1d: bool,
    /// Reads config.json of a `model_type`, its first argument.
    pub(crate) config: fn(&str, &Fields) -> Result<DecoderConfig, ConfigError>,
}
