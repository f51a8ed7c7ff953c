//! Activation checkpointing: the forward pass keeps the input of each layer only, the backward pass computes one layer
//! at a time again (arXiv 1604.06174). Memory for one layer's activations instead of all, a third more time.

use backbones::lm::Decoder;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Gradients, Tensor};
use kernels::linear_cross_entropy;
use wegeft::{Adapted, Method};

use crate::language::batches::Batch;
use crate::language::tuned::{head, response_rows};

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
    // Bound anew for each layer: what a backward pass has gone through cannot be gone through again.
    let embed = || adapted.bind().embed(batch.ids.clone(), layout);
    let embedded = embed().inner();
    let pass = adapted.bind().pass(layout, layout, embedded.dtype(), &device);
    let layer = |index: usize, x: Tensor<3>| {
        device.seed(seed.wrapping_add(1 + index as u64));
        adapted.bind().layer(index, x, &pass, None)
    };
    let depth = adapted.model().config().layers.len();
    let mut inputs = vec![embedded];
    for index in 0..depth {
        let x = Tensor::from_inner(inputs[index].clone());
        inputs.push(layer(index, x).inner());
    }
    let mut sum = GradientsAccumulator::new();
    let mut add = |grads: Gradients| sum.accumulate(adapted, GradientsParams::from_grads(grads, adapted));

    let leaf = |inputs: &mut Vec<Tensor<3>>| inputs.pop().map(|x| Tensor::from_inner(x).require_grad());
    let x: Tensor<3> = leaf(&mut inputs).expect("a layer's output was pushed");
    let bound = adapted.bind();
    let hidden = response_rows(bound.normed(x.clone()), batch);
    let loss = linear_cross_entropy(hidden, &head(adapted, &bound), batch.targets.clone(), learned as f64);
    let mut grads = loss.backward();
    let mut grad = x.grad_remove(&mut grads);
    add(grads);
    for index in (0..depth).rev() {
        let (Some(x), Some(above)) = (leaf(&mut inputs), grad.take()) else {
            break;
        };
        let mut grads = carried(layer(index, x.clone()), above).backward();
        grad = x.grad_remove(&mut grads);
        add(grads);
    }
    if let (Method::Full, Some(grad)) = (&adapted.config().method, grad) {
        add(carried(embed(), grad).backward());
    }
    (loss.inner(), sum.grads())
}

/// A scalar whose gradient with respect to `y` is `grad`.
fn carried(y: Tensor<3>, grad: Tensor<3>) -> Tensor<1> {
    (y * Tensor::from_inner(grad)).sum()
}
