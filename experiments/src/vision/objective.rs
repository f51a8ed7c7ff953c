//! The training objective of a vision transformer: cross-entropy.

use backbones::Vit;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::GradientsParams;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};
use wegeft::Adapted;

use crate::train::recompute::Layered;
use crate::train::step::{Objective, Part};
use crate::vision::data::{Batch, Input};
use crate::vision::prefix::{Prefix, start_of_training};

/// Cross-entropy over the classes, averaged over the images.
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropy {
    /// Save only the inputs of the blocks for the backward pass and recompute each block.
    pub checkpointing: bool,
}

impl Objective<Vit> for CrossEntropy {
    type Batch = Batch;
    const WEIGHS: bool = false;

    fn terms(&self, batch: &Batch) -> usize {
        batch.labels.dims()[0]
    }

    fn items(&self, batch: &Batch) -> usize {
        batch.labels.dims()[0]
    }

    fn loss_and_grads(
        &self,
        adapted: &Adapted<Vit>,
        batch: Batch,
        denominator: f64,
        _seed: u64,
    ) -> (Part, GradientsParams) {
        if self.checkpointing {
            return checkpointed(adapted, batch, denominator);
        }
        let part = of_batch(&adapted.bind(), batch, denominator);
        let grads = GradientsParams::from_grads(part.loss.backward(), adapted);
        (part, grads)
    }

    fn evaluate(&self, adapted: &Adapted<Vit>, batch: Batch, denominator: f64) -> Part {
        of_batch(&adapted.bind(), batch, denominator)
    }
}

fn of_batch(model: &Vit, batch: Batch, denominator: f64) -> Part {
    let logits = batch.input.logits(model);
    of_logits(logits, batch.labels, batch.shares, denominator)
}

fn of_logits(logits: Tensor<2>, labels: Tensor<1, Int>, shares: Option<Tensor<2>>, denominator: f64) -> Part {
    let mean = match shares {
        // Cross-entropy with class probabilities.
        Some(shares) => (log_softmax(logits.clone(), 1) * shares).sum_dim(1).mean().neg(),
        None => CrossEntropyLossConfig::new()
            .init(&logits.device())
            .forward(logits.clone(), labels.clone()),
    };
    let share = labels.dims()[0] as f64 / denominator;
    let loss = if share == 1.0 { mean } else { mean.mul_scalar(share) };
    Part {
        predictions: Some((logits, labels)),
        ..Part::of_loss(loss)
    }
}

/// With activation checkpointing ([`crate::train::recompute`]). Each block seeds its random numbers (drop-path,
/// dropout) with the batch's seed plus its index, in the first pass and when it is recomputed.
fn checkpointed(adapted: &Adapted<Vit>, batch: Batch, denominator: f64) -> (Part, GradientsParams) {
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
    // There is nothing to recompute: the last block belongs to the computation of the loss.
    if first + 1 >= depth {
        let whole = CrossEntropy { checkpointing: false };
        return whole.loss_and_grads(adapted, batch, denominator, 0);
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
    let (loss, part, grads) = layered.loss_and_grads(adapted, |tokens| {
        seed(depth - 1);
        let model = adapted.bind();
        let logits = model.classify(model.features_of(tokens, patches, depth - 1));
        let part = of_logits(logits, batch.labels.clone(), batch.shares.clone(), denominator);
        (part.loss.clone(), part)
    });
    (Part { loss, ..part }, grads)
}
