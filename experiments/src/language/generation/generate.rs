//! Continues prompts, greedily or by sampling, one token of each at a time. Beam search is in `beam`.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::generator::{Generated, Generator};
use super::reading::{self, Reading};
use super::settings::Generation;
use super::text::{Growing, cut};
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

    fn one_by_one(
        &self,
        prompts: &[Vec<u32>],
        settings: &Generation,
        watch: &mut dyn FnMut(usize, &str),
    ) -> Result<Vec<Vec<u32>>, String> {
        let mut generated = vec![Vec::new(); prompts.len()];
        let mut texts: Vec<Option<Growing>> = prompts
            .iter()
            .map(|_| self.tokenizer.map(|tokenizer| Growing::new(tokenizer, &settings.stop)))
            .collect();
        // One random source per prompt: samples do not depend on the other prompts in the batch.
        let seeds = (0..prompts.len() as u64).map(|index| settings.seed.wrapping_add(index));
        let mut randoms: Vec<StdRng> = seeds.map(StdRng::seed_from_u64).collect();
        let mut active: Vec<usize> = (0..prompts.len()).collect();
        let (mut reading, mut logits) =
            Reading::start(self.model, prompts.to_vec(), settings.max_new_tokens, self.device);
        let vocab = self.model.config().vocab_size;
        // Elsewhere the choice costs a GPU nothing and saves the way of all scores; on a CPU it would read them once more.
        let on_device = settings.takes_the_likeliest() && !computes_at_once(self.device);
        loop {
            let (mut scores, likeliest) = match on_device {
                true => (Vec::new(), reading::likeliest(logits)?),
                false => (reading::values(logits)?, Vec::new()),
            };
            let mut chosen = Vec::with_capacity(active.len());
            let mut going_on = Vec::with_capacity(active.len());
            for (row, prompt) in active.iter().copied().enumerate() {
                let token = match likeliest.get(row) {
                    Some(token) => *token,
                    None => {
                        let scores = &mut scores[row * vocab..(row + 1) * vocab];
                        rules::apply(settings, &reading.texts()[row], scores);
                        sampling::choose(settings, scores, &mut randoms[prompt])
                    }
                };
                generated[prompt].push(token);
                let mut ended = self.eos.contains(&token) || generated[prompt].len() == settings.max_new_tokens;
                if let Some(text) = &mut texts[prompt] {
                    let piece = text.push(token)?;
                    ended |= piece.stopped;
                    watch(prompt, &piece.fresh);
                    if ended {
                        watch(prompt, &text.finish()?);
                    }
                }
                if !ended {
                    going_on.push(row);
                    chosen.push(token);
                }
            }
            if chosen.is_empty() {
                return Ok(generated);
            }
            if going_on.len() < active.len() {
                reading.select(&going_on);
                active = going_on.into_iter().map(|row| active[row]).collect();
            }
            logits = reading.next(&chosen);
        }
    }
}
