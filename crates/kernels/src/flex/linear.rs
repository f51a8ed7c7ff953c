//! See [`crate::linear()`] and its kin.

use std::ops::Range;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Shape, Tensor};

use super::activations::{gelu_grad, gelu_slope};
use super::gemm::{Cores, Mat, append_product, product};
use super::memory::{Writer, filled, filled_together};
use super::normal::cdf_and_bell;
use super::{rows, tensor, values};

/// Rows of a product that one task works on, about: fewer, and packing the weight anew for each costs more than 5 %.
const ROWS: usize = 200;
/// Columns of one task's part of a product that has one row.
const COLUMNS: usize = 256;

/// See [`crate::linear()`].
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let bias = bias_or_zeros(&weight, bias);
    Tensor::from_dispatch(<Dispatch as Linear>::linear(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    ))
}

/// See [`crate::linear_gelu()`].
pub fn linear_gelu(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let bias = bias_or_zeros(&weight, bias);
    Tensor::from_dispatch(<Dispatch as Linear>::linear_gelu(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    ))
}

/// See [`crate::linear_add()`].
pub fn linear_add(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, residual: Tensor<2>) -> Tensor<2> {
    let bias = bias_or_zeros(&weight, bias);
    Tensor::from_dispatch(<Dispatch as Linear>::linear_add(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        residual.into_dispatch(),
    ))
}

