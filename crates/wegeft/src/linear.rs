//! The one call that a model changes to work in activation space.

use burn::nn::Linear;
use burn::tensor::Tensor;

use crate::edit::Bound;
use crate::tensor::{affine, dequantized};

/// `layer.forward(x)`; if an adapter is bound to the layer, computed in activation space.
///
/// `x`: `[.., d_in]`, of any rank from 2; result `[.., d_out]`. The frozen weight gets no gradient and is never
/// copied. On Burn's CPU backend the product, the edit and the bias are a single pass.
///
/// # Panics
/// `x` does not fit the layer; after [`Adapters::bind_rows`](crate::Adapters::bind_rows), a batch of another size than the number
/// of adapter names.
pub fn linear<const D: usize>(layer: &Linear, x: Tensor<D>) -> Tensor<D> {
    let shape = x.dims();
    check_batch(layer, &shape);
    shaped(apply(layer, rows(x), None), shape)
}

/// `residual + linear(layer, x)`, in the same pass. `residual` and result: `[.., d_out]`.
///
/// # Panics
/// As [`linear`]; also if `residual` does not have the shape of the result.
pub fn linear_add<const D: usize>(layer: &Linear, x: Tensor<D>, residual: Tensor<D>) -> Tensor<D> {
    let shape = x.dims();
    check_batch(layer, &shape);
    shaped(apply(layer, rows(x), Some(rows(residual))), shape)
}

/// [`linear`] for several layers with the same input `x`, such as q, k and v: WeGeFT's edit of the input is computed once for all
/// layers of one group. Results are in the order of `layers`.
///
/// # Panics
/// As [`linear`].
pub fn linear_many<const D: usize, const N: usize>(layers: [&Linear; N], x: Tensor<D>) -> [Tensor<D>; N] {
    let bound = layers.map(|layer| layer.weight.reparameterization::<Bound>());
    let first = bound[0].map(Bound::edit);
    let shares = |other: &Option<&Bound>| match (first, other) {
        (Some(first), Some(other)) => first.shares_input_edit(other.edit()),
        _ => false,
    };
    let sharing = bound.iter().filter(|other| shares(other)).count();
    let Some(edit) = first.filter(|_| sharing > 1) else {
        return layers.map(|layer| linear(layer, x.clone()));
    };
    let shape = x.dims();
    let edited = edit.edit_input(rows(x.clone()));
    std::array::from_fn(|i| match shares(&bound[i]) {
        true => {
            let weight = layers[i].weight.base();
            let product = |bias, residual| affine(edited.clone(), weight, bias, residual);
            shaped(with_bias(layers[i], None, product), shape)
        }
        false => linear(layers[i], x.clone()),
    })
}

fn apply(layer: &Linear, x: Tensor<2>, residual: Option<Tensor<2>>) -> Tensor<2> {
    with_bias(layer, residual, |bias, residual| {
        match layer.weight.reparameterization::<Bound>() {
            Some(bound) => bound.edit().affine(x, layer.weight.base(), bias, residual),
            None => affine(x, layer.weight.val(), bias, residual),
        }
    })
}

/// `product` with the layer's bias and `residual`; a bias that an adapter edits is added afterwards, and `residual` last.
fn with_bias(
    layer: &Linear,
    residual: Option<Tensor<2>>,
    product: impl FnOnce(Option<Tensor<1>>, Option<Tensor<2>>) -> Tensor<2>,
) -> Tensor<2> {
    let Some(bias) = &layer.bias else {
        return product(None, residual);
    };
    let Some(bound) = bias.reparameterization::<Bound>() else {
        return product(Some(dequantized(bias.val())), residual);
    };
    let out = bound.edit().add_bias(product(None, None), dequantized(bias.base()));
    match residual {
        Some(residual) => residual + out,
        None => out,
    }
}

/// Checks that the input of a layer in a mixed batch has one example per adapter name. A matrix may be `[batch·tokens, d_in]`:
/// whether its rows are a multiple of the batch is checked where they are divided.
fn check_batch(layer: &Linear, shape: &[usize]) {
    if shape.len() == 2 {
        return;
    }
    let weight = layer.weight.reparameterization::<Bound>();
    let bias = layer.bias.as_ref().and_then(|bias| bias.reparameterization::<Bound>());
    for bound in [weight, bias].into_iter().flatten() {
        bound.check_batch(shape[0]);
    }
}

/// One product over all rows: a batch of small products would sum a gradient for each element of the batch.
fn rows<const D: usize>(x: Tensor<D>) -> Tensor<2> {
    let shape = x.dims();
    x.reshape([shape[..D - 1].iter().product(), shape[D - 1]])
}

fn shaped<const D: usize>(out: Tensor<2>, mut shape: [usize; D]) -> Tensor<D> {
    shape[D - 1] = out.dims()[1];
    out.reshape(shape)
}
