//! The one call that a model changes to work in activation space.

use burn::nn::Linear;
use burn::tensor::Tensor;

use crate::methods::{Bound, Product, cast};

/// `layer.forward(x)`, in activation space if the layer's weight is bound to an adapter.
///
/// `x`: `[.., d_in]`, of any rank from 2; result `[.., d_out]`. The frozen weight gets no gradient and is never
/// copied. An unbound layer is Burn's own.
pub fn linear<const D: usize>(layer: &Linear, x: Tensor<D>) -> Tensor<D> {
    linear_by(&Tensor::matmul, layer, x)
}

/// [`linear`] with a product of one's own, such as one that reads a weight stored narrower than `x`. The result has
/// the product's type; a bias is brought to it.
pub fn linear_by<const D: usize>(product: Product, layer: &Linear, x: Tensor<D>) -> Tensor<D> {
    let shape = x.dims();
    let rows = rows(x);
    let out = match layer.weight.reparameterization::<Bound>() {
        Some(bound) => bound.edit().matmul(rows, layer.weight.base(), product),
        None => product(rows, layer.weight.val()),
    };
    finish(layer, out, shape)
}

/// [`linear`] for several layers that read the same `x`, such as q, k and v: layers bound to the same input-side
/// generator share one edit of it.
pub fn linear_many<const D: usize, const N: usize>(layers: [&Linear; N], x: Tensor<D>) -> [Tensor<D>; N] {
    linear_many_by(&Tensor::matmul, layers, x)
}

/// [`linear_many`] with a product of one's own, see [`linear_by`].
pub fn linear_many_by<const D: usize, const N: usize>(
    product: Product,
    layers: [&Linear; N],
    x: Tensor<D>,
) -> [Tensor<D>; N] {
    let bound = layers.map(|layer| layer.weight.reparameterization::<Bound>());
    let shared = |other: Option<&Bound>| bound[0].and_then(|first| first.shared_input_edit(other?));
    let Some(edit) = (N > 1).then(|| bound.iter().find_map(|other| shared(*other))).flatten() else {
        return layers.map(|layer| linear_by(product, layer, x.clone()));
    };
    let shape = x.dims();
    let rows = rows(x.clone());
    let edited = edit.edit(rows);
    std::array::from_fn(|i| match shared(bound[i]) {
        Some(_) => finish(layers[i], product(edited.clone(), layers[i].weight.base()), shape),
        None => linear_by(product, layers[i], x.clone()),
    })
}

/// One product over all rows: a batch of small products would sum a gradient per picture.
fn rows<const D: usize>(x: Tensor<D>) -> Tensor<2> {
    let shape = x.dims();
    x.reshape([shape[..D - 1].iter().product(), shape[D - 1]])
}

fn finish<const D: usize>(layer: &Linear, out: Tensor<2>, mut shape: [usize; D]) -> Tensor<D> {
    let out = match &layer.bias {
        Some(bias) => match bias.reparameterization::<Bound>() {
            Some(bound) => bound.edit().add_bias(out, bias.base()),
            None => {
                let bias = cast(bias.val(), out.dtype());
                out + bias.unsqueeze::<2>()
            }
        },
        None => out,
    };
    shape[D - 1] = out.dims()[1];
    out.reshape(shape)
}
