//! What has been generated of each prompt so far, on the host.

use super::generator::Generator;
use super::settings::Generation;
use super::text::Growing;

/// The tokens of each prompt and, with a tokenizer, their text as it grows.
pub struct Progress<'a> {
    eos: &'a [u32],
    most: usize,
    tokens: Vec<Vec<u32>>,
    texts: Vec<Option<Growing<'a>>>,
}

impl<'a> Progress<'a> {
    /// Nothing yet, of `prompts` prompts.
    pub fn new(generator: &Generator<'a>, prompts: usize, settings: &'a Generation) -> Self {
        let text = |_| {
            generator
                .tokenizer
                .map(|tokenizer| Growing::new(tokenizer, &settings.stop))
        };
        Self {
            eos: generator.eos,
            most: settings.max_new_tokens,
            tokens: vec![Vec::new(); prompts],
            texts: (0..prompts).map(text).collect(),
        }
    }

    /// Adds a token to those of `prompt` and shows `watch` the text that is final now; true if this ended it.
    ///
    /// # Errors
    /// An error of the tokenizer.
    pub fn push(&mut self, prompt: usize, token: u32, watch: &mut dyn FnMut(usize, &str)) -> Result<bool, String> {
        let tokens = &mut self.tokens[prompt];
        tokens.push(token);
        let mut ended = self.eos.contains(&token) || tokens.len() == self.most;
        if let Some(text) = &mut self.texts[prompt] {
            let piece = text.push(token)?;
            ended |= piece.stopped;
            watch(prompt, &piece.fresh);
            if ended {
                watch(prompt, &text.finish()?);
            }
        }
        Ok(ended)
    }

    /// The tokens of each prompt.
    pub fn into_tokens(self) -> Vec<Vec<u32>> {
        self.tokens
    }
}
