//! generation_config.json: which tokens start and end a text, and how the model's authors draw from it.

use std::path::Path;

use serde_json::Value;

use crate::import::{ImportError, read_json};

/// Special tokens and sampling settings of a model. What generation_config.json leaves out of the tokens is
/// config.json's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GenerationConfig {
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    /// Token that starts a text.
    pub bos: Option<u32>,
    /// Token of padding.
    pub pad: Option<u32>,
    /// Logits are divided by this before a token is drawn.
    pub temperature: Option<f64>,
    /// Draw among so many likeliest tokens; 0 for all.
    pub top_k: Option<usize>,
    /// Draw among the likeliest tokens that together have this probability.
    pub top_p: Option<f64>,
    /// Positive logits of tokens that the text has are divided by this, negative ones multiplied.
    pub repetition_penalty: Option<f64>,
}

impl GenerationConfig {
    /// Reads the file of `folder`, if there is one; `config` is its config.json.
    ///
    /// # Errors
    /// A file that cannot be read or is malformed, a sampling setting that is no number.
    pub fn load(folder: &Path, config: &Value) -> Result<Self, ImportError> {
        let path = folder.join("generation_config.json");
        let own = match path.is_file() {
            true => read_json(&path)?,
            false => Value::Null,
        };
        let present = |field: &str| own.get(field).filter(|value| !value.is_null());
        let ids = |field: &str| token_ids(present(field).or(config.get(field)));
        let wrong = |field: &str, value: &Value| ImportError::Config {
            path: path.clone(),
            message: format!("field '{field}' is {value}; expected a number"),
        };
        let number = |field: &str| -> Result<Option<f64>, ImportError> {
            let value = present(field).map(|value| value.as_f64().ok_or_else(|| wrong(field, value)));
            value.transpose()
        };
        let top_k = present("top_k").map(|value| value.as_u64().ok_or_else(|| wrong("top_k", value)));
        Ok(Self {
            eos: ids("eos_token_id"),
            bos: ids("bos_token_id").first().copied(),
            pad: ids("pad_token_id").first().copied(),
            temperature: number("temperature")?,
            top_k: top_k.transpose()?.map(|k| k as usize),
            top_p: number("top_p")?,
            repetition_penalty: number("repetition_penalty")?,
        })
    }
}

fn token_ids(value: Option<&Value>) -> Vec<u32> {
    let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(ids)) => ids.iter().filter_map(one).collect(),
        Some(id) => one(id).into_iter().collect(),
        None => Vec::new(),
    }
}
