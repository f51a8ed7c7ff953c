//! Reads the shape of an encoder from Hugging Face's config.json.

use serde_json::Value;

use super::config::EncoderConfig;
use super::families::{family, model_types};
use crate::error::ConfigError;
use crate::lm::fields::Fields;

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
