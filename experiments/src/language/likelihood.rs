//! The option that a model finds most likely, as evaluation harnesses choose it: no answer is generated, none has to
//! be extracted.

use backbones::lm::Decoder;
use burn::tensor::Device;
use datasets::language::extraction::COMMONSENSE_MARKER;
use datasets::language::{Gold, Question};
use kernels::{LmHead, linear_nll};
use serde::{Deserialize, Serialize};

use crate::language::batches::{Batch, Sequence};
use crate::language::model::Lm;
use crate::language::objective::response_rows;

/// The options' likelihoods and the greatest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Sum of the log probabilities of each option's tokens, given the question and the marker phrase.
    pub log_likelihoods: Vec<f64>,
    /// The option of the greatest.
    pub chosen: String,
    /// Whether it is the right one.
    pub correct: bool,
}

/// Compares the options of `question` as ends of `prompt` and the marker phrase.
///
/// # Errors
/// What the tokenizer says.
pub fn choose(model: &Decoder, lm: &Lm, question: &Question, prompt: &str) -> Result<Choice, String> {
    let context = format!("{prompt}{COMMONSENSE_MARKER}");
    let given = lm.tokenizer.encode(&context, true)?.len();
    let mut sequences = Vec::with_capacity(question.options.len());
    for option in &question.options {
        let ids = lm.tokenizer.encode(&format!("{context} {option}"), true)?;
        let learned = (0..ids.len()).map(|at| at >= given).collect();
        sequences.push(Sequence {
            ids,
            learned,
            ..Sequence::default()
        });
    }
    let device: Device = lm.pretrained.model.head_weight().device().inner();
    let batch = Batch::new(sequences.iter(), &device);
    let hidden = model.hidden(batch.ids.clone(), &batch.layout, None);
    let head = LmHead {
        weight: model.head_weight(),
        soft_cap: model.config().final_softcap,
        trained: false,
    };
    let nll = linear_nll(response_rows(hidden, &batch), &head, batch.targets);
    let mut nll = nll.into_data().iter::<f64>().collect::<Vec<_>>().into_iter();
    let log_likelihoods: Vec<f64> = sequences
        .iter()
        .map(|sequence| -nll.by_ref().take(sequence.count()).sum::<f64>())
        .collect();
    let best = (0..log_likelihoods.len()).max_by(|a, b| log_likelihoods[*a].total_cmp(&log_likelihoods[*b]));
    let chosen = best.map(|best| question.options[best].clone()).unwrap_or_default();
    Ok(Choice {
        correct: question.gold == Gold::Label(chosen.clone()),
        chosen,
        log_likelihoods,
    })
}
