//! See [`crate::rope()`].

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Shape, Tensor};

use super::heads::{Heads, row_contiguous};
use super::memory::par_fill;
use super::simd::simd;
use super::{tensor, values};

/// See [`crate::rope()`].
pub fn rope(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as Rope>::fused_rope(
        x.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
    ))
}

/// Rotary embedding of f32 tensors.
#[backend_extension(Flex, Autodiff)]
pub trait Rope: Backend {
    /// See [`crate::rope()`].
    fn fused_rope(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Rotates `x` by the angles, or back.
fn rotate(x: FlexTensor, cos: &FlexTensor, sin: &FlexTensor, inverse: bool) -> FlexTensor {
    let x = row_contiguous(x);
    let (cos, sin) = (cos.to_contiguous(), sin.to_contiguous());
    let shape = x.layout().shape().clone();
    let [batch, heads, tokens, width] = [shape[0], shape[1], shape[2], shape[3]];
    let (rows, half) = (cos.layout().shape()[0], cos.layout().shape()[3]);
    let (cos, sin) = (values(&cos), values(&sin));
    let input = Heads::of(&x);
    let sign = if inverse { -1.0 } else { 1.0 };
    let out = par_fill(batch * tokens * heads * width, heads * width, |index, out| {
        let (row, token) = (index / tokens, index % tokens);
        let from = (row % rows * tokens + token) * half;
        let (cos, sin) = (&cos[from..][..half], &sin[from..][..half]);
        simd!({
            for head in 0..heads {
                let x = input.token(row, head, token);
                let (first, rest) = x.split_at(half);
                let (second, rest) = rest.split_at(half);
                out.map4([first, second, cos, sin], |[a, b, cos, sin]| a * cos - b * sin * sign);
                out.map4([second, first, cos, sin], |[b, a, cos, sin]| b * cos + a * sin * sign);
                out.copy(rest);
            }
        });
    });
    let stored = Shape::from([batch, tokens, heads, width]);
    tensor(out, stored.clone()).with_layout(Layout::contiguous(stored).transpose(1, 2))
}

impl Rope for Flex {
    fn fused_rope(x: FlexTensor, cos: FlexTensor, sin: FlexTensor) -> FlexTensor {
        rotate(x, &cos, &sin, false)
    }
}

#[derive(Debug)]
struct RopeStep;

impl Backward<Flex, 1> for RopeStep {
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let (cos, sin) = ops.state;
        if let [Some(node)] = ops.parents {
            grads.register::<Flex>(node.id, rotate(grad, &cos, &sin, true));
        }
    }
}

impl<C: CheckpointStrategy> Rope for Autodiff<Flex, C> {
    fn fused_rope(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        match RopeStep.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((cos.clone(), sin.clone()), Flex::fused_rope(x, cos, sin)),
            OpsKind::UnTracked(prep) => prep.finish(Flex::fused_rope(x, cos, sin)),
        }
    }
}
