//! Changes to the scores of the next token that depend on the text before it.

use std::collections::BTreeSet;

use super::settings::Generation;

/// Applies the repetition penalty (arXiv 1909.05858, section 4.1), then bans tokens that would repeat an n-gram.
/// `text`: the prompt and the generated tokens; `scores`: logits or log-probabilities of the vocabulary.
pub fn apply(settings: &Generation, text: &[u32], scores: &mut [f32]) {
    if settings.repetition_penalty != 1.0 {
        let penalty = settings.repetition_penalty as f32;
        for token in text.iter().collect::<BTreeSet<_>>() {
            let score = &mut scores[*token as usize];
            *score = if *score < 0.0 {
                *score * penalty
            } else {
                *score / penalty
            };
        }
    }
    let size = settings.no_repeat_ngram_size;
    if size > 0 && text.len() + 1 > size {
        let begun = &text[text.len() + 1 - size..];
        for ngram in text.windows(size).filter(|ngram| ngram[..size - 1] == *begun) {
            scores[ngram[size - 1] as usize] = f32::NEG_INFINITY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_counts_less_and_no_pair_comes_twice() {
        let settings = Generation {
            repetition_penalty: 2.0,
            no_repeat_ngram_size: 2,
            ..Generation::default()
        };
        let mut scores = [4.0, 4.0, -4.0, -4.0];
        apply(&settings, &[0, 2, 1, 0], &mut scores);
        assert_eq!(scores, [2.0, 2.0, f32::NEG_INFINITY, -4.0]);
        let single = Generation {
            no_repeat_ngram_size: 1,
            ..Generation::default()
        };
        let mut scores = [1.0, 1.0];
        apply(&single, &[1], &mut scores);
        assert_eq!(scores, [1.0, f32::NEG_INFINITY]);
    }
}
