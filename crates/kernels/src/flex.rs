//! The flex backend's side: registration through Burn's backend extension, backward passes, and the loops.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::ops::ActivationOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, DispatchDevice, Flex, backend_extension};
use burn::tensor::{Bytes, DType, Tensor};
use rayon::prelude::*;

use crate::normal::cdf_and_bell;

/// Values that one task works on: large enough to pay for its start, small enough for the cache.
const CHUNK: usize = 1 << 13;

/// True if `x` lives on flex as f32.
pub fn takes<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && matches!(x.device().inner().as_dispatch(), DispatchDevice::Flex(_))
}

/// See [`crate::gelu()`].
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Activations>::fused_gelu(x.into_dispatch()))
}

/// Activations of f32 tensors.
#[backend_extension(Flex, Autodiff)]
pub trait Activations: Backend {
    /// `x·Φ(x)`
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    /// Gradient of [`Activations::fused_gelu`] at `x`, times `grad`.
    fn fused_gelu_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl Activations for Flex {
    fn fused_gelu(x: FlexTensor) -> FlexTensor {
        let x = x.to_contiguous();
        map(&[values(&x)], &x, |[x], out| {
            for (out, x) in out.iter_mut().zip(x) {
                *out = x * cdf_and_bell(*x).0;
            }
        })
    }

    fn fused_gelu_backward(x: FlexTensor, grad: FlexTensor) -> FlexTensor {
        const INV_SQRT_2PI: f32 = 0.398_942_3;
        let (x, grad) = (x.to_contiguous(), grad.to_contiguous());
        map(&[values(&x), values(&grad)], &x, |[x, grad], out| {
            for ((out, x), grad) in out.iter_mut().zip(x).zip(grad) {
                let (cdf, bell) = cdf_and_bell(*x);
                *out = grad * (cdf + x * INV_SQRT_2PI * bell);
            }
        })
    }
}

impl<B: Activations, C: CheckpointStrategy> Activations for Autodiff<B, C> {
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Gelu;

        impl<B: Activations> Backward<B, 1> for Gelu {
            type State = NodeId;

            fn backward(self, ops: Ops<NodeId, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
                let x: FloatTensor<B> = checkpointer.retrieve_node_output(ops.state);
                unary::<B, _>(ops.parents, ops.node, grads, |grad| B::fused_gelu_backward(x, grad));
            }
        }

        match Gelu.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = prep.checkpoint(&x);
                prep.finish(state, B::fused_gelu(x.primitive().clone()))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::fused_gelu(x.into_primitive())),
        }
    }

    // Reached by second derivatives only: Burn's own is made of operations that have a gradient.
    fn fused_gelu_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::gelu_backward(x, grad)
    }
}

fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("the caller made it contiguous f32")
}

/// A new tensor of the shape of `like`, made by `task` chunk by chunk on all cores with the best instruction set.
fn map<const N: usize>(
    inputs: &[&[f32]; N],
    like: &FlexTensor,
    task: impl Fn([&[f32]; N], &mut [f32]) + Sync,
) -> FlexTensor {
    let arch = pulp::Arch::new();
    let mut out = vec![0.0f32; inputs[0].len()];
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(index, out)| {
        let from = index * CHUNK;
        let parts = inputs.map(|input| &input[from..from + out.len()]);
        arch.dispatch(|| task(parts, out));
    });
    FlexTensor::new(
        Bytes::from_elems(out),
        Layout::contiguous(like.layout().shape().clone()),
        DType::F32,
    )
}
