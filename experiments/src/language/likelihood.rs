//! The option that a model finds most likely, as in evaluation harnesses: no answer has to be generated or extracted.

use backbones::lm::{Cache, Decoder, Layout};
use burn::tensor::{Int, Tensor, TensorData};
use datasets::language::extraction::COMMONSENSE_MARKER;
use kernels::{LmHead, linear_nll};
use serde::{Deserialize, Serialize};

use crate::language::data::{Batch, Sequence};
use crate::language::generation::reading::NO_NUMBERS;
use crate::language::generation::too_long;
use crate::language::head::response_rows;
use crate::language::model::Lm;

/// The likelihoods of the options, and the most likely option.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Sum of the log probabilities of each option's tokens, given the question and the marker phrase.
    pub log_likelihoods: Vec<f64>,
    /// The most likely option.
    pub chosen: String,
    /// Whether it is the correct one.
    pub correct: bool,
}

/// Compares the likelihoods of `options`, of which `gold` is correct, as continuations of `prompt` and the marker
/// phrase.
///
/// # Errors
/// An error of the tokenizer, a question that is too long for the model, logits that are not numbers.
pub fn choose(model: &Decoder, lm: &Lm, options: &[String], gold: &str, prompt: &str) -> Result<Choice, String> {
    let context = format!("{prompt}{COMMONSENSE_MARKER}");
    let given = lm.tokenizer.encode(&context, true)?.len();
    let mut sequences = Vec::with_capacity(options.len());
    for option in options {
        let ids = lm.tokenizer.encode(&format!("{context} {option}"), true)?;
        let learned = (0..ids.len()).map(|at| at >= given).collect();
        sequences.push(Sequence {
            ids,
            learned,
            ..Sequence::default()
        });
    }
    let longest = sequences.iter().map(|sequence| sequence.ids.len()).max().unwrap_or(0);
    if let Some(why) = too_long(model, longest) {
        return Err(format!("a question with its options has {longest} tokens, but {why}"));
    }
    let log_likelihoods = log_likelihoods(model, sequences, given);
    if log_likelihoods.iter().any(|likelihood| likelihood.is_nan()) {
        return Err(NO_NUMBERS.into());
    }
    let best = (0..log_likelihoods.len()).max_by(|a, b| log_likelihoods[*a].total_cmp(&log_likelihoods[*b]));
    let chosen = best.map(|best| options[best].clone()).unwrap_or_default();
    Ok(Choice {
        correct: gold == chosen,
        chosen,
        log_likelihoods,
    })
}

/// The sum of the log-probabilities of the target tokens of each sequence; none of them is among the first `given`
/// tokens. The common prefix of the sequences is processed only once.
fn log_likelihoods(model: &Decoder, mut sequences: Vec<Sequence>, given: usize) -> Vec<f64> {
    let device = model.head_weight().device();
    let mut cache = common(model, &sequences, given);
    let read = cache.as_ref().map_or(0, Cache::tokens);
    for sequence in &mut sequences {
        sequence.ids.drain(..read);
        sequence.learned.drain(..read);
    }
    let mut batch = Batch::new(sequences.iter(), &device);
    batch.layout = batch.layout.with_prompts(&vec![vec![given]; sequences.len()]);
    let hidden = model.hidden(batch.ids.clone(), &batch.layout, cache.as_mut());
    let head = LmHead {
        weight: model.head_weight(),
        softcap: model.config().final_softcap,
        trained: false,
    };
    let nll = linear_nll(response_rows(hidden, &batch), &head, batch.targets);
    let mut nll = nll.into_data().iter::<f64>().collect::<Vec<_>>().into_iter();
    let sums = sequences
        .iter()
        .map(|sequence| -nll.by_ref().take(sequence.count()).sum::<f64>());
    sums.collect()
}

/// The cache of the common prefix of all `sequences`, with one row for each sequence. It leaves out the last of the
/// `given` tokens, which predicts the first token that is not given. `None` if there is no common prefix, or if longer
/// sequences change its rotation (LongRoPE).
fn common(model: &Decoder, sequences: &[Sequence], given: usize) -> Option<Cache> {
    let (first, others) = sequences.split_first()?;
    let mut shared = given.saturating_sub(1).min(first.ids.len());
    for other in others {
        let same = first.ids.iter().zip(&other.ids).take_while(|(a, b)| a == b).count();
        shared = shared.min(same);
    }
    let longest = sequences.iter().map(|sequence| sequence.ids.len()).max()?;
    let ropes = &model.config().ropes;
    if shared == 0
        || ropes
            .iter()
            .any(|rope| rope.frequencies(shared) != rope.frequencies(longest))
    {
        return None;
    }
    let ids: Vec<i64> = first.ids[..shared].iter().map(|id| i64::from(*id)).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, shared]), &model.head_weight().device());
    let mut cache = Cache::new(model.config().layers.len(), longest);
    let layout = Layout::dense(1, shared).with_prompts(&[vec![given]]);
    model.hidden(ids, &layout, Some(&mut cache));
    cache.select(&vec![0; sequences.len()]);
    Some(cache)
}

#[cfg(test)]
mod tests {
    use backbones::lm::DecoderConfig;
    use backbones::lm::config::LayerKind;
    use backbones::lm::rope::RopeConfig;
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn a_prompt_that_is_read_once_gives_the_same_likelihoods() {
        let layers = [None, Some(5)].map(|window| LayerKind { window, rope: Some(0) });
        let config = DecoderConfig::new("llama".into(), 50, 16, 32, layers.to_vec(), 4, 2, 4, 64)
            .with_ropes(vec![RopeConfig::new(1e4, 4)])
            .with_initializer_range(0.5);
        let model = config.init(&Device::flex());
        let prompt: Vec<u32> = (0..12).map(|i| (i * 7 + 3) % 50).collect();
        let with_option = |option: &[u32]| Sequence {
            ids: [&prompt, option].concat(),
            learned: (0..prompt.len() + option.len()).map(|at| at >= prompt.len()).collect(),
            ..Sequence::default()
        };
        let sequences = vec![with_option(&[4, 9, 1]), with_option(&[4]), with_option(&[30, 2])];
        let cached = common(&model, &sequences, prompt.len()).map(|cache| cache.tokens());
        assert_eq!(cached, Some(11));
        let once = log_likelihoods(&model, sequences.clone(), prompt.len());
        // With nothing given, every option is processed as a whole.
        let whole = log_likelihoods(&model, sequences, 0);
        for (once, whole) in once.iter().zip(&whole) {
            assert!((once - whole).abs() < 1e-4 * whole.abs(), "{once} {whole}");
        }
        assert!(whole[0] < whole[1] && whole[0] != whole[2]);
    }
}
