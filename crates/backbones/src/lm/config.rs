//! The shape of a decoder.

use burn::config::Config;
use serde::{Deserialize, Serialize};

use super::activation::Activation;
use super::fields::Fields;
use super::rope::RopeConfig;
use crate::error::ConfigError;

/// How layers differ from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerKind {
    /// A token sees itself and the `window - 1` tokens before it; all of them if absent.
    pub window: Option<usize>,
    /// Index into [`DecoderConfig::ropes`]; no rotation if absent.
    pub rope: Option<usize>,
}

impl LayerKind {
    /// `depth` layers of one kind.
    ///
    /// # Errors
    /// More layers than any model has.
    pub(crate) fn repeated(kind: Self, depth: usize) -> Result<Vec<Self>, ConfigError> {
        Self::check_depth(depth)?;
        Ok(vec![kind; depth])
    }

    /// # Errors
    /// More layers than any model has; a config with more is refused.
    pub(crate) fn check_depth(depth: usize) -> Result<(), ConfigError> {
        const MOST: usize = 10_000;
        match depth > MOST {
            true => Err(ConfigError::field(
                "num_hidden_layers",
                format!("is {depth}; expected at most {MOST}"),
            )),
            false => Ok(()),
        }
    }
}

/// Shape of a decoder.
#[derive(Config, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Kind of layer: the name of one of [`super::FAMILIES`].
    pub family: String,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of a token.
    pub d_model: usize,
    /// Hidden size of the MLP.
    pub mlp_dim: usize,
    /// Layers, first to last.
    pub layers: Vec<LayerKind>,
    /// Attention heads.
    pub heads: usize,
    /// Heads of keys and values, a divisor of `heads` (grouped-query attention, arXiv 2305.13245).
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Positions that the model was trained for.
    pub max_positions: usize,
    /// Rotary embeddings that the layers choose from.
    #[config(default = "Vec::new()")]
    pub ropes: Vec<RopeConfig>,
    /// Epsilon of the norms.
    #[config(default = 1e-6)]
    pub norm_eps: f64,
    /// The head is the transposed embedding.
    #[config(default = false)]
    pub tied: bool,
    /// Activation of the MLP.
    #[config(default = "Activation::Silu")]
    pub activation: Activation,
    /// q_proj, k_proj and v_proj have a bias.
    #[config(default = false)]
    pub qkv_bias: bool,
    /// o_proj has a bias.
    #[config(default = false)]
    pub o_bias: bool,
    /// The MLP's layers have a bias.
    #[config(default = false)]
    pub mlp_bias: bool,
    /// Queries and keys are normalised head by head.
    #[config(default = false)]
    pub qk_norm: bool,
    /// Attention scores are divided by the square root of this (Gemma's `query_pre_attn_scalar`); `head_dim` if absent.
    pub query_scalar: Option<f64>,
    /// Attention scores s become c·tanh(s/c).
    pub attention_softcap: Option<f64>,
    /// Logits l become c·tanh(l/c).
    pub final_softcap: Option<f64>,
    /// The embeddings are multiplied by this.
    #[config(default = 1.0)]
    pub embed_scale: f64,
    /// Attention scores are also divided by the number of their layer, from 1 on.
    #[config(default = false)]
    pub scale_by_layer: bool,
    /// Positions are learned, and `max_positions` is a hard limit.
    #[config(default = false)]
    pub learned_positions: bool,
    /// σ of random weights.
    #[config(default = 0.02)]
    pub initializer_range: f64,
}

impl DecoderConfig {
    /// What attention scores are multiplied by.
    pub fn attention_scale(&self) -> f64 {
        self.query_scalar.unwrap_or(self.head_dim as f64).powf(-0.5)
    }

    /// # Errors
    /// A size of zero, or sizes that do not go together.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.d_model),
            ("intermediate_size", self.mlp_dim),
            ("num_hidden_layers", self.layers.len()),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
        ];
        if let Some((field, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(ConfigError::field(*field, "is 0; it must be at least 1"));
        }
        if self.layers.iter().any(|layer| layer.window == Some(0)) {
            return Err(ConfigError::field(
                "sliding_window",
                "is 0; it must be at least 1, or null for none",
            ));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(ConfigError::field(
                "num_key_value_heads",
                format!(
                    "is {}, which does not divide num_attention_heads {}",
                    self.kv_heads, self.heads
                ),
            ));
        }
        Ok(())
    }
}

/// For each layer, whether it has a window, if `layer_types` lists them.
pub(crate) fn sliding_layers(fields: &Fields, depth: usize) -> Result<Option<Vec<bool>>, ConfigError> {
    let Some(types) = fields.maybe_texts("layer_types")? else {
        return Ok(None);
    };
    if types.len() != depth {
        return Err(ConfigError::field(
            "layer_types",
            format!(
                "has {} entries; expected one for each of the {depth} layers of 'num_hidden_layers'",
                types.len()
            ),
        ));
    }
    let is_sliding = |name: &&str| match *name {
        "sliding_attention" => Ok(true),
        "full_attention" => Ok(false),
        other => Err(ConfigError::field(
            "layer_types",
            format!("names '{other}'; implemented are full_attention and sliding_attention"),
        )),
    };
    types.iter().map(is_sliding).collect::<Result<_, _>>().map(Some)
}
