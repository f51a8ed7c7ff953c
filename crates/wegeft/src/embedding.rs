//! The one call that a model changes so that an adapted embedding looks up rows instead of forming the edited table.

use burn::nn::Embedding;
use burn::tensor::{Int, Tensor};

use crate::edit::Bound;
use crate::tensor::dequantized;

/// `layer.forward(ids)`; if an adapter is bound to the table, its edit is applied to the looked-up rows only.
///
/// `ids`: `[batch, tokens]`, result `[batch, tokens, d_model]`.
pub fn embedding(layer: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
    let Some(bound) = layer.weight.reparameterization::<Bound>() else {
        return layer.forward(ids);
    };
    let [batch, tokens] = ids.dims();
    bound.check_batch(batch);
    let rows = bound
        .edit()
        .rows(ids.reshape([batch * tokens]), dequantized(layer.weight.base()));
    let [_, d] = rows.dims();
    rows.reshape([batch, tokens, d])
}
