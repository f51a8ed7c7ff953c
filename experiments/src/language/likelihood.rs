//! The option that a model finds most likely, as in evaluation harnesses: no answer has to be generated or extracted.

use backbones::lm::{Cache, Decoder, Layout, Side};
use burn::tensor::{Int, Tensor, TensorData};
use datasets::language::extraction::COMMONSENSE_MARKER;
use kernels::{LmHead, linear_nll};
use serde::{Deserialize, Serialize};

use crate::language::buckets::{size_on, wants_buckets};
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

/// A question with options.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// All that stands before the marker phrase.
    pub prompt: &'a str,
    /// The options.
    pub options: &'a [String],
    /// The correct one.
    pub gold: &'a str,
}

/// The sequences that end with the options of one question.
struct Continued {
    sequences: Vec<Sequence>,
    /// Tokens of the question and the marker phrase.
    given: usize,
}

/// Compares the likelihoods of the options of each question, as continuations of its prompt and the marker phrase.
///
/// # Errors
/// An error of the tokenizer, a question that is too long for the model, logits that are not numbers.
pub fn choose(model: &Decoder, lm: &Lm, questions: &[Question]) -> Result<Vec<Choice>, String> {
    let continued = questions.iter().map(|question| continued(model, lm, question));
    let continued = continued.collect::<Result<Vec<_>, String>>()?;
    // A GPU is faster with all of them in one batch; a CPU need not pad the shorter ones.
    let at_once = match wants_buckets(&model.head_weight().device()) {
        true => continued.len(),
        false => 1,
    };
    let batches = continued.chunks(at_once.max(1));
    let likelihoods = batches.flat_map(|batch| log_likelihoods(model, batch));
    let pairs = questions.iter().zip(likelihoods);
    pairs
        .map(|(question, likelihoods)| choice(question, likelihoods))
        .collect()
}

fn continued(model: &Decoder, lm: &Lm, question: &Question) -> Result<Continued, String> {
    let context = format!("{}{COMMONSENSE_MARKER}", question.prompt);
    let given = lm.tokenizer.encode(&context, true)?.len();
    let mut sequences = Vec::with_capacity(question.options.len());
    for option in question.options {
        let ids = lm.tokenizer.encode(&format!("{context} {option}"), true)?;
        let learned = (0..ids.len()).map(|at| at >= given).collect();
        sequences.push(Sequence {
            ids,
            learned,
            ..Sequence::default()
        });
    }
    let longest = longest(&sequences);
    match too_long(model, longest) {
        Some(why) => Err(format!("a question with its options has {longest} tokens, but {why}")),
        None => Ok(Continued { sequences, given }),
    }
}

fn choice(question: &Question, log_likelihoods: Vec<f64>) -> Result<Choice, String> {
    if log_likelihoods.iter().any(|likelihood| likelihood.is_nan()) {
        return Err(NO_NUMBERS.into());
    }
    let best = (0..log_likelihoods.len()).max_by(|a, b| log_likelihoods[*a].total_cmp(&log_likelihoods[*b]));
    let chosen = best.map(|best| question.options[best].clone()).unwrap_or_default();
    Ok(Choice {
        correct: question.gold == chosen,
        chosen,
        log_likelihoods,
    })
}

fn longest(sequences: &[Sequence]) -> usize {
    sequences.iter().map(|sequence| sequence.ids.len()).max().unwrap_or(0)
}

/// For each question, the sums of the log-probabilities of the target tokens of its sequences; none of them is among the
/// given tokens. What the sequences of a question begin with is processed only once.
fn log_likelihoods(model: &Decoder, questions: &[Continued]) -> Vec<Vec<f64>> {
    let device = model.head_weight().device();
    let begun = Begun::new(model, questions);
    let rows = questions.iter().enumerate();
    let rows = rows.flat_map(|(at, question)| question.sequences.iter().map(move |sequence| (at, sequence)));
    let sequences: Vec<Sequence> = rows
        .clone()
        .map(|(at, sequence)| {
            let read = begun.as_ref().map_or(0, |begun| begun.lengths[at]);
            let mut sequence = sequence.clone();
            sequence.ids.drain(..read);
            sequence.learned.drain(..read);
            sequence
        })
        .collect();
    let given: Vec<Vec<usize>> = rows.map(|(at, _)| vec![questions[at].given]).collect();
    let mut batch = Batch::new(sequences.iter(), &device);
    batch.layout = batch.layout.with_prompts(&given);
    let mut cache = begun.map(|begun| begun.cache);
    let hidden = model.hidden(batch.ids.clone(), &batch.layout, cache.as_mut());
    let head = LmHead {
        weight: model.head_weight(),
        softcap: model.config().final_softcap,
        trained: false,
    };
    let nll = linear_nll(response_rows(hidden, &batch), &head, batch.targets);
    let mut nll = nll.into_data().iter::<f64>().collect::<Vec<_>>().into_iter();
    let mut sums = sequences
        .iter()
        .map(|sequence| -nll.by_ref().take(sequence.count()).sum::<f64>());
    let of_question = |question: &Continued| sums.by_ref().take(question.sequences.len()).collect::<Vec<f64>>();
    questions.iter().map(of_question).collect()
}

/// What the sequences of each question begin with, read once.
struct Begun {
    /// Tokens that were read of each question.
    lengths: Vec<usize>,
    /// One row for each sequence of each question.
    cache: Cache,
}

