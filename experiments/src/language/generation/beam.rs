//! Beam search with the bookkeeping of transformers (`early_stopping=False`): several candidates per beam; finished
//! texts are compared by log-probability divided by length^length_penalty; the search ends once no running beam can
//! beat the finished ones.

use super::generator::Generator;
use super::reading::{Reading, values};
use super::rules;
use super::settings::Generation;
use super::text::cut;

/// The score of a beam that does not exist yet.
const NOTHING: f32 = -1e9;

/// The state of one prompt.
struct Search {
    /// Generated tokens and log-probability of each running beam, best first.
    running: Vec<(Vec<u32>, f32)>,
    /// Finished texts and their scores, best first.
    finished: Vec<(Vec<u32>, f32)>,
}

/// A beam extended by one token.
#[derive(Clone, Copy)]
struct Candidate {
    beam: usize,
    token: u32,
    score: f32,
}

/// The best continuation of each prompt.
pub(super) fn search(
    generator: &Generator,
    prompts: &[Vec<u32>],
    settings: &Generation,
) -> Result<Vec<Vec<u32>>, String> {
    let (beams, vocab) = (settings.num_beams, generator.model.config().vocab_size);
    let (mut reading, logits) = Reading::start(
        generator.model,
        prompts.to_vec(),
        settings.max_new_tokens,
        generator.device,
    );
    let mut logits = values(logits)?;
    let mut searches: Vec<Search> = prompts
        .iter()
        .map(|_| Search {
            running: vec![(Vec::new(), 0.0)],
            finished: Vec::new(),
        })
        .collect();
    let mut active: Vec<usize> = (0..prompts.len()).collect();
    for length in 1..=settings.max_new_tokens {
        let mut rows = logits.chunks_exact_mut(vocab).zip(reading.texts()).enumerate();
        let (mut parents, mut tokens, mut going_on) = (Vec::new(), Vec::new(), Vec::new());
        for prompt in &active {
            let search = &mut searches[*prompt];
            let count = search.running.len();
            let mut scored = Vec::with_capacity(count);
            let mut first_row = 0;
            for (beam, (row, (scores, text))) in rows.by_ref().take(count).enumerate() {
                if beam == 0 {
                    first_row = row;
                }
                log_softmax(scores);
                rules::apply(settings, text, scores);
                let before = search.running[beam].1;
                scores.iter_mut().for_each(|score| *score += before);
                scored.push(&*scores);
            }
            let candidates = best(&scored, generator.eos.len().max(1) * beams + beams);
            let parents_of = search.advance(generator, &candidates, settings, length)?;
            if let Some(chosen) = parents_of {
                parents.extend(chosen.iter().map(|candidate| first_row + candidate.beam));
                tokens.extend(chosen.iter().map(|candidate| candidate.token));
                going_on.push(*prompt);
            }
        }
        if going_on.is_empty() {
            break;
        }
        active = going_on;
        reading.select(&parents);
        logits = values(reading.next(&tokens))?;
    }
    Ok(searches.into_iter().map(Search::result).collect())
}

impl Search {
    /// Processes the candidates, best first, and returns those that continue, or `None` if the search is over.
    /// `length`: number of generated tokens, including the candidates' own.
    fn advance(
        &mut self,
        generator: &Generator,
        candidates: &[Candidate],
        settings: &Generation,
        length: usize,
    ) -> Result<Option<Vec<Candidate>>, String> {
        let beams = settings.num_beams;
        let mut going_on = Vec::with_capacity(beams);
        for (place, candidate) in candidates.iter().enumerate() {
            let with_token = || {
                let mut tokens = self.running[candidate.beam].0.clone();
                tokens.push(candidate.token);
                tokens
            };
            let ends = generator.eos.contains(&candidate.token)
                || length == settings.max_new_tokens
                || reaches_stop(generator, &with_token(), settings)?;
            if !ends {
                if going_on.len() < beams {
                    going_on.push(*candidate);
                }
            } else if place < beams {
                // Candidates beyond the first `beams` may continue but not finish.
                let score = candidate.score / (length as f64).powf(settings.length_penalty) as f32;
                let tokens = with_token();
                let at = self.finished.partition_point(|(_, other)| *other >= score);
                self.finished.insert(at, (tokens, score));
                self.finished.truncate(beams);
            }
        }
        let running = going_on.iter().map(|candidate| {
            let mut tokens = self.running[candidate.beam].0.clone();
            tokens.push(candidate.token);
            (tokens, candidate.score)
        });
        self.running = running.collect();
        let Some((_, best)) = self.running.first() else {
            return Ok(None);
        };
        let reachable = best / (length as f64).powf(settings.length_penalty) as f32;
        let worst = match self.finished.len() < beams {
            true => NOTHING,
            false => self.finished[beams - 1].1,
        };
        Ok((reachable > worst).then_some(going_on))
    }

    fn result(self) -> Vec<u32> {
        let best = self.finished.into_iter().chain(self.running).next();
        best.map(|(tokens, _)| tokens).unwrap_or_default()
    }
}

fn reaches_stop(generator: &Generator, tokens: &[u32], settings: &Generation) -> Result<bool, String> {
    match generator.tokenizer.filter(|_| !settings.stop.is_empty()) {
        Some(tokenizer) => {
            let whole = tokenizer.decode(tokens, true)?;
            Ok(cut(tokenizer, tokens, &settings.stop)?.len() < whole.len())
        }
        None => Ok(false),
    }
}

/// The `count` best of all beams, best first.
fn best(scored: &[&[f32]], count: usize) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> = Vec::with_capacity(count + 1);
    for (beam, scores) in scored.iter().enumerate() {
        for (token, score) in scores.iter().enumerate() {
            let full = kept.len() == count;
            if full && *score <= kept[count - 1].score {
                continue;
            }
            let at = kept.partition_point(|other| other.score >= *score);
            let candidate = Candidate {
                beam,
                token: token as u32,
                score: *score,
            };
            kept.insert(at, candidate);
            kept.truncate(count);
        }
    }
    kept
}

fn log_softmax(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = scores.iter().map(|score| (score - largest).exp()).sum();
    let shift = largest + total.ln();
    scores.iter_mut().for_each(|score| *score -= shift);
}
