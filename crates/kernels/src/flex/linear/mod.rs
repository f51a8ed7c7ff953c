//! See [`crate::linear()`] and its variants.

pub mod packed_bf16;
mod skinny;
mod upcast;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{FlexQTensor, FlexTensor};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, QuantizedTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::quantization::QuantScheme;
use burn::tensor::{DType, Device, Shape, Tensor};
use rayon::prelude::*;

use super::activations::{gelu_derivative, gelu_grad};
use super::gemm::{Cores, Mat, append_product, product};
use super::math::cdf_and_gaussian;
use super::memory::{Writer, par_fill, par_fill_many};
use super::weight::{Weight, WeightView};
use super::{cast_to, column_sums, rows, tensor, values};
use crate::flex::simd::simd;
pub use skinny::SKINNY_ROWS;

/// Most rows per task, so that they are still in the cache for bias, GELU and residual.
const MOST_ROWS: usize = 800;
/// Fewest rows per task: every task packs the weight again, and with fewer rows and few columns `gemm` takes another path.
const LEAST_ROWS: usize = 260;

/// See [`crate::linear()`].
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let bias = bias_or_empty(bias, &weight.device()).into_dispatch();
    let dtype = weight.dtype();
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match dtype {
        DType::QFloat(scheme) => <Dispatch as Linear>::linear_quantized(x, weight, bias, scheme),
        _ => <Dispatch as Linear>::linear(x, weight, bias),
    })
}

/// See [`crate::linear_gelu()`].
pub fn linear_gelu(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let bias = bias_or_zeros(bias, weight.dims()[1], &weight.device());
    Tensor::from_dispatch(<Dispatch as Linear>::linear_gelu(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    ))
}

/// See [`crate::linear_add()`].
pub fn linear_add(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, residual: Tensor<2>) -> Tensor<2> {
    let bias = bias_or_empty(bias, &weight.device());
    Tensor::from_dispatch(<Dispatch as Linear>::linear_add(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        residual.into_dispatch(),
    ))
}

/// The bias of a layer on `device`, or `width` zeros if it has none.
pub(super) fn bias_or_zeros(bias: Option<Tensor<1>>, width: usize, device: &Device) -> Tensor<1> {
    match bias {
        Some(bias) => bias.cast(DType::F32),
        None => Tensor::zeros([width], (&device.clone().inner(), DType::F32)),
    }
}

/// The bias of a layer on `device`, or an empty tensor if it has none: nothing is added then.
pub(super) fn bias_or_empty(bias: Option<Tensor<1>>, device: &Device) -> Tensor<1> {
    bias_or_zeros(bias, 0, device)
}

/// Linear layers. `x`: `[n, d_in]`, `weight`: `[d_in, d_out]`, `bias`: `[d_out]`, all f32; except that in `linear` and
/// `linear_add` the weight may be narrower and the bias empty.
#[backend_extension(Flex, Autodiff)]
pub trait Linear: Backend {
    /// `x W + b`
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;
    /// `x W + b`
    fn linear_quantized(
        x: FloatTensor<Self>,
        weight: QuantizedTensor<Self>,
        bias: FloatTensor<Self>,
        scheme: QuantScheme,
    ) -> FloatTensor<Self>;
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
        affine(&x, &Weight::float(weight), &bias)
    }

    fn linear_quantized(x: FlexTensor, weight: FlexQTensor, bias: FlexTensor, scheme: QuantScheme) -> FlexTensor {
        affine(&x, &Weight::quantized(weight, scheme), &bias)
    }

    fn linear_gelu(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        let (weight, bias) = (Weight::float(weight), bias.to_contiguous());
        let bias = values(&bias);
        multiply(
            &x,
            &weight.view(),
            #[inline(always)]
            |_, out| out.copy(bias),
            #[inline(always)]
            |out| {
                for out in out {
                    *out *= cdf_and_gaussian(*out).0;
                }
            },
        )
    }

    fn linear_add(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, residual: FlexTensor) -> FlexTensor {
        let (weight, bias, residual) = (Weight::float(weight), bias.to_contiguous(), residual.to_contiguous());
        let (bias, residual, weight) = (values(&bias), values(&residual), weight.view());
        let width = weight.size()[1];
        multiply(
            &x,
            &weight,
            #[inline(always)]
            |row, out| out.sum(&residual[row * width..][..width], bias),
            |_| {},
        )
    }
}

/// `x W + b`
fn affine(x: &FlexTensor, weight: &Weight, bias: &FlexTensor) -> FlexTensor {
    let bias = bias.to_contiguous();
    let bias = values(&bias);
    if bias.is_empty() {
        return product_alone(x, &weight.view());
    }
    multiply(
        x,
        &weight.view(),
        #[inline(always)]
        |_, out| out.copy(bias),
        |_| {},
    )
}

