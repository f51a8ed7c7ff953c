//! The training objective of a text classifier: cross-entropy for classes, squared error for scores.

use backbones::classify::SequenceClassifier;
use burn::optim::GradientsParams;
use burn::tensor::Device;
use wegeft::Adapted;

use crate::text::checkpointing;
use crate::text::data::Batch;
use crate::text::loss::{inner, of_logits};
use crate::train::step::{Objective, Part};

/// The loss that transformers uses for the model's problem type, averaged over the texts of a step.
#[derive(Debug, Clone, Copy)]
pub struct Classification {
    /// Save only the inputs of the layers for the backward pass and recompute each layer.
    pub checkpointing: bool,
}

impl Objective<SequenceClassifier> for Classification {
    type Batch = Batch;
    const WEIGHS: bool = true;

    fn terms(&self, batch: &Batch) -> usize {
        batch.count
    }

    fn items(&self, batch: &Batch) -> usize {
        batch.tokens
    }

    fn loss_and_grads(
        &self,
        adapted: &Adapted<SequenceClassifier>,
        batch: Batch,
        denominator: f64,
        seed: u64,
    ) -> (Part, GradientsParams) {
        if self.checkpointing
            && let Some(result) = checkpointing::loss_and_grads(adapted, &batch, denominator, seed)
        {
            return result;
        }
        let bound = adapted.bind();
        let part = of_logits(&bound, batch.input.logits(&bound), batch.targets, denominator);
        let grads = GradientsParams::from_grads(part.loss.backward(), adapted);
        (inner(part), grads)
    }

    fn evaluate(&self, adapted: &Adapted<SequenceClassifier>, batch: Batch, denominator: f64) -> Part {
        let bound = adapted.bind();
        let logits = batch.input.logits(&bound);
        of_logits(&bound, logits, batch.targets, denominator)
    }

    fn within<R: Send>(&self, device: &Device, work: impl FnOnce() -> R + Send) -> R {
        kernels::with_pool(device, work)
    }
}
