//! Continues prompts, greedily or by sampling, one token of each at a time. Beam search is in `beam`.

use super::choice;
use super::generator::{Generated, Generator};
use super::progress::Progress;
use super::reading::{Reading, values};
use super::repeated::Repeated;
use super::settings::Generation;
use super::text::cut;
use super::together::STEPS;
use super::{beam, rules, sampling};
use crate::cli::device::computes_at_once;

impl Generator<'_> {
    /// Continues all prompts in one batch; a finished prompt leaves the batch. `watch` receives the index of the prompt
    /// and the text that each token adds, as soon as that text is final (not with several beams).
    ///
    /// # Errors
    /// Settings out of range, a prompt that is empty, too long for the model or outside its vocabulary, stop texts
    /// without a tokenizer, a model whose logits are not numbers.
    pub fn generate(
        &self,
        prompts: &[Vec<u32>],
        settings: &Generation,
        watch: &mut dyn FnMut(usize, &str),
    ) -> Result<Vec<Generated>, String> {
        self.check(prompts, settings)?;
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        let tokens = if settings.num_beams > 1 {
            beam::search(self, prompts, settings)?
        } else if choice::is_on_device(settings) && !computes_at_once(self.device) {
            self.several_at_once(prompts, settings, STEPS, Some(Repeated::start), watch)?
        } else {
            self.one_by_one(prompts, settings, watch)?
        };
        let generated = tokens.into_iter().map(|tokens| {
            let text = match self.tokenizer {
                Some(tokenizer) => cut(tokenizer, &tokens, &settings.stop)?,
                None => String::new(),
            };
            Ok(Generated { tokens, text })
        });
        generated.collect()
    }

    /// Reads the logits of every step and chooses on the host: all rules are there, and a CPU's logits are, too.
    ///
    /// # Errors
    /// Logits that are not numbers; an error of the tokenizer.
    pub(super) fn one_by_one(
        &self,
        prompts: &[Vec<u32>],
        settings: &Generation,
        watch: &mut dyn FnMut(usize, &str),
    ) -> Result<Vec<Vec<u32>>, String> {
        let mut progress = Progress::new(self, prompts.len(), settings);
        let mut randoms = sampling::randoms(prompts.len(), settings);
        let mut active: Vec<usize> = (0..prompts.len()).collect();
        let (mut reading, mut logits) =
            Reading::start(self.model, prompts.to_vec(), settings.max_new_tokens, self.device);
        let vocab = self.model.config().vocab_size;
        loop {
            let mut scores = values(logits)?;
            let mut chosen = Vec::with_capacity(active.len());
            let mut going_on = Vec::with_capacity(active.len());
            for (row, prompt) in active.iter().copied().enumerate() {
                let scores = &mut scores[row * vocab..(row + 1) * vocab];
                rules::apply(settings, &reading.texts()[row], scores);
                let token = sampling::choose(settings, scores, &mut randoms[prompt]);
                if !progress.push(prompt, token, watch)? {
                    going_on.push(row);
                    chosen.push(token);
                }
            }
            if chosen.is_empty() {
                return Ok(progress.into_tokens());
            }
            if going_on.len() < active.len() {
                reading.select(&going_on);
                active = going_on.into_iter().map(|row| active[row]).collect();
            }
            logits = reading.next(&chosen);
        }
    }
}
