//! Burn's layers computed with the fused operations of `kernels`, for layers that `wegeft` does not cover.

use burn::nn::{LayerNorm, Linear};
use burn::tensor::Tensor;
use wegeft::Bound;

/// `layer.forward(x)` over the last dimension, `[.., d_model]` to the same, computed in f32 whatever the type of `x`. `epsilon`
/// is the layer's own, which Burn keeps private.
pub fn norm<const D: usize>(layer: &LayerNorm, epsilon: f64, x: Tensor<D>) -> Tensor<D> {
    let beta = layer.beta.as_ref().map(|beta| beta.val());
    kernels::layer_norm(x, layer.gamma.val(), beta, epsilon)
}

/// `gelu(linear(layer, x))`, `[batch, tokens, d_in]` to `[batch, tokens, d_out]`.
pub fn linear_gelu(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    if layer.weight.reparameterization::<Bound>().is_some() {
        return kernels::gelu(wegeft::linear(layer, x));
    }
    let [batch, tokens, d_in] = x.dims();
    let bias = layer.bias.as_ref().map(|bias| bias.val());
    let out = kernels::linear_gelu(x.reshape([batch * tokens, d_in]), layer.weight.val(), bias);
    let [_, d_out] = out.dims();
    out.reshape([batch, tokens, d_out])
}
