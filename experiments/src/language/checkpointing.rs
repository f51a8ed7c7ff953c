//! A decoder's step with activation checkpointing.

use backbones::lm::Decoder;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use kernels::linear_cross_entropy;
use wegeft::Adapted;

use crate::language::batches::Batch;
use crate::language::objective::{head, response_rows};
use crate::recompute::Layered;

/// Loss of a batch (the sum over its learned tokens, divided by `learned`) and its gradients. Every layer starts its
/// random numbers (dropout) at `seed` plus its number, both times.
pub fn loss_and_grads(
    adapted: &Adapted<Decoder>,
    batch: &Batch,
    learned: usize,
    seed: u64,
) -> (Tensor<1>, GradientsParams) {
    let layout = &batch.layout;
    let device = batch.ids.device();
    let embed = |adapted: &Adapted<Decoder>| adapted.bind().embed(batch.ids.clone(), layout);
    let pass = adapted.bind().pass(layout, layout, embed(adapted).dtype(), &device);
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
        layers: first.unwrap_or(0)..adapted.model().config().layers.len(),
        layer,
    };
    let (loss, (), grads) = layered.loss_and_grads(adapted, |x| {
        let bound = adapted.bind();
        let hidden = response_rows(bound.normed(x), batch);
        let loss = linear_cross_entropy(hidden, &head(adapted, &bound), batch.targets.clone(), learned as f64);
        (loss, ())
    });
    (loss, grads)
}

/// Number of the first layer in which something is trained; `None` if that may also be before the layers, or after them
/// alone.
fn first_trained_layer(adapted: &Adapted<Decoder>) -> Option<usize> {
    let groups = adapted.bank().groups();
    if groups.len() != adapted.bank().factors.len() {
        return None; // factors that act on something other than weights
    }
    let saved = adapted.saved_params().into_iter().map(|param| param.path);
    let sites = groups
        .iter()
        .flat_map(|group| group.sites.iter().map(|site| site.path.clone()));
    let mut first = None;
    for path in saved.chain(sites) {
        let parts: Vec<&str> = path.split('.').collect();
        let number = |at: usize| parts.get(at + 1).and_then(|number| number.parse::<usize>().ok());
        let layer = parts
            .iter()
            .position(|part| matches!(*part, "layers" | "h"))
            .and_then(number)?;
        first = Some(first.map_or(layer, |first: usize| first.min(layer)));
    }
    first
}
