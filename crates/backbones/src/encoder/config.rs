//! The shape of a text encoder; `from_hf` reads it from Hugging Face's config.json.

use burn::config::Config;
use burn::tensor::Device;
use serde_json::Value;

use super::head::HeadConfig;
use super::model::Encoder;
use super::modernbert::ModernConfig;
use super::relative::RelativeConfig;
use super::{family, model_types};
use crate::error::ConfigError;
use crate::lm::activation::Activation;
use crate::lm::fields::Fields;

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
    /// Row of the first token's position (RoBERTa counts from behind its padding token).
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
    /// What ModernBERT has by itself.
    pub modern: Option<ModernConfig>,
}

impl EncoderConfig {
    /// Reads Hugging Face's config.json. Fields that change what the model computes are implemented or refused; others
    /// are ignored.
    ///
    /// # Errors
    /// A `model_type` or a field that is not implemented, by name; a field that is missing or malformed; sizes that do
    /// not fit each other.
    pub fn from_hf(json: &Value) -> Result<Self, ConfigError> {
        let fields = Fields::new(json)?;
        let kind = fields.text_or("model_type", "")?;
        let Some(family) = family(kind) else {
            let names: Vec<_> = model_types().collect();
            return Err(ConfigError::field(
                "model_type",
                format!("is '{kind}'; encoders that are implemented are {}", names.join(", ")),
            ));
        };
        refuse(&fields)?;
        let config = (family.config)(&fields)?;
        config.check()?;
        Ok(config)
    }

    /// True if a config.json is an encoder's that is implemented here.
    pub fn is_of_encoder(json: &Value) -> bool {
        let kind = json.get("model_type").and_then(Value::as_str);
        kind.is_some_and(|kind| family(kind).is_some())
    }

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

    /// A randomly initialized encoder: weights normal of σ `initializer_range`, biases zero, norms neutral.
    pub fn init(&self, device: &Device) -> Encoder {
        Encoder::new(self.clone(), device)
    }

    /// Width of the embeddings.
    pub fn embedding_size(&self) -> usize {
        self.embedding_size.unwrap_or(self.d_model)
    }

    /// Tokens of the longest text that the model can read; `None` if positions set no limit.
    pub fn max_tokens(&self) -> Option<usize> {
        self.positions.map(|rows| rows.saturating_sub(self.position_offset))
    }

    fn check(&self) -> Result<(), ConfigError> {
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

/// Fields that would make another model.
fn refuse(fields: &Fields) -> Result<(), ConfigError> {
    for field in ["is_decoder", "add_cross_attention"] {
        if fields.flag_or(field, false)? {
            return Err(ConfigError::field(
                field,
                "is true, which is not implemented; use the model as an encoder".to_string(),
            ));
        }
    }
    let kind = fields.text_or("position_embedding_type", "absolute")?;
    if kind != "absolute" {
        return Err(ConfigError::field(
            "position_embedding_type",
            format!("is '{kind}'; implemented is absolute"),
        ));
    }
    let pruned = fields.get("pruned_heads").filter(|heads| {
        let empty = |count: Option<usize>| count == Some(0);
        !empty(heads.as_object().map(|heads| heads.len())) && !empty(heads.as_array().map(Vec::len))
    });
    if let Some(heads) = pruned {
        return Err(ConfigError::field(
            "pruned_heads",
            format!("is {heads}, which is not implemented"),
        ));
    }
    fields.refuse("quantization_config")
}
