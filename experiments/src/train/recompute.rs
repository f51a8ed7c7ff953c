//! Activation checkpointing: the forward pass saves only the input of each layer, and the backward pass recomputes one
//! layer at a time (arXiv 1604.06174). This needs memory for the activations of one layer instead of all layers, and
//! 1.5x the time.

use std::ops::Range;

use burn::module::{Module, ModuleDisplay};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Gradients, Tensor};
use wegeft::Adapted;

/// An adapted model as layers of `[batch, tokens, d_model]`. Both functions bind the given model in each call, since a
/// graph can be traversed by only one backward pass, and return the same numbers each time, including dropout.
pub struct Layered<E, L> {
    /// Computes the input of the first layer.
    pub embed: E,
    /// True if something in `embed` may be trained; if not, something in the first layer is trained.
    pub embed_is_trained: bool,
    /// Indices of the layers that are recomputed.
    pub layers: Range<usize>,
    /// Computes the layer with that index.
    pub layer: L,
}

impl<E, L> Layered<E, L> {
    /// The loss that `end` computes from the last layer's output, with its other results, and the gradients.
    pub fn loss_and_grads<M, O>(
        &self,
        adapted: &Adapted<M>,
        end: impl FnOnce(Tensor<3>) -> (Tensor<1>, O),
    ) -> (Tensor<1>, O, GradientsParams)
    where
        M: Module + ModuleDisplay,
        E: Fn(&Adapted<M>) -> Tensor<3>,
        L: Fn(&Adapted<M>, usize, Tensor<3>) -> Tensor<3>,
    {
        // Nothing requires a gradient in the forward pass: a graph would keep every activation until a backward pass.
        let still = adapted.clone().no_grad();
        let mut inputs = vec![(self.embed)(&still).inner()];
        for (before, index) in self.layers.clone().enumerate() {
            let x = Tensor::from_inner(inputs[before].clone());
            inputs.push((self.layer)(&still, index, x).inner());
        }
        let mut sum = GradientsAccumulator::new();
        let mut add = |grads: Gradients| sum.accumulate(adapted, GradientsParams::from_grads(grads, adapted));

        let leaf = |inputs: &mut Vec<Tensor<3>>| {
            let x = Tensor::from_inner(inputs.pop()?);
            // Nothing needs the gradient of the first layer's input, unless something before it is trained.
            Some(if self.embed_is_trained || !inputs.is_empty() {
                x.require_grad()
            } else {
                x
            })
        };
        let x: Tensor<3> = leaf(&mut inputs).expect("the embedding was pushed");
        let (loss, output) = end(x.clone());
        let mut grads = loss.backward();
        let mut grad = x.grad_remove(&mut grads);
        add(grads);
        for index in self.layers.clone().rev() {
            let (Some(x), Some(above)) = (leaf(&mut inputs), grad.take()) else {
                break;
            };
            let mut grads = carried((self.layer)(adapted, index, x.clone()), above).backward();
            grad = x.grad_remove(&mut grads);
            add(grads);
        }
        if let (true, Some(grad)) = (self.embed_is_trained, grad) {
            // A constant that requires a gradient, so that there is a graph even if nothing else requires one.
            let zero = Tensor::<3>::zeros([1, 1, 1], (&grad.device(), grad.dtype()));
            let embedded = (self.embed)(adapted) + Tensor::from_inner(zero).require_grad();
            add(carried(embedded, grad).backward());
        }
        (loss.inner(), output, sum.grads())
    }
}

/// Paths of everything that `adapted` trains or edits: sites, and parameters that are trained in full.
pub fn trained_paths<M: Module + ModuleDisplay>(adapted: &Adapted<M>) -> Vec<String> {
    let saved = adapted.saved_params().into_iter().map(|param| param.path);
    let sites = adapted.bank().groups().iter().flat_map(|group| &group.sites);
    saved.chain(sites.map(|site| site.path.clone())).collect()
}

/// A scalar whose gradient with respect to `y` is `grad`.
fn carried(y: Tensor<3>, grad: Tensor<3>) -> Tensor<1> {
    (y * Tensor::from_inner(grad)).sum()
}
