//! See [`crate::gelu()`].

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;

use super::math::cdf_and_gaussian;
use super::memory::par_fill;
use super::simd::simd;
use super::{tensor, values};

/// Elements per task: enough to pay for starting it, few enough to stay in the cache.
const CHUNK: usize = 1 << 13;

/// See [`crate::gelu()`].
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Activations>::fused_gelu(x.into_dispatch()))
}

/// `d/dx x·Φ(x)`
#[inline(always)]
pub fn gelu_derivative(x: f32) -> f32 {
    const INV_SQRT_2PI: f32 = 0.398_942_3;
    let (cdf, gaussian) = cdf_and_gaussian(x);
    cdf + x * INV_SQRT_2PI * gaussian
}

/// Activations of f32 tensors.
#[backend_extension(Flex, Autodiff)]
pub trait Activations: Backend {
    /// `x·Φ(x)`
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl Activations for Flex {
    fn fused_gelu(x: FlexTensor) -> FlexTensor {
        let x = x.to_contiguous();
        let input = values(&x);
        let out = par_fill(input.len(), CHUNK, |index, out| {
            let part = &input[index * CHUNK..][..out.capacity()];
            simd!({
                out.map(
                    part,
                    #[inline(always)]
                    |x| x * cdf_and_gaussian(x).0,
                )
            });
        });
        tensor(out, x.layout().shape().clone())
    }
}

/// `grad · gelu'(x)`
pub fn gelu_grad(x: &FlexTensor, grad: &FlexTensor) -> FlexTensor {
    let (x, grad) = (x.to_contiguous(), grad.to_contiguous());
    let (input, slope) = (values(&x), values(&grad));
    let out = par_fill(input.len(), CHUNK, |index, out| {
        let part = index * CHUNK..index * CHUNK + out.capacity();
        simd!({
            out.map2(
                &input[part.clone()],
                &slope[part.clone()],
                #[inline(always)]
                |x, grad| grad * gelu_derivative(x),
            )
        });
    });
    tensor(out, x.layout().shape().clone())
}

#[derive(Debug)]
struct GeluStep;

impl Backward<Flex, 1> for GeluStep {
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        unary::<Flex, _>(ops.parents, ops.node, grads, |grad| gelu_grad(&ops.state, &grad));
    }
}

impl<C: CheckpointStrategy> Activations for Autodiff<Flex, C> {
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        match GeluStep.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(x.clone(), Flex::fused_gelu(x)),
            OpsKind::UnTracked(prep) => prep.finish(Flex::fused_gelu(x)),
        }
    }
}