/// (`x W + b`, its GELU), with an f32 weight.
fn linear_and_gelu(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> (FlexTensor, FlexTensor) {
    let (x, weight, bias) = (x.to_contiguous(), nonnegative_strides(weight), bias.to_contiguous());
    let (weight, bias, input) = (matrix(&weight), values(&bias), values(&x));
    let [n, _] = rows(&x);
    let [d_in, d_out] = weight.size();
    let block = block_rows(n);
    let [before, after] = par_fill_many([n * d_out; 2], [block * d_out; 2], |index, [before, after]| {
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
            cores(n, block, weight.size()),
        );
        simd!({
            after.map(
                before.written(),
                #[inline(always)]
                |x| x * cdf_and_gaussian(x).0,
            )
        });
    });
    let shape = Shape::from([n, d_out]);
    (tensor(before, shape.clone()), tensor(after, shape))
}

/// `grad Wᵀ`
fn input_grad(grad: &FlexTensor, weight: &Weight) -> FlexTensor {
    product_alone(grad, &weight.view().t())
}

/// `x·weight`: [`multiply`] with nothing to add.
fn product_alone(x: &FlexTensor, weight: &WeightView) -> FlexTensor {
    let x = x.to_contiguous();
    let [n, _] = rows(&x);
    let [d_in, d_out] = weight.size();
    let input = values(&x);
    let out = match weight.matrix() {
        Some(matrix) if n > SKINNY_ROWS => {
            let block = block_rows(n);
            par_fill(n * d_out, block * d_out, |index, out| {
                let count = out.capacity() / d_out;
                let input = Mat::rows(&input[index * block * d_in..][..count * d_in], [count, d_in]);
                append_product(out, input, matrix, cores(n, block, weight.size()));
            })
        }
        _ => {
            let mut out = vec![0.0; n * d_out];
            add_product(&mut out, input, n, weight);
            out
        }
    };
    tensor(out, Shape::from([n, d_out]))
}

/// `(grad · gelu'(before)) Wᵀ`
fn gelu_input_grad(before: FlexTensor, grad: FlexTensor, weight: Mat) -> FlexTensor {
    let (before, grad, weight) = (before.to_contiguous(), grad.to_contiguous(), weight.t());
    let [n, d_out] = rows(&grad);
    let d_in = weight.size()[1];
    let (before, grad) = (values(&before), values(&grad));
    let block = block_rows(n);
    let out = par_fill(n * d_in, block * d_in, |index, out| {
        let count = out.capacity() / d_in;
        let part = index * block * d_out..(index * block + count) * d_out;
        let mut inner = vec![0.0; part.len()];
        // A plain loop: `collect` would be a call, compiled without the instruction set chosen here.
        simd!({
            let pairs = before[part.clone()].iter().zip(&grad[part.clone()]);
            for (inner, (before, grad)) in inner.iter_mut().zip(pairs) {
                *inner = grad * gelu_derivative(*before);
            }
        });
        let inner = Mat::rows(&inner, [count, d_out]);
        append_product(out, inner, weight, cores(n, block, weight.size()));
    });
    tensor(out, Shape::from([n, d_in]))
}

/// `tensor` if its strides are not negative, otherwise a copy.
pub(super) fn nonnegative_strides(tensor: FlexTensor) -> FlexTensor {
    match tensor.layout().strides().iter().all(|stride| *stride >= 0) {
        true => tensor,
        false => tensor.to_contiguous(),
    }
}

/// A view of a tensor of rank 2.
pub(super) fn matrix(tensor: &FlexTensor) -> Mat<'_> {
    let (shape, strides) = (tensor.layout().shape(), tensor.layout().strides());
    let data = &tensor.storage::<f32>()[tensor.layout().start_offset()..];
    Mat::new(data, [shape[0], shape[1]], [strides[0] as usize, strides[1] as usize])
}

/// Rows per task: few large tasks, the same number for each thread. The split does not change results: with more than 256
/// rows, `gemm` splits the depth in steps that depend on the depth alone.
pub(super) fn block_rows(n: usize) -> usize {
    let threads = rayon::current_num_threads();
    let mut parts = (threads * n.div_ceil(threads * MOST_ROWS)).max(1);
    // The last task has the remainder.
    while parts > 1 && n.saturating_sub((parts - 1) * n.div_ceil(parts)) < LEAST_ROWS {
        parts -= 1;
    }
    n.div_ceil(parts).max(1)
}

/// A large product that is a single task uses all cores.
pub(super) fn cores(n: usize, block: usize, [d_in, d_out]: [usize; 2]) -> Cores {
    match block >= n && n * d_in * d_out > 1 << 22 {
        true => Cores::All,
        false => Cores::One,
    }
}

