//! See [`crate::layer_norm()`] and [`crate::rms_norm()`].

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{DType, Shape, Tensor};
use rayon::prelude::*;

use super::lanes::{sum_of, sum_of2};
use super::memory::par_fill;
use super::simd::simd;
use super::{cast_to, rows, tensor, values};

/// Approximate number of elements per task.
const CHUNK: usize = 1 << 14;

/// See [`crate::layer_norm()`].
pub fn layer_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, beta: Option<Tensor<1>>, epsilon: f64) -> Tensor<D> {
    let beta = match beta {
        Some(beta) => beta.cast(DType::F32),
        None => Tensor::zeros(gamma.dims(), (&gamma.device().inner(), DType::F32)),
    };
    Tensor::from_dispatch(<Dispatch as Norms>::fused_layer_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        epsilon,
    ))
}

/// See [`crate::rms_norm()`].
pub fn rms_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, offset: f64, epsilon: f64) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Norms>::fused_rms_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        offset,
        epsilon,
    ))
}

/// Norms over the last dimension.
#[backend_extension(Flex, Autodiff)]
pub trait Norms: Backend {
    /// `(x - mean) / √(var + epsilon)·gamma + beta`; `gamma` may be of another float dtype.
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self>;
    /// `x / √(mean(x²) + epsilon)·(offset + gamma)`; `gamma` may be of another float dtype.
    fn fused_rms_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, offset: f64, epsilon: f64) -> FloatTensor<Self>;
}

