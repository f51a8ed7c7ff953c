//! What the learner trains a vision transformer on: cross-entropy.

use backbones::Vit;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use burn::train::ClassificationOutput;

use crate::batches::Batch;

/// The loss of a batch, `[1]`, and what the metrics read.
pub fn cross_entropy(model: &Vit, batch: Batch) -> (Tensor<1>, ClassificationOutput) {
    let logits = batch.input.logits(model);
    let loss = match batch.shares {
        // Cross-entropy with a share of each class.
        Some(shares) => (log_softmax(logits.clone(), 1) * shares).sum_dim(1).mean().neg(),
        None => CrossEntropyLossConfig::new()
            .init(&logits.device())
            .forward(logits.clone(), batch.labels.clone()),
    };
    (loss.clone(), ClassificationOutput::new(loss, logits, batch.labels))
}
