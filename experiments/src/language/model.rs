//! The language model of a run.

use std::path::{Path, PathBuf};
use std::time::Instant;

use backbones::lm::chat_template::{Chat, ChatError};
use backbones::lm::{Decoder, LmTokenizer, LoadOptions, PretrainedLm, load_lm};
use backbones::resolve_lm;
use burn::tensor::Device;
use wegeft::Adapted;

use crate::cli::output::tell;
use crate::cli::{model_folder, shipped};
use crate::language::adapted;
use crate::language::settings::Model;
use crate::run::memory::peak_note;

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

/// The folder of the model that `settings` name.
///
/// # Errors
/// A model that cannot be fetched, an adapter alone.
pub fn folder(settings: &Model) -> Result<PathBuf, String> {
    match &settings.model {
        Some(name) => {
            let folder = resolve_lm(name).map_err(|e| e.to_string())?;
            model_folder::refuse_adapter(&folder)?;
            Ok(folder)
        }
        None => shipped::language_model(),
    }
}

/// Loads the model that `settings` name onto `device`.
///
/// # Errors
/// Files that are missing, malformed or do not fit together.
pub fn load(settings: &Model, device: &Device) -> Result<Lm, String> {
    let folder = folder(settings)?;
    model_folder::note_adapter(&folder, settings.adapter.as_deref());
    let options = LoadOptions {
        precision: settings.dtype.into(),
        ..LoadOptions::default()
    };
    let name = settings.model.as_deref().unwrap_or("the small model that ships");
    model_folder::loading(name, &folder).into_iter().for_each(tell);
    let start = Instant::now();
    // Before the weights: reading a vocabulary temporarily takes three times the memory that it needs afterwards.
    let tokenizer = LmTokenizer::load(&folder).map_err(|e| e.to_string())?;
    let pretrained = load_lm(&folder, &options, device).map_err(|e| e.to_string())?;
    for note in &pretrained.notes {
        tell(note);
    }
    if let Err(note) = pretrained.generation.check(false) {
        tell(note);
    }
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
            .eos_token()
            .and_then(|token| self.tokenizer.token_id(token));
        named
            .or(self.pretrained.generation.eos.first().copied())
            .ok_or_else(|| {
                format!(
                    "{}: there is no end-of-text token; set eos_token in tokenizer_config.json or eos_token_id in config.json",
                    self.folder.display()
                )
            })
    }

    /// The model's chat templates, ready for many conversations.
    ///
    /// # Errors
    /// A model without a chat template, or one that is malformed.
    pub fn chat(&self) -> Result<Chat, String> {
        Chat::new(&self.tokenizer).map_err(|error| match error {
            ChatError::NoTemplate => {
                format!("{error}; choose another --template and data without messages, or another model")
            }
            other => other.to_string(),
        })
    }

    /// The model with the adapter of `folder`.
    ///
    /// # Errors
    /// Files that are missing or do not fit the model.
    pub fn with_adapter(&self, folder: &Path) -> Result<Adapted<Decoder>, String> {
        adapted::with_adapter(self.pretrained.model.clone(), folder)
    }
}
