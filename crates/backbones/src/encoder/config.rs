//! The shape of a text encoder.

use burn::config::Config;

use super::head_config::HeadConfig;
use super::modern_config::ModernConfig;
use super::relative::RelativeConfig;
use crate::error::ConfigError;
use crate::lm::activation::Activation;

/// Shape of a text encoder.
#[derive(Config, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Kind of model, by Hugging Face's name.
    pub model_type: String,
    /// Rows of the word embedding.
    pub vocab_size: usize,
    /// Width of a token.
    pub d_model: usize,
    /// Hidden size of the MLP.
    pub mlp_dim: usize,
    /// Number of layers.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// The head that classifies texts.
    pub head: HeadConfig,
    /// Width of the embeddings where it is not the model's (ELECTRA).
    pub embedding_size: Option<usize>,
    /// Rows of the learned position embedding, if there is one.
    pub positions: Option<usize>,
    /// Row of the first token's position (RoBERTa: the padding token's id plus 1).
    #[config(default = 0)]
    pub position_offset: usize,
    /// Rows of the embedding of token types; 0 for none.
    #[config(default = 0)]
    pub token_types: usize,
    /// Epsilon of the norms.
    #[config(default = 1e-12)]
    pub norm_eps: f64,
    /// Activation of the MLP.
    #[config(default = "Activation::Gelu")]
    pub activation: Activation,
    /// In training, dropout probability of hidden states.
    #[config(default = 0.0)]
    pub hidden_dropout: f64,
    /// In training, share of attention probabilities that are dropped.
    #[config(default = 0.0)]
    pub attention_dropout: f64,
    /// σ of random weights.
    #[config(default = 0.02)]
    pub initializer_range: f64,
    /// Relative positions (DeBERTa).
    pub relative: Option<RelativeConfig>,
    /// Settings that only ModernBERT has.
    pub modern: Option<ModernConfig>,
}

impl EncoderConfig {
    /// The same model without dropout.
    pub fn without_dropout(mut self) -> Self {
        (self.hidden_dropout, self.attention_dropout) = (0.0, 0.0);
        (self.head.input_dropout, self.head.dropout) = (0.0, 0.0);
        if let Some(modern) = &mut self.modern {
            (modern.embedding_dropout, modern.mlp_dropout) = (0.0, 0.0);
        }
        self
    }

    /// True if the model drops something in training, its head left out.
    pub fn drops(&self) -> bool {
        let modern = self.modern.as_ref();
        let modern = modern.map_or(0.0, |modern| modern.embedding_dropout + modern.mlp_dropout);
        self.hidden_dropout + self.attention_dropout + modern > 0.0
    }

    /// Width of the embeddings.
    pub fn embedding_size(&self) -> usize {
        self.embedding_size.unwrap_or(self.d_model)
    }

    /// Tokens of the longest text that the model can read; `None` if positions set no limit.
    pub fn max_tokens(&self) -> Option<usize> {
        self.positions.map(|rows| rows.saturating_sub(self.position_offset))
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.d_model),
            ("intermediate_size", self.mlp_dim),
            ("num_hidden_layers", self.depth),
            ("num_attention_heads", self.heads),
            ("embedding_size", self.embedding_size()),
        ];
        if let Some((field, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(ConfigError::field(*field, "is 0; it must be at least 1"));
        }
        if !self.d_model.is_multiple_of(self.heads) {
            return Err(ConfigError::field(
                "num_attention_heads",
                format!("is {}, which does not divide hidden_size {}", self.heads, self.d_model),
            ));
        }
        if self.max_tokens() == Some(0) {
            return Err(match self.position_offset.checked_sub(1) {
                Some(pad) => ConfigError::field(
                    "max_position_embeddings",
                    format!("leaves no position behind pad_token_id {pad}"),
                ),
                None => ConfigError::field("max_position_embeddings", "is 0; it must be at least 1"),
            });
        }
        let shares = [
            ("hidden dropout", self.hidden_dropout),
            ("attention dropout", self.attention_dropout),
            ("classifier dropout", self.head.dropout),
            ("pooler dropout", self.head.input_dropout),
        ];
        match shares.iter().find(|(_, share)| !(0.0..1.0).contains(share)) {
            Some((field, share)) => Err(ConfigError::invalid(format!(
                "the {field} is {share}; expected at least 0 and less than 1"
            ))),
            None => Ok(()),
        }
    }
}
