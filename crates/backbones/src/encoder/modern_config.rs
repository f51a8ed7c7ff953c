//! The settings that only ModernBERT has.

use burn::config::Config;

use crate::lm::rope::RopeConfig;

/// Settings that only ModernBERT has.
#[derive(Config, Debug, PartialEq)]
pub struct ModernConfig {
    /// For each layer whether its attention is local.
    pub local: Vec<bool>,
    /// How far a token sees to each side in a local layer.
    pub reach: usize,
    /// Rotary embedding of global layers.
    pub global_rope: RopeConfig,
    /// Rotary embedding of local layers.
    pub local_rope: RopeConfig,
    /// Attention's layers have a bias.
    pub attention_bias: bool,
    /// The MLP's layers have a bias.
    pub mlp_bias: bool,
    /// Norms have a bias.
    pub norm_bias: bool,
    /// In training, dropout probability after the embedding.
    pub embedding_dropout: f64,
    /// In training, dropout probability inside the MLP.
    pub mlp_dropout: f64,
}
