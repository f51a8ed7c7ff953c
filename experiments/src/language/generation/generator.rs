//! A model that continues prompts, and the prompts that it accepts.

use backbones::lm::{Decoder, LmTokenizer};
use burn::tensor::Device;

use super::settings::Generation;

/// A model that continues prompts.
pub struct Generator<'a> {
    /// The model, its adapter bound or merged.
    pub model: &'a Decoder,
    /// Its tokenizer, if texts are wanted.
    pub tokenizer: Option<&'a LmTokenizer>,
    /// Tokens that end a text.
    pub eos: &'a [u32],
    /// Where the model is.
    pub device: &'a Device,
}

/// One continuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// Its tokens, including the one that ended it.
    pub tokens: Vec<u32>,
    /// Its text without special tokens, up to the first stop text; empty without a tokenizer.
    pub text: String,
}

/// Why `model` cannot read that many tokens, as the end of a sentence; `None` if it can.
pub fn too_long(model: &Decoder, tokens: usize) -> Option<String> {
    let most = model.max_tokens().filter(|most| tokens > *most)?;
    let beside = match model.config().max_positions.checked_sub(most) {
        None | Some(0) => String::new(),
        Some(taken) => format!(" beside the {taken} virtual tokens of its adapter"),
    };
    Some(format!("this model has positions for {most} tokens{beside}"))
}

impl Generator<'_> {
    /// Settings in range, prompts that the model can read.
    pub(super) fn check(&self, prompts: &[Vec<u32>], settings: &Generation) -> Result<(), String> {
        settings.check()?;
        if !settings.stop.is_empty() && self.tokenizer.is_none() {
            return Err("stop texts need a tokenizer, which this model's folder lacks".into());
        }
        let config = self.model.config();
        for (index, prompt) in prompts.iter().enumerate() {
            if prompt.is_empty() {
                return Err(format!("prompt {index} has no token; give at least one"));
            }
            if let Some(token) = prompt.iter().find(|token| **token as usize >= config.vocab_size) {
                return Err(format!(
                    "prompt {index} has token {token}, but the model's vocabulary ends at {}",
                    config.vocab_size - 1
                ));
            }
            let length = prompt.len() + settings.max_new_tokens;
            // The last token is not fed to the model.
            if let Some(why) = too_long(self.model, length - 1) {
                return Err(format!(
                    "prompt {index} has {} tokens and max_new_tokens is {}, but {why}",
                    prompt.len(),
                    settings.max_new_tokens
                ));
            }
        }
        Ok(())
    }
}