impl Begun {
    /// It leaves out the last of the given tokens, which predicts the first token that is not given. `None` if a question has
    /// no common beginning, or if longer sequences change its rotation (LongRoPE).
    fn new(model: &Decoder, questions: &[Continued]) -> Option<Self> {
        let lengths = questions.iter().map(|question| shared(model, question));
        let lengths: Vec<usize> = lengths.collect::<Option<_>>()?;
        let device = model.head_weight().device();
        let width = size_on(&device, *lengths.iter().max()?);
        let mut ids = Vec::with_capacity(questions.len() * width);
        for (question, length) in questions.iter().zip(&lengths) {
            ids.extend(std::iter::repeat_n(0, width - length));
            ids.extend(question.sequences[0].ids[..*length].iter().map(|id| i64::from(*id)));
        }
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [questions.len(), width]), &device);
        let left = questions.iter().zip(&lengths);
        let left = left.map(|(question, length)| longest(&question.sequences) - length);
        let mut cache = Cache::new(model.config().layers.len(), width + size_on(&device, left.max()?));
        let given: Vec<Vec<usize>> = questions.iter().map(|question| vec![question.given]).collect();
        let layout = Layout::padded(&lengths, width, Side::Left).with_prompts(&given);
        model.hidden(ids, &layout, Some(&mut cache));
        let rows = questions.iter().enumerate();
        let rows = rows.flat_map(|(at, question)| std::iter::repeat_n(at, question.sequences.len()));
        cache.select(&rows.collect::<Vec<_>>());
        Some(Self { lengths, cache })
    }
}

/// Tokens that all sequences of a question begin with.
fn shared(model: &Decoder, question: &Continued) -> Option<usize> {
    let (first, others) = question.sequences.split_first()?;
    let mut shared = question.given.saturating_sub(1).min(first.ids.len());
    for other in others {
        let same = first.ids.iter().zip(&other.ids).take_while(|(a, b)| a == b).count();
        shared = shared.min(same);
    }
    let longest = longest(&question.sequences);
    let mut ropes = model.config().ropes.iter();
    let fits = shared > 0 && ropes.all(|rope| rope.frequencies(shared) == rope.frequencies(longest));
    fits.then_some(shared)
}

#[cfg(test)]
mod tests {
    use backbones::lm::DecoderConfig;
    use backbones::lm::config::LayerKind;
    use backbones::lm::rope::RopeConfig;
    use burn::tensor::Device;

    use super::*;

    fn model() -> Decoder {
        let layers = [None, Some(5)].map(|window| LayerKind { window, rope: Some(0) });
        let config = DecoderConfig::new("llama".into(), 50, 16, 32, layers.to_vec(), 4, 2, 4, 64)
            .with_ropes(vec![RopeConfig::new(1e4, 4)])
            .with_initializer_range(0.5);
        config.init(&Device::flex())
    }

    /// A question of `length` tokens with these options.
    fn question(length: u32, options: &[&[u32]]) -> Continued {
        let prompt: Vec<u32> = (0..length).map(|i| (i * 7 + 3) % 50).collect();
        let with_option = |option: &&[u32]| Sequence {
            ids: [&prompt, *option].concat(),
            learned: (0..prompt.len() + option.len()).map(|at| at >= prompt.len()).collect(),
            ..Sequence::default()
        };
        Continued {
            sequences: options.iter().map(with_option).collect(),
            given: prompt.len(),
        }
    }

    fn assert_close(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-4 * expected.abs(), "{got} {expected}");
        }
    }

    #[test]
    fn a_prompt_that_is_read_once_gives_the_same_likelihoods() {
        let model = model();
        let question = question(12, &[&[4, 9, 1], &[4], &[30, 2]]);
        let begun = Begun::new(&model, std::slice::from_ref(&question)).unwrap();
        assert_eq!((begun.lengths, begun.cache.tokens()), (vec![11], 11));
        let once = log_likelihoods(&model, std::slice::from_ref(&question)).remove(0);
        // With nothing given, every option is processed as a whole.
        let whole = Continued { given: 0, ..question };
        let whole = log_likelihoods(&model, &[whole]).remove(0);
        assert_close(&once, &whole);
        assert!(whole[0] < whole[1] && whole[0] != whole[2]);
    }

    #[test]
    fn questions_in_one_batch_have_the_likelihoods_that_they_have_alone() {
        let model = model();
        let questions = [
            question(12, &[&[4, 9, 1], &[4], &[30, 2]]),
            question(5, &[&[7], &[8, 8]]),
            question(9, &[&[1, 2, 3, 4, 5], &[6]]),
        ];
        let alone = questions.each_ref().map(|question| {
            let alone = log_likelihoods(&model, std::slice::from_ref(question));
            assert_eq!(alone.len(), 1);
            alone.concat()
        });
        let together = log_likelihoods(&model, &questions);
        assert_eq!(together.len(), 3);
        for (together, alone) in together.iter().zip(&alone) {
            assert_close(together, alone);
        }
        // Where one of them begins with nothing, none is read before.
        let mut questions = questions;
        questions[1].given = 0;
        for (together, alone) in log_likelihoods(&model, &questions).iter().zip(&alone) {
            assert_close(together, alone);
        }
    }
}
