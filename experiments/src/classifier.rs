//! What the learner trains a vision transformer on: cross-entropy.

use backbones::Vit;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::Tensor;
use burn::train::ClassificationOutput;

use crate::batches::{Batch, Input};

/// The loss of a batch, `[1]`, and what the metrics read.
pub fn cross_entropy(model: &Vit, batch: Batch) -> (Tensor<1>, ClassificationOutput) {
    let logits = match batch.input {
        Input::Pixels(pixels) => model.forward(pixels),
        Input::Features(features) => model.classify(features),
    };
    let loss = CrossEntropyLossConfig::new()
        .init(&logits.device())
        .forward(logits.clone(), batch.labels.clone());
    (loss.clone(), ClassificationOutput::new(loss, logits, batch.labels))
}
