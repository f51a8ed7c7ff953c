//! Burn's layers through the fused operations of `kernels`; a layer that an adapter is bound to goes through `wegeft`.

use burn::nn::{LayerNorm, Linear};
use burn::tensor::Tensor;
use wegeft::methods::{Bound, Product};

/// `layer.forward(x)` over the last dimension, `[.., d_model]` to the same. `epsilon` is the layer's own, which Burn
/// does not show.
pub fn norm<const D: usize>(layer: &LayerNorm, epsilon: f64, x: Tensor<D>) -> Tensor<D> {
    let dtype = x.dtype();
    let beta = layer.beta.as_ref().map(|beta| beta.val().cast(dtype));
    kernels::layer_norm(x, layer.gamma.val().cast(dtype), beta, epsilon)
}

/// The product of bound layers: it reads weights of any type, as that of the others does.
const PRODUCT: Product<'static> = &|x, weight| kernels::linear(x, weight, None);

/// [`wegeft::linear`], `[batch, tokens, d_in]` to `[batch, tokens, d_out]`.
pub fn linear(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    if is_bound(layer) {
        return wegeft::linear_by(PRODUCT, layer, x);
    }
    by_rows(layer, x, kernels::linear)
}

/// [`wegeft::linear_many`], shapes as [`linear`].
pub fn linear_many<const N: usize>(layers: [&Linear; N], x: Tensor<3>) -> [Tensor<3>; N] {
    if layers.into_iter().any(is_bound) {
        return wegeft::linear_many_by(PRODUCT, layers, x);
    }
    layers.map(|layer| linear(layer, x.clone()))
}

/// `gelu(linear(layer, x))`
pub fn linear_gelu(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    if is_bound(layer) {
        return kernels::gelu(linear(layer, x));
    }
    by_rows(layer, x, kernels::linear_gelu)
}

/// `residual + linear(layer, x)`, `residual`: `[batch, tokens, d_out]`
pub fn linear_add(layer: &Linear, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
    if is_bound(layer) {
        return residual + linear(layer, x);
    }
    let [batch, tokens, d_out] = residual.dims();
    let residual = residual.reshape([batch * tokens, d_out]);
    by_rows(layer, x, |x, weight, bias| {
        kernels::linear_add(x, weight, bias, residual)
    })
}

fn is_bound(layer: &Linear) -> bool {
    let bias = layer.bias.as_ref();
    layer.weight.reparameterization::<Bound>().is_some()
        || bias.is_some_and(|bias| bias.reparameterization::<Bound>().is_some())
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
