//! Where the layers of all families let methods edit activations: what attention and the MLP add to the residual stream, and
//! the stream after the layer.

use burn::nn::Linear;
use burn::tensor::Tensor;
use wegeft::{Hook, Prompts, linear, linear_add};

/// `x` plus what `projection` makes of `mixed`, as `hook` passes it on: one pass where nothing edits it.
pub(crate) fn joined(projection: &Linear, mixed: Tensor<3>, x: Tensor<3>, hook: &Hook, prompts: &Prompts) -> Tensor<3> {
    match hook.is_bound() {
        true => x + hook.forward_in(linear(projection, mixed), prompts),
        false => linear_add(projection, mixed, x),
    }
}
