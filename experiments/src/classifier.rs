//! What the learner trains a vision transformer on: cross-entropy.

use backbones::Vit;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};
use burn::train::{ClassificationOutput, TrainOutput};
use wegeft::Adapted;

use crate::batches::{Batch, Input};
use crate::prefix::{Prefix, start_of_training};
use crate::recompute::Layered;

/// The loss of a batch, `[1]`, and what the metrics read.
pub fn cross_entropy(model: &Vit, batch: Batch) -> (Tensor<1>, ClassificationOutput) {
    let logits = batch.input.logits(model);
    of_logits(logits, batch.labels, batch.shares)
}

fn of_logits(
    logits: Tensor<2>,
    labels: Tensor<1, Int>,
    shares: Option<Tensor<2>>,
) -> (Tensor<1>, ClassificationOutput) {
    let loss = match shares {
        // Cross-entropy with a share of each class.
        Some(shares) => (log_softmax(logits.clone(), 1) * shares).sum_dim(1).mean().neg(),
        None => CrossEntropyLossConfig::new()
            .init(&logits.device())
            .forward(logits.clone(), labels.clone()),
    };
    (loss.clone(), ClassificationOutput::new(loss, logits, labels))
}

/// Gradients of [`cross_entropy`].
pub fn step(adapted: &Adapted<Vit>, batch: Batch) -> TrainOutput<ClassificationOutput> {
    let (loss, output) = cross_entropy(&adapted.bind(), batch);
    TrainOutput::new(adapted, loss.backward(), output)
}

/// [`step`] with activation checkpointing ([`crate::recompute`]). Every block starts its random
/// numbers (drop-path, dropout) at the batch's seed plus its number, both times.
pub fn checkpointed_step(adapted: &Adapted<Vit>, batch: Batch) -> TrainOutput<ClassificationOutput> {
    let depth = adapted.backbone().blocks.len();
    let device = batch.labels.device();
    let start = start_of_training(adapted);
    let frozen = match start {
        Some(Prefix::Blocks(blocks)) => blocks,
        Some(Prefix::Whole) => depth,
        None => 0,
    };
    let (first, patches) = match &batch.input {
        Input::Pixels(pixels) => {
            let [_, _, height, width] = pixels.dims();
            (frozen, adapted.backbone().patches(height, width))
        }
        Input::Tokens(tokens, blocks) => (*blocks, tokens.dims()[1] - adapted.backbone().prefix_tokens()),
        Input::Features(_) => (depth, 0),
    };
    // Nothing to compute again: the last block is part of what the loss is made of.
    if first + 1 >= depth {
        return step(adapted, batch);
    }
    let seed = |block: usize| device.seed(batch.seed.wrapping_add(1 + block as u64));
    let layered = Layered {
        embed: |adapted: &Adapted<Vit>| {
            device.seed(batch.seed);
            match &batch.input {
                Input::Tokens(tokens, _) => tokens.clone(),
                Input::Pixels(pixels) => adapted.bind().tokens(pixels.clone(), first),
                Input::Features(_) => unreachable!("features have been through every block"),
            }
        },
        embed_is_trained: start.is_none(),
        layers: first..depth - 1,
        layer: |adapted: &Adapted<Vit>, index: usize, tokens: Tensor<3>| {
            seed(index);
            adapted.bind().block(index, tokens)
        },
    };
    let (_, item, grads) = layered.loss_and_grads(adapted, |tokens| {
        seed(depth - 1);
        let model = adapted.bind();
        let logits = model.classify(model.features_of(tokens, patches, depth - 1));
        of_logits(logits, batch.labels.clone(), batch.shares.clone())
    });
    TrainOutput { grads, item }
}
