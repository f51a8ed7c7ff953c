//! The language model of a run.

use std::path::{Path, PathBuf};
use std::time::Instant;

use backbones::lm::{Decoder, LmTokenizer, LoadOptions, PretrainedLm, lm_config, load_lm};
use backbones::resolve_lm;
use burn::tensor::Device;
use datasets::language::Message;
use serde_json::Value;
use wegeft::Adapted;

use crate::adapted_lm;
use crate::generation::chat::{self, ChatError};
use crate::language::settings::Settings;
use crate::memory::peak_note;
use crate::output::tell;

/// Field of adapter_config.json that names the model an adapter was trained on, as PEFT has it.
pub const BASE_MODEL: &str = "base_model_name_or_path";

/// A language model and its tokenizer.
pub struct Lm {
    /// The model.
    pub pretrained: PretrainedLm,
    /// Text to tokens.
    pub tokenizer: LmTokenizer,
    /// Where it was read from.
    pub folder: PathBuf,
}

/// Folder of the small language model that ships with the repository.
pub fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/language-model")
}

/// Loads the model that `settings` name onto `device`.
///
/// # Errors
/// Files that are missing, malformed or do not fit together.
pub fn load(settings: &Settings, device: &Device) -> Result<Lm, String> {
    let folder = match &settings.model {
        Some(name) => resolve_lm(name).map_err(|e| e.to_string())?,
        None => shipped(),
    };
    let options = LoadOptions {
        precision: settings.dtype.parse().map_err(|e| format!("field 'dtype': {e}"))?,
        ..LoadOptions::default()
    };
    let start = Instant::now();
    let vocab_size = lm_config(&folder).map_err(|e| e.to_string())?.vocab_size;
    // Before the weights: reading a vocabulary takes three times the memory that it needs after.
    let tokenizer = LmTokenizer::load(&folder, vocab_size).map_err(|e| e.to_string())?;
    let pretrained = load_lm(&folder, &options, device).map_err(|e| e.to_string())?;
    let name = settings.model.as_deref().unwrap_or("the small model that ships");
    let seconds = start.elapsed().as_secs_f64();
    tell(format_args!("{name}: loaded in {seconds:.1} s{}", peak_note(device)));
    Ok(Lm {
        pretrained,
        tokenizer,
        folder,
    })
}

impl Lm {
    /// The token that ends a response.
    ///
    /// # Errors
    /// A model whose files name none.
    pub fn end_token(&self) -> Result<u32, String> {
        let named = self
            .tokenizer
            .eos_token
            .as_ref()
            .and_then(|token| self.tokenizer.token_id(token));
        named
            .or(self.pretrained.generation.eos.first().copied())
            .ok_or_else(|| {
                format!(
                    "{}: neither tokenizer_config.json's eos_token nor an eos_token_id says what ends a text",
                    self.folder.display()
                )
            })
    }

    /// `messages` in the model's chat template, with the tools that the assistant may call; with `open`, up to where the assistant's turn starts.
    ///
    /// # Errors
    /// A model without a chat template, or one that the messages do not fit.
    pub fn chat_text(&self, messages: &[Message], tools: &[Value], open: bool) -> Result<String, String> {
        chat::prompt(&self.tokenizer, messages, tools, open).map_err(|error| match error {
            ChatError::NoTemplate => {
                format!("{error}; choose another --template and data without messages, or another model")
            }
            ChatError::Failed(_) => error.to_string(),
        })
    }

    /// The model with the adapter of `folder`.
    ///
    /// # Errors
    /// Files that are missing or do not fit the model.
    pub fn with_adapter(&self, folder: &Path) -> Result<Adapted<Decoder>, String> {
        adapted_lm::with_adapter(self.pretrained.model.clone(), folder)
    }
}