/// (mean, or 0 if not centered; reciprocal of the standard deviation or root mean square).
#[inline(always)]
fn moments(row: &[f32], epsilon: f32, centered: bool) -> (f32, f32) {
    let width = row.len() as f32;
    let mean = if centered { sum_of(row, |x| x) / width } else { 0.0 };
    let variance = sum_of(row, |x| (x - mean) * (x - mean)) / width;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

/// Rows per task.
fn block(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

/// `offset + gamma`, as contiguous f32.
fn scale(gamma: &FlexTensor, offset: f64) -> FlexTensor {
    let gamma = cast_to(gamma.to_contiguous(), DType::F32);
    match offset == 0.0 {
        true => gamma,
        false => tensor(
            values(&gamma).iter().map(|gamma| gamma + offset as f32).collect(),
            gamma.layout().shape().clone(),
        ),
    }
}

/// `gamma` is the result of [`scale`].
fn normalize(x: &FlexTensor, gamma: &FlexTensor, beta: Option<&FlexTensor>, epsilon: f64) -> FlexTensor {
    let x = x.to_contiguous();
    let beta = beta.map(FlexTensor::to_contiguous);
    let (input, gamma, beta) = (values(&x), values(gamma), beta.as_ref().map(values));
    let width = gamma.len();
    let block = block(width);
    let out = par_fill(input.len(), block * width, |index, out| {
        let part = &input[index * block * width..][..out.capacity()];
        simd!({
            for row in part.chunks_exact(width) {
                let (mean, factor) = moments(row, epsilon as f32, beta.is_some());
                match beta {
                    Some(beta) => out.map3(row, gamma, beta, |x, gamma, beta| (x - mean) * factor * gamma + beta),
                    None => out.map2(row, gamma, |x, gamma| x * factor * gamma),
                }
            }
        });
    });
    tensor(out, x.layout().shape().clone())
}

impl Norms for Flex {
    fn fused_layer_norm(x: FlexTensor, gamma: FlexTensor, beta: FlexTensor, epsilon: f64) -> FlexTensor {
        normalize(&x, &scale(&gamma, 0.0), Some(&beta), epsilon)
    }

    fn fused_rms_norm(x: FlexTensor, gamma: FlexTensor, offset: f64, epsilon: f64) -> FlexTensor {
        normalize(&x, &scale(&gamma, offset), None, epsilon)
    }
}

/// Gradient of `x`: with n = (x - mean)·factor and g = grad·gamma: factor·(g - mean(g) - n·mean(g·n)).
fn input_grad(x: FlexTensor, gamma: FlexTensor, grad: FlexTensor, epsilon: f64, centered: bool) -> FlexTensor {
    let (x, grad) = (x.to_contiguous(), grad.to_contiguous());
    let (input, gamma, grad) = (values(&x), values(&gamma), values(&grad));
    let width = gamma.len();
    let block = block(width);
    let out = par_fill(input.len(), block * width, |index, out| {
        let part = index * block * width..index * block * width + out.capacity();
        let mut scaled = vec![0.0; width];
        simd!({
            let rows = input[part.clone()].chunks_exact(width);
            for (row, grad) in rows.zip(grad[part.clone()].chunks_exact(width)) {
                let (mean, factor) = moments(row, epsilon as f32, centered);
                for ((scaled, grad), gamma) in scaled.iter_mut().zip(grad).zip(gamma) {
                    *scaled = grad * gamma;
                }
                let mean_product = sum_of2(&scaled, row, |g, x| g * (x - mean) * factor) / width as f32;
                let shift = if centered {
                    sum_of(&scaled, |g| g) / width as f32
                } else {
                    0.0
                };
                out.map2(&scaled, row, |g, x| {
                    factor * (g - shift - (x - mean) * factor * mean_product)
                });
            }
        });
    });
    tensor(out, x.layout().shape().clone())
}

/// Gradients of `gamma` and `beta`.
fn parameter_grads(x: FlexTensor, grad: FlexTensor, epsilon: f64, centered: bool) -> (FlexTensor, FlexTensor) {
    let (x, grad) = (x.to_contiguous(), grad.to_contiguous());
    let [_, width] = rows(&x);
    let (input, grad) = (values(&x), values(&grad));
    let part = block(width) * width;
    let sums: Vec<[Vec<f32>; 2]> = input
        .par_chunks(part.max(1))
        .zip(grad.par_chunks(part.max(1)))
        .map(|(input, grad)| {
            let mut sums = [vec![0.0; width], vec![0.0; width]];
            simd!({
                let [gammas, betas] = &mut sums;
                for (row, grad) in input.chunks_exact(width).zip(grad.chunks_exact(width)) {
                    let (mean, factor) = moments(row, epsilon as f32, centered);
                    let totals = gammas.iter_mut().zip(betas.iter_mut());
                    for (((gamma, beta), x), grad) in totals.zip(row).zip(grad) {
                        *gamma += grad * (x - mean) * factor;
                        *beta += grad;
                    }
                }
            });
            sums
        })
        .collect();
    // Added in order, so that results do not depend on the number of threads.
    let total = |which: usize| {
        let mut total = vec![0.0; width];
        for sums in &sums {
            for (total, sum) in total.iter_mut().zip(&sums[which]) {
                *total += sum;
            }
        }
        tensor(total, Shape::from([width]))
    };
    (total(0), total(1))
}

#[derive(Debug, Clone)]
struct Saved {
    x: FlexTensor,
    /// The result of [`scale`].
    gamma: FlexTensor,
    /// Dtype of gamma and of its gradient.
    dtype: DType,
    epsilon: f64,
    /// Whether the mean is subtracted: LayerNorm rather than RMSNorm.
    centered: bool,
}

#[derive(Debug)]
struct NormStep;

/// Parents: x, gamma and, of LayerNorm, beta.
impl<const N: usize> Backward<Flex, N> for NormStep {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let parent = |index: usize| ops.parents.get(index)?.as_ref().map(|node| node.id);
        let Saved {
            x,
            gamma,
            dtype,
            epsilon,
            centered,
        } = ops.state;
        if parent(1).is_some() || parent(2).is_some() {
            let (of_gamma, of_beta) = parameter_grads(x.clone(), grad.clone(), epsilon, centered);
            let of_gamma = cast_to(of_gamma, dtype);
            for (id, grad) in [(parent(1), of_gamma), (parent(2), of_beta)] {
                if let Some(id) = id {
                    grads.register::<Flex>(id, grad);
                }
            }
        }
        if let Some(id) = parent(0) {
            grads.register::<Flex>(id, input_grad(x, gamma, grad, epsilon, centered));
        }
    }
}

impl<C: CheckpointStrategy> Norms for Autodiff<Flex, C> {
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let saved = saved(x.into_primitive(), &gamma.into_primitive(), 0.0, epsilon, true);
        let out = normalize(&saved.x, &saved.gamma, Some(&beta.into_primitive()), epsilon);
        match NormStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(saved, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn fused_rms_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, offset: f64, epsilon: f64) -> FloatTensor<Self> {
        let nodes = [x.node(), gamma.node()];
        let saved = saved(x.into_primitive(), &gamma.into_primitive(), offset, epsilon, false);
        let out = normalize(&saved.x, &saved.gamma, None, epsilon);
        match NormStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(saved, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }
}

fn saved(x: FlexTensor, gamma: &FlexTensor, offset: f64, epsilon: f64, centered: bool) -> Saved {
    Saved {
        x,
        dtype: gamma.dtype(),
        gamma: scale(gamma, offset),
        epsilon,
        centered,
    }
}
