//! A training step of a text classifier with activation checkpointing.

use backbones::classify::SequenceClassifier;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use wegeft::Adapted;

use crate::text::data::{Batch, Input};
use crate::text::loss::{inner, of_logits};
use crate::train::recompute::{Layered, trained_paths};
use crate::train::step::Part;

/// Loss of a batch divided by `denominator`, and its gradients. Each layer seeds its random numbers (dropout) with
/// `seed` plus its index, in the first pass and when it is recomputed. `None` for features, where there is nothing to
/// recompute.
pub fn loss_and_grads(
    adapted: &Adapted<SequenceClassifier>,
    batch: &Batch,
    denominator: f64,
    seed: u64,
) -> Option<(Part, GradientsParams)> {
    let Input::Tokens(texts) = &batch.input else {
        return None;
    };
    let device = texts.ids.device();
    let depth = adapted.backbone().depth();
    let pass = adapted.bind().pass(&texts.layout, &device);
    let embed = |adapted: &Adapted<SequenceClassifier>| {
        device.seed(seed);
        let types = Some(texts.types.clone());
        adapted.bind().embed(texts.ids.clone(), &texts.layout, types, &pass)
    };
    let layer = |adapted: &Adapted<SequenceClassifier>, index: usize, x: Tensor<3>| {
        device.seed(seed.wrapping_add(1 + index as u64));
        adapted.bind().layer(index, x, &pass)
    };
    let first = first_trained_layer(adapted, depth);
    let layered = Layered {
        embed: |adapted: &Adapted<SequenceClassifier>| {
            let frozen = 0..first.unwrap_or(0);
            frozen.fold(embed(adapted), |x, index| layer(adapted, index, x))
        },
        embed_is_trained: first.is_none(),
        layers: first.unwrap_or(0)..depth,
        layer,
    };
    let (loss, part, grads) = layered.loss_and_grads(adapted, |x| {
        device.seed(seed.wrapping_add(1 + depth as u64));
        let bound = adapted.bind();
        let logits = bound.logits_of(bound.normed(x, &pass), &texts.layout);
        let part = of_logits(&bound, logits, batch.targets.clone(), denominator);
        (part.loss.clone(), part)
    });
    Some((Part { loss, ..inner(part) }, grads))
}

/// Index of the first layer in which something is trained; `None` if something may be trained before the layers.
/// Parameters after them, such as the head, need none of them to be recomputed.
fn first_trained_layer(adapted: &Adapted<SequenceClassifier>, depth: usize) -> Option<usize> {
    let mut first = depth;
    for path in trained_paths(adapted) {
        let mut parts = path
            .split('.')
            .skip_while(|part| !matches!(*part, "layer" | "layers" | "h"));
        match parts.nth(1).and_then(|number| number.parse::<usize>().ok()) {
            Some(layer) => first = first.min(layer),
            None if path.contains("embed") || path.contains("wte") || path.contains("wpe") => return None,
            None => {}
        }
    }
    Some(first)
}
