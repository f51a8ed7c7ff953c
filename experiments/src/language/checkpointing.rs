//! A training step of a decoder with activation checkpointing.

use backbones::lm::Decoder;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use kernels::linear_cross_entropy;
use wegeft::Adapted;

use crate::language::data::Batch;
use crate::language::head::{head, response_rows};
use crate::train::recompute::{Layered, trained_paths};

/// Loss of a batch (the sum over its target tokens, divided by `denominator`) and its gradients. Each layer seeds its
/// random numbers (dropout) with `seed` plus its index, in the first pass and when it is recomputed.
pub fn loss_and_grads(
    adapted: &Adapted<Decoder>,
    batch: &Batch,
    denominator: f64,
    seed: u64,
) -> (Tensor<1>, GradientsParams) {
    let layout = &batch.layout;
    let device = batch.ids.device();
    let pass = adapted.bind().pass(layout, None, &device);
    let embed = |adapted: &Adapted<Decoder>| adapted.bind().embed(batch.ids.clone(), &pass);
    let layer = |adapted: &Adapted<Decoder>, index: usize, x: Tensor<3>| {
        device.seed(seed.wrapping_add(1 + index as u64));
        adapted.bind().layer(index, x, &pass, None)
    };
    let first = first_trained_layer(adapted);
    let layered = Layered {
        embed: |adapted: &Adapted<Decoder>| {
            let frozen = 0..first.unwrap_or(0);
            frozen.fold(embed(adapted), |x, index| layer(adapted, index, x))
        },
        embed_is_trained: first.is_none(),
        layers: first.unwrap_or(0)..adapted.backbone().config().layers.len(),
        layer,
    };
    let (loss, (), grads) = layered.loss_and_grads(adapted, |x| {
        let bound = adapted.bind();
        let hidden = response_rows(bound.normed(x, &pass), batch);
        let loss = linear_cross_entropy(hidden, &head(adapted, &bound), batch.targets.clone(), denominator);
        (loss, ())
    });
    (loss, grads)
}

/// Index of the first layer in which something is trained; `None` if something may be trained before the layers, or
/// only after them.
fn first_trained_layer(adapted: &Adapted<Decoder>) -> Option<usize> {
    let layer = |path: &String| {
        let mut parts = path.split('.').skip_while(|part| !matches!(*part, "layers" | "h"));
        parts.nth(1)?.parse::<usize>().ok()
    };
    let layers: Option<Vec<usize>> = trained_paths(adapted).iter().map(layer).collect();
    layers?.into_iter().min()
}