/// `start + x·weight`, then `finish`. `start` writes the row with the given index; `finish` gets a block of rows.
fn multiply(
    x: &FlexTensor,
    weight: &WeightView,
    start: impl Fn(usize, &mut Writer) + Sync,
    finish: impl Fn(&mut [f32]) + Sync,
) -> FlexTensor {
    let x = x.to_contiguous();
    let [n, _] = rows(&x);
    let [d_in, d_out] = weight.size();
    let input = values(&x);
    let block = block_rows(n);
    let begin = |index: usize, out: &mut Writer| {
        let count = out.capacity() / d_out;
        simd!({
            (0..count).for_each(
                #[inline(always)]
                |row| start(index * block + row, out),
            )
        });
        count
    };
    let out = match weight.matrix() {
        Some(matrix) if n > SKINNY_ROWS => par_fill(n * d_out, block * d_out, |index, out| {
            let count = begin(index, out);
            let input = Mat::rows(&input[index * block * d_in..][..count * d_in], [count, d_in]);
            let cores = cores(n, block, weight.size());
            product(out.written(), d_out, input, matrix, 1.0, true, cores);
            simd!({ finish(out.written()) });
        }),
        _ => {
            let mut out = par_fill(n * d_out, block * d_out, |index, out| {
                begin(index, out);
            });
            add_product(&mut out, input, n, weight);
            out.par_chunks_mut((block * d_out).max(1))
                .for_each(|out| simd!({ finish(out) }));
            out
        }
    };
    tensor(out, Shape::from([n, d_out]))
}

/// Adds `x·weight` to `out`, for few rows of `x` or a weight that is read block by block. `x`: `[n, d_in]`.
fn add_product(out: &mut [f32], x: &[f32], n: usize, weight: &WeightView) {
    match n <= SKINNY_ROWS {
        true => skinny::add_product(out, x, weight),
        false => upcast::add_product(out, x, weight),
    }
}

/// Saved for backward: nothing for gradients that are not required.
#[derive(Debug, Clone)]
struct Saved {
    /// If the weight requires a gradient.
    x: Option<FlexTensor>,
    /// If the input requires a gradient.
    weight: Option<Weight>,
    /// Dtype of the weight and of its gradient.
    dtype: DType,
    /// The input of the GELU, if there is one.
    before: Option<FlexTensor>,
}

#[derive(Debug)]
struct LinearStep;

/// Parents: input, weight, bias and, of [`Linear::linear_add`], residual.
impl<const N: usize> Backward<Flex, N> for LinearStep {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let parent = |index: usize| ops.parents.get(index)?.as_ref().map(|node| node.id);
        let Saved {
            x,
            weight,
            dtype,
            before,
        } = ops.state;
        // With frozen parameters, the derivative of the GELU and the product take one pass.
        let (grad, before) = match before {
            Some(before) if parent(1).is_some() || parent(2).is_some() => (gelu_grad(&before, &grad), None),
            before => (grad, before),
        };
        if let (Some(id), Some(weight)) = (parent(0), weight) {
            let grad = match (before, weight.view().matrix()) {
                (Some(before), Some(weight)) => gelu_input_grad(before, grad.clone(), weight),
                _ => input_grad(&grad, &weight),
            };
            grads.register::<Flex>(id, grad);
        }
        if let (Some(id), Some(x)) = (parent(1), x) {
            let of_weight = Flex::float_matmul(Flex::float_transpose(x), grad.clone());
            grads.register::<Flex>(id, cast_to(of_weight, dtype));
        }
        if let Some(id) = parent(2) {
            grads.register::<Flex>(id, column_sums(grad.clone()));
        }
        if let Some(id) = parent(3) {
            grads.register::<Flex>(id, grad);
        }
    }
}

impl<C: CheckpointStrategy> Linear for Autodiff<Flex, C> {
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let saved = saved::<C>(&x, &weight);
        let nodes = [x.node(), weight.node(), bias.node()];
        let out = Flex::linear(x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        match LinearStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(saved, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn linear_quantized(
        x: FloatTensor<Self>,
        weight: FlexQTensor,
        bias: FloatTensor<Self>,
        scheme: QuantScheme,
    ) -> FloatTensor<Self> {
        let weight = Weight::quantized(weight, scheme);
        // A constant takes the place of the weight, which has no gradient, among the parents.
        let constant = Self::from_inner(x.primitive().clone());
        let nodes = [x.node(), constant.node(), bias.node()];
        let saved = Saved {
            x: None,
            weight: x.is_tracked().then(|| weight.clone()),
            dtype: DType::F32,
            before: None,
        };
        let out = affine(&x.into_primitive(), &weight, &bias.into_primitive());
        match LinearStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(saved, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn linear_gelu(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let mut saved = saved::<C>(&x, &weight);
        let nodes = [x.node(), weight.node(), bias.node()];
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        match LinearStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (before, after) = linear_and_gelu(x, weight, bias);
                saved.before = Some(before);
                prep.finish(saved, after)
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
        let saved = saved::<C>(&x, &weight);
        let nodes = [x.node(), weight.node(), bias.node(), residual.node()];
        let out = Flex::linear_add(
            x.into_primitive(),
            weight.into_primitive(),
            bias.into_primitive(),
            residual.into_primitive(),
        );
        match LinearStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(saved, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }
}

fn saved<C: CheckpointStrategy>(x: &FloatTensor<Autodiff<Flex, C>>, weight: &FloatTensor<Autodiff<Flex, C>>) -> Saved {
    Saved {
        x: weight.is_tracked().then(|| x.primitive().clone()),
        weight: x.is_tracked().then(|| Weight::float(weight.primitive().clone())),
        dtype: weight.primitive().dtype(),
        before: None,
    }
}
