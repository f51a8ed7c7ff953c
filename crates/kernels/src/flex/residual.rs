//! See [`crate::residual_add()`].

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{DType, Shape, Tensor};

use super::memory::{Writer, par_fill};
use super::simd::simd;
use super::{column_sums, rows, tensor, values};

/// Approximate number of elements per task.
const CHUNK: usize = 1 << 14;

/// See [`crate::residual_add()`].
pub fn residual_add(
    residual: Tensor<3>,
    branch: Tensor<3>,
    scale: Option<Tensor<1>>,
    keep: Option<Tensor<1>>,
) -> Tensor<3> {
    let [batch, _, width] = branch.dims();
    let ones = |len: usize| Tensor::<1>::ones([len], (&branch.device().inner(), DType::F32));
    let scale = scale.map_or_else(|| ones(width), |scale| scale.cast(DType::F32));
    let keep = keep.map_or_else(|| ones(batch), |keep| keep.cast(DType::F32));
    Tensor::from_dispatch(<Dispatch as Residual>::scaled_add(
        residual.into_dispatch(),
        branch.into_dispatch(),
        scale.into_dispatch(),
        keep.into_dispatch(),
    ))
}

/// The sum of a residual stream and a branch. `residual`, `branch`: `[batch, tokens, d]`, `scale`: `[d]`, `keep`:
/// `[batch]`, all f32.
#[backend_extension(Flex, Autodiff)]
pub trait Residual: Backend {
    /// `residual + branch · scale · keep`
    fn scaled_add(
        residual: FloatTensor<Self>,
        branch: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        keep: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl Residual for Flex {
    fn scaled_add(residual: FlexTensor, branch: FlexTensor, scale: FlexTensor, keep: FlexTensor) -> FlexTensor {
        let residual = residual.to_contiguous();
        let stream = values(&residual);
        by_rows(&branch, &scale, &keep, |out, at, branch, scale, keep| {
            out.map3(
                &stream[at..at + branch.len()],
                branch,
                scale,
                #[inline(always)]
                |residual, branch, scale| residual + branch * (scale * keep),
            );
        })
    }
}

/// `x · scale · keep`
fn scaled(x: &FlexTensor, scale: &FlexTensor, keep: &FlexTensor) -> FlexTensor {
    by_rows(x, scale, keep, |out, _, x, scale, keep| {
        out.map2(
            x,
            scale,
            #[inline(always)]
            |x, scale| x * (scale * keep),
        );
    })
}

/// A tensor of the shape of `x`, row by row: `write` gets the offset of the row, the row of `x`, the scale, and the sample's
/// factor.
#[inline(always)]
fn by_rows(
    x: &FlexTensor,
    scale: &FlexTensor,
    keep: &FlexTensor,
    write: impl Fn(&mut Writer, usize, &[f32], &[f32], f32) + Sync,
) -> FlexTensor {
    let (x, scale, keep) = (x.to_contiguous(), scale.to_contiguous(), keep.to_contiguous());
    let (input, scale, keep) = (values(&x), values(&scale), values(&keep));
    let [count, width] = rows(&x);
    let tokens = count / keep.len().max(1);
    let rows_per_task = (CHUNK / width.max(1)).max(1);
    let out = par_fill(input.len(), rows_per_task * width, |index, out| {
        let first = index * rows_per_task;
        let count = out.capacity() / width;
        simd!({
            for row in first..first + count {
                let at = row * width;
                write(out, at, &input[at..at + width], scale, keep[row / tokens]);
            }
        });
    });
    tensor(out, x.layout().shape().clone())
}

/// Saved for backward.
#[derive(Debug, Clone)]
struct Saved {
    scale: FlexTensor,
    keep: FlexTensor,
    /// If the scale requires a gradient.
    branch: Option<FlexTensor>,
}

#[derive(Debug)]
struct ResidualStep;

/// Parents: residual, branch, scale.
impl Backward<Flex, 3> for ResidualStep {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let [residual, branch, scale] = ops.parents;
        let saved = ops.state;
        if let Some(node) = branch {
            grads.register::<Flex>(node.id, scaled(&grad, &saved.scale, &saved.keep));
        }
        if let (Some(node), Some(branch)) = (scale, saved.branch) {
            let [count, width] = rows(&grad);
            let ones = Flex::float_ones(
                saved.scale.layout().shape().clone(),
                &Default::default(),
                DType::F32.into(),
            );
            let kept_samples_grad = scaled(&grad, &ones, &saved.keep);
            let products = Flex::float_reshape(Flex::float_mul(kept_samples_grad, branch), Shape::from([count, width]));
            grads.register::<Flex>(node.id, column_sums(products));
        }
        if let Some(node) = residual {
            grads.register::<Flex>(node.id, grad);
        }
    }
}

impl<C: CheckpointStrategy> Residual for Autodiff<Flex, C> {
    fn scaled_add(
        residual: FloatTensor<Self>,
        branch: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        keep: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [residual.node(), branch.node(), scale.node()];
        let saved = Saved {
            scale: scale.primitive().clone(),
            keep: keep.primitive().clone(),
            branch: scale.is_tracked().then(|| branch.primitive().clone()),
        };
        let out = Flex::scaled_add(
            residual.into_primitive(),
            branch.into_primitive(),
            scale.into_primitive(),
            keep.into_primitive(),
        );
        match ResidualStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(saved, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }
}
