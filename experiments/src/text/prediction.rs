//! Predictions for texts.

use backbones::classify::{Problem, SequenceClassifier};
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{DType, Device};
use datasets::glue::{Label, Metric};

use crate::cli::interrupt::Interrupter;
use crate::language::generation::reading::NO_NUMBERS;
use crate::text::data::Texts;
use crate::text::task::Answer;
use crate::train::stream::Ordered;

/// Predictions of `model` (bound, without autodiff) for `texts`, in order; batches are made of texts of similar length.
/// `trained`: whether this run has trained it, for the advice in an error.
///
/// # Errors
/// Logits that are not numbers, an interruption.
pub fn answers(
    model: &SequenceClassifier,
    texts: &Texts,
    trained: bool,
    batch_size: usize,
    interrupter: &Interrupter,
    device: &Device,
) -> Result<Vec<Answer>, String> {
    let (sorted, order) = texts.sorted();
    let mut answers = vec![None; order.len()];
    let mut done = 0;
    for batch in Ordered::new(sorted, batch_size, device).batches() {
        if interrupter.should_stop() {
            return Err("interrupted".into());
        }
        let batch = batch.map_err(|e| e.to_string())?;
        let logits = kernels::with_pool(device, || batch.input.logits(model)).cast(DType::F32);
        if log_softmax(logits.clone(), 1).is_nan().any().into_scalar::<bool>() {
            return Err(match trained {
                true => "the trained model's logits are NaN; lower learning_rate".into(),
                false => NO_NUMBERS.into(),
            });
        }
        let width = logits.dims()[1];
        let rows = match model.labels().problem() {
            Problem::SingleLabel => softmax(logits, 1),
            Problem::Regression | Problem::MultiLabel => logits,
        };
        let rows: Vec<f32> = rows.into_data().iter::<f32>().collect();
        for row in rows.chunks_exact(width) {
            answers[order[done]] = Some(answer(model.labels().problem(), row));
            done += 1;
        }
    }
    Ok(answers.into_iter().flatten().collect())
}

fn answer(problem: Problem, row: &[f32]) -> Answer {
    if problem != Problem::SingleLabel {
        return Answer {
            label: Label::Score(row[0]),
            probabilities: Vec::new(),
        };
    }
    let mut best = 0;
    for (class, probability) in row.iter().enumerate() {
        if *probability > row[best] {
            best = class;
        }
    }
    Answer {
        label: Label::Class(best),
        probabilities: row.to_vec(),
    }
}

/// Metrics and their values.
pub type Scores = Vec<(Metric, f64)>;

/// Each of `metrics` for `answers` against the correct answers `right`, in percent of its maximum; undefined metrics
/// are left out.
pub fn scores(metrics: &[Metric], answers: &[Answer], right: &[Label]) -> Scores {
    let predicted: Vec<f64> = answers.iter().map(|answer| answer.label.number()).collect();
    let right: Vec<f64> = right.iter().map(|label| label.number()).collect();
    let of = |metric: &Metric| Some((*metric, 100.0 * metric.of_numbers(&predicted, &right)?));
    metrics.iter().filter_map(of).collect()
}
