//! The one call that a model changes to work in activation space.

use burn::nn::Linear;
use burn::tensor::Tensor;

use crate::methods::Bound;

/// `layer.forward(x)`, in activation space if the layer's weight is bound to an adapter.
///
/// `x`: `[batch, tokens, d_in]`; result `[batch, tokens, d_out]`. The frozen weight gets no gradient and is
/// never copied. An unbound layer is Burn's own.
pub fn linear(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    let [batch, tokens, d_in] = x.dims();
    let [_, d_out] = layer.weight.lazy_shape().dims();
    // One product over all rows: a batch of small products would sum a gradient per picture.
    let rows = x.reshape([batch * tokens, d_in]);
    let weight = layer.weight.base();
    let out = match layer.weight.reparameterization::<Bound>() {
        Some(bound) => bound.matmul(rows, weight),
        None => rows.matmul(layer.weight.val()),
    };
    let out = match &layer.bias {
        Some(bias) => out + bias.val().unsqueeze::<2>(),
        None => out,
    };
    out.reshape([batch, tokens, d_out])
}