pub(super) fn bias_or_zeros(weight: &Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<1> {
    bias.unwrap_or_else(|| Tensor::zeros([weight.dims()[1]], &weight.device().inner()))
}

/// Linear layers. `x`: `[n, d_in]`, `weight`: `[d_in, d_out]`, `bias`: `[d_out]`.
#[backend_extension(Flex, Autodiff)]
pub trait Linear: Backend {
    /// `x W + b`
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;
    /// `gelu(x W + b)`
    fn linear_gelu(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;
    /// `residual + x W + b`
    fn linear_add(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl Linear for Flex {
    fn linear(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        let (x, weight, bias) = (x.to_contiguous(), positive(weight), bias.to_contiguous());
        let bias = values(&bias);
        multiply(&x, matrix(&weight), |_, columns, out| out.copy(&bias[columns]), |_| {})
    }

    fn linear_gelu(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        let (x, weight, bias) = (x.to_contiguous(), positive(weight), bias.to_contiguous());
        let bias = values(&bias);
        multiply(
            &x,
            matrix(&weight),
            |_, columns, out| out.copy(&bias[columns]),
            |out| {
                for out in out {
                    *out *= cdf_and_bell(*out).0;
                }
            },
        )
    }

    fn linear_add(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, residual: FlexTensor) -> FlexTensor {
        let (x, weight, bias) = (x.to_contiguous(), positive(weight), bias.to_contiguous());
        let residual = residual.to_contiguous();
        let (bias, residual) = (values(&bias), values(&residual));
        let start = |row: usize, columns: Range<usize>, out: &mut Writer| {
            let residual = &residual[row * bias.len()..][columns.clone()];
            out.map2(residual, &bias[columns], |a, b| a + b);
        };
        multiply(&x, matrix(&weight), start, |_| {})
    }
}

/// (`x W + b`, its GELU)
fn linear_and_gelu(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> (FlexTensor, FlexTensor) {
    let (x, weight, bias) = (x.to_contiguous(), positive(weight), bias.to_contiguous());
    let (weight, bias, input) = (matrix(&weight), values(&bias), values(&x));
    let [n, _] = rows(&x);
    let [d_in, d_out] = weight.size();
    let block = block_rows(n);
    let arch = pulp::Arch::new();
    let [before, after] = filled_together([n * d_out; 2], [block * d_out; 2], |index, [before, after]| {
        let count = before.capacity() / d_out;
        let input = Mat::rows(&input[index * block * d_in..][..count * d_in], [count, d_in]);
        for _ in 0..count {
            before.copy(bias);
        }
        product(
            before.written(),
            d_out,
            input,
            weight,
            1.0,
            true,
            cores(n, block, weight),
        );
        arch.dispatch(|| after.map(before.written(), |x| x * cdf_and_bell(x).0));
    });
    let shape = Shape::from([n, d_out]);
    (tensor(before, shape.clone()), tensor(after, shape))
}

/// `grad Wᵀ`
fn input_grad(grad: FlexTensor, weight: FlexTensor) -> FlexTensor {
    let (grad, weight) = (grad.to_contiguous(), positive(weight));
    let weight = matrix(&weight).t();
    let ([n, d_out], d_in) = (rows(&grad), weight.size()[1]);
    let grad = values(&grad);
    let block = block_rows(n);
    let out = filled(n * d_in, block * d_in, |index, out| {
        let count = out.capacity() / d_in;
        let grad = Mat::rows(&grad[index * block * d_out..][..count * d_out], [count, d_out]);
        append_product(out, grad, weight, cores(n, block, weight));
    });
    tensor(out, Shape::from([n, d_in]))
}

/// `(grad · gelu'(before)) Wᵀ`
fn gelu_input_grad(before: FlexTensor, grad: FlexTensor, weight: FlexTensor) -> FlexTensor {
    let (before, grad, weight) = (before.to_contiguous(), grad.to_contiguous(), positive(weight));
    let [n, d_out] = rows(&grad);
    let weight = matrix(&weight).t();
    let d_in = weight.size()[1];
    let (before, grad) = (values(&before), values(&grad));
    let block = block_rows(n);
    let arch = pulp::Arch::new();
    let out = filled(n * d_in, block * d_in, |index, out| {
        let count = out.capacity() / d_in;
        let part = index * block * d_out..(index * block + count) * d_out;
        let mut inner = vec![0.0; part.len()];
        // A plain loop: `collect` is a call, compiled without the instruction set that is chosen here.
        arch.dispatch(|| {
            let pairs = before[part.clone()].iter().zip(&grad[part.clone()]);
            for (inner, (before, grad)) in inner.iter_mut().zip(pairs) {
                *inner = grad * gelu_slope(*before);
            }
        });
        let inner = Mat::rows(&inner, [count, d_out]);
        append_product(out, inner, weight, cores(n, block, weight));
    });
    tensor(out, Shape::from([n, d_in]))
}

/// The tensor itself, or a copy if it runs backwards along some dimension.
pub(super) fn positive(tensor: FlexTensor) -> FlexTensor {
    match tensor.layout().strides().iter().all(|stride| *stride >= 0) {
        true => tensor,
        false => tensor.to_contiguous(),
    }
}

/// A tensor of two dimensions, seen as it lies.
pub(super) fn matrix(tensor: &FlexTensor) -> Mat<'_> {
    let (shape, strides) = (tensor.layout().shape(), tensor.layout().strides());
    let data = &tensor.storage::<f32>()[tensor.layout().start_offset()..];
    Mat::new(data, [shape[0], shape[1]], [strides[0] as usize, strides[1] as usize])
}

/// Rows of one task's part of `n`. It depends on nothing else, so that any number of threads gives the same numbers;
/// an even number of parts keeps two cores busy to the end.
pub(super) fn block_rows(n: usize) -> usize {
    if n < 2 * ROWS / 3 {
        return n.max(1);
    }
    n.div_ceil(2 * n.div_ceil(2 * ROWS))
}

/// A product that is one task's whole work uses all cores, if it is large.
pub(super) fn cores(n: usize, block: usize, weight: Mat) -> Cores {
    let [d_in, d_out] = weight.size();
    match block >= n && n * d_in * d_out > 1 << 22 {
        true => Cores::All,
        false => Cores::One,
    }
}

/// `start + x·weight`, then `finish`. `start` writes a range of one row.
fn multiply(
    x: &FlexTensor,
    weight: Mat,
    start: impl Fn(usize, Range<usize>, &mut Writer) + Sync,
    finish: impl Fn(&mut [f32]) + Sync,
) -> FlexTensor {
    let [n, _] = rows(x);
    let [d_in, d_out] = weight.size();
    let input = values(x);
    let arch = pulp::Arch::new();
    let out = if n == 1 {
        // A step of decoding: the weight is read once, in parts.
        filled(d_out, COLUMNS, |index, out| {
            let columns = index * COLUMNS..index * COLUMNS + out.capacity();
            let weight = weight.columns(columns.start, columns.len());
            start(0, columns.clone(), out);
            let input = Mat::rows(input, [1, d_in]);
            product(out.written(), columns.len(), input, weight, 1.0, true, Cores::One);
            arch.dispatch(|| finish(out.written()));
        })
    } else {
        let block = block_rows(n);
        filled(n * d_out, block * d_out, |index, out| {
            let count = out.capacity() / d_out;
            let input = Mat::rows(&input[index * block * d_in..][..count * d_in], [count, d_in]);
            arch.dispatch(|| (0..count).for_each(|row| start(index * block + row, 0..d_out, out)));
            product(out.written(), d_out, input, weight, 1.0, true, cores(n, block, weight));
            arch.dispatch(|| finish(out.written()));
        })
    };
    tensor(out, Shape::from([n, d_out]))
}

/// What the backward pass of a linear layer reads: nothing for a gradient that nothing asks for.
#[derive(Debug, Clone)]
struct Kept {
    /// If the weight requires a gradient.
    x: Option<FlexTensor>,
    /// If the input requires a gradient.
    weight: Option<FlexTensor>,
    /// The argument of the GELU, if there is one.
    before: Option<FlexTensor>,
}

#[derive(Debug)]
struct LinearStep;

/// Parents: input, weight, bias and, of [`Linear::linear_add`], residual.
impl<const N: usize> Backward<Flex, N> for LinearStep {
    type State = Kept;

    fn backward(self, ops: Ops<Kept, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let parent = |index: usize| ops.parents.get(index)?.as_ref().map(|node| node.id);
        let Kept { x, weight, before } = ops.state;
        // With frozen parameters the slope of the GELU and the product are one pass.
        let (grad, before) = match before {
            Some(before) if parent(1).is_some() || parent(2).is_some() => (gelu_grad(&before, &grad), None),
            before => (grad, before),
        };
        if let (Some(id), Some(weight)) = (parent(0), weight) {
            let grad = match before {
                Some(before) => gelu_input_grad(before, grad.clone(), weight),
                None => input_grad(grad.clone(), weight),
            };
            grads.register::<Flex>(id, grad);
        }
        if let (Some(id), Some(x)) = (parent(1), x) {
            grads.register::<Flex>(id, Flex::float_matmul(Flex::float_transpose(x), grad.clone()));
        }
        if let Some(id) = parent(2) {
            let sum = Flex::float_sum_dim(grad.clone(), 0);
            let width = sum.layout().num_elements();
            grads.register::<Flex>(id, Flex::float_reshape(sum, Shape::from([width])));
        }
        if let Some(id) = parent(3) {
            grads.register::<Flex>(id, grad);
        }
    }
}

impl<C: CheckpointStrategy> Linear for Autodiff<Flex, C> {
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let kept = kept::<C>(&x, &weight);
        let nodes = [x.node(), weight.node(), bias.node()];
        let out = Flex::linear(x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        match LinearStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(kept, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn linear_gelu(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let mut kept = kept::<C>(&x, &weight);
        let nodes = [x.node(), weight.node(), bias.node()];
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        match LinearStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (before, after) = linear_and_gelu(x, weight, bias);
                kept.before = Some(before);
                prep.finish(kept, after)
            }
            OpsKind::UnTracked(prep) => prep.finish(Flex::linear_gelu(x, weight, bias)),
        }
    }

    fn linear_add(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let kept = kept::<C>(&x, &weight);
        let nodes = [x.node(), weight.node(), bias.node(), residual.node()];
        let out = Flex::linear_add(
            x.into_primitive(),
            weight.into_primitive(),
            bias.into_primitive(),
            residual.into_primitive(),
        );
        match LinearStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(kept, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }
}

fn kept<C: CheckpointStrategy>(x: &FloatTensor<Autodiff<Flex, C>>, weight: &FloatTensor<Autodiff<Flex, C>>) -> Kept {
    Kept {
        x: weight.is_tracked().then(|| x.primitive().clone()),
        weight: x.is_tracked().then(|| weight.primitive().clone()),
        before: None,
    }
}
