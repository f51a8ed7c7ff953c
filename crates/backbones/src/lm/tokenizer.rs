//! Text to tokens and back: tokenizer.json, with the names and the chat template of tokenizer_config.json.

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use crate::import::{ImportError, read_json};

/// A tokenizer in Hugging Face's format.
#[derive(Debug, Clone)]
pub struct LmTokenizer {
    inner: Tokenizer,
    /// Text of the token that starts a text.
    pub bos_token: Option<String>,
    /// Text of the token that ends a text.
    pub eos_token: Option<String>,
    /// Text of the token of padding.
    pub pad_token: Option<String>,
    /// Jinja template that makes a prompt of chat messages.
    pub chat_template: Option<String>,
}

impl LmTokenizer {
    /// Reads tokenizer.json of `folder`, and tokenizer_config.json and chat_template.jinja if they are there.
    /// `vocab_size`: rows of the model's embedding.
    ///
    /// # Errors
    /// A file that is missing or malformed, or a token beyond the embedding.
    pub fn load(folder: &Path, vocab_size: usize) -> Result<Self, ImportError> {
        let path = folder.join("tokenizer.json");
        let error = |message: String| ImportError::Config {
            path: path.clone(),
            message,
        };
        if !path.is_file() {
            return Err(error(
                "the tokenizer is missing; fetch it with the model, or give tokens instead of text".into(),
            ));
        }
        let mut inner = Tokenizer::from_file(&path).map_err(|e| error(format!("no tokenizer ({e})")))?;
        // Prompts are cut and padded by their user, never silently.
        let _ = inner.with_truncation(None);
        inner.with_padding(None);
        // Looked up one by one: a copy of a large vocabulary would be hundreds of MB.
        let beyond = vocab_size as u32..(vocab_size + inner.get_vocab_size(true)) as u32;
        if let Some((id, token)) = beyond.into_iter().find_map(|id| Some((id, inner.id_to_token(id)?))) {
            return Err(error(format!(
                "token '{token}' has number {id}, but the model's embedding has {vocab_size} rows; use the tokenizer of this model"
            )));
        }
        let config_path = folder.join("tokenizer_config.json");
        let config = if config_path.is_file() {
            read_json(&config_path)?
        } else {
            Value::Null
        };
        let token = |field: &str| {
            let value = config.get(field)?;
            let text = value.get("content").unwrap_or(value);
            text.as_str().map(String::from)
        };
        let template_path = folder.join("chat_template.jinja");
        let chat_template = match std::fs::read_to_string(&template_path) {
            Ok(text) => Some(text),
            Err(_) => template(config.get("chat_template")),
        };
        Ok(Self {
            bos_token: token("bos_token"),
            eos_token: token("eos_token"),
            pad_token: token("pad_token"),
            chat_template,
            inner,
        })
    }

    /// Tokens of a text; with `special`, those that the tokenizer puts around every text (such as BOS) too.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, String> {
        let encoding = self.inner.encode(text, special).map_err(|e| e.to_string())?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of tokens; special ones are left out if `skip_special`.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, String> {
        self.inner.decode(ids, skip_special).map_err(|e| e.to_string())
    }

    /// Number of a token.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
}

/// One template, or the one named `default` of several.
fn template(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Array(named) => named
            .iter()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|entry| entry.get("template")?.as_str())
            .map(String::from),
        _ => None,
    }
}
