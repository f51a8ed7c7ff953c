//! The loss of a batch of texts, and what its metrics need.

use backbones::classify::{SequenceClassifier, Targets};
use burn::tensor::Tensor;

use crate::train::step::Part;

/// Loss of a batch divided by `denominator`, with the predictions for the metrics.
pub fn of_logits(model: &SequenceClassifier, logits: Tensor<2>, targets: Targets, denominator: f64) -> Part {
    let [count, _] = logits.dims();
    // In f32, whatever the dtype of the weights: a mean in half precision is too inexact.
    let logits = logits.cast(burn::tensor::DType::F32);
    let mean = model.labels().loss(logits.clone(), targets.clone());
    let share = count as f64 / denominator;
    let part = Part::of_loss(if share == 1.0 { mean } else { mean.mul_scalar(share) });
    match targets {
        Targets::Classes(classes) => Part {
            predictions: Some((logits, classes)),
            ..part
        },
        Targets::Values(values) => Part {
            numbers: Some((logits.reshape([count]), values.reshape([count]))),
            ..part
        },
    }
}

/// Drops the autodiff graph, which is no longer needed.
pub fn inner(part: Part) -> Part {
    Part {
        loss: part.loss.inner(),
        predictions: part
            .predictions
            .map(|(logits, labels)| (logits.inner(), labels.inner())),
        numbers: part
            .numbers
            .map(|(predicted, right)| (predicted.inner(), right.inner())),
    }
}
