//! Burn's layers through the fused operations of `kernels`; a layer that an adapter is bound to goes through `wegeft`.

use burn::nn::{LayerNorm, Linear};
use burn::tensor::Tensor;
use wegeft::methods::Bound;

/// `layer.forward(x)` over the last dimension, `[.., d_model]` to the same. `epsilon` is the layer's own, which Burn
/// does not show.
pub fn norm<const D: usize>(layer: &LayerNorm, epsilon: f64, x: Tensor<D>) -> Tensor<D> {
    let beta = layer.beta.as_ref().map(|beta| beta.val());
    kernels::layer_norm(x, layer.gamma.val(), beta, epsilon)
}

/// [`wegeft::linear`], `[batch, tokens, d_in]` to `[batch, tokens, d_out]`.
pub fn linear(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    if is_bound(layer) {
        return wegeft::linear(layer, x);
    }
    by_rows(layer, x, kernels::linear)
}

/// `gelu(linear(layer, x))`
pub fn linear_gelu(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    if is_bound(layer) {
        return kernels::gelu(wegeft::linear(layer, x));
    }
    by_rows(layer, x, kernels::linear_gelu)
}

/// `residual + linear(layer, x)`, `residual`: `[batch, tokens, d_out]`
pub fn linear_add(layer: &Linear, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
    if is_bound(layer) {
        return residual + wegeft::linear(layer, x);
    }
    let [batch, tokens, d_out] = residual.dims();
    let residual = residual.reshape([batch * tokens, d_out]);
    by_rows(layer, x, |x, weight, bias| {
        kernels::linear_add(x, weight, bias, residual)
    })
}

fn is_bound(layer: &Linear) -> bool {
    layer.weight.reparameterization::<Bound>().is_some()
}

fn by_rows(
    layer: &Linear,
    x: Tensor<3>,
    product: impl FnOnce(Tensor<2>, Tensor<2>, Option<Tensor<1>>) -> Tensor<2>,
) -> Tensor<3> {
    let [batch, tokens, d_in] = x.dims();
    let bias = layer.bias.as_ref().map(|bias| bias.val());
    let out = product(x.reshape([batch * tokens, d_in]), layer.weight.val(), bias);
    let [_, d_out] = out.dims();
    out.reshape([batch, tokens, d_out])
}
