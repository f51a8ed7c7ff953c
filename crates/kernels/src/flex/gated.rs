//! See [`crate::gated()`].

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;

use super::math::exp_of_negative;
use super::memory::{par_fill, par_fill_many};
use super::simd::simd;
use super::{tensor, values};
use crate::gate::Gate;

/// Elements per task.
const CHUNK: usize = 1 << 13;

/// See [`crate::gated()`].
pub fn gated<const D: usize>(gate: Tensor<D>, up: Tensor<D>, act: Gate) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Gated>::fused_gated(
        gate.into_dispatch(),
        up.into_dispatch(),
        act,
    ))
}

/// `σ(x)`, absolute error below 3e-7.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    let e = exp_of_negative(-x.abs());
    let small = e / (1.0 + e);
    if x < 0.0 { small } else { 1.0 - small }
}

/// (value, derivative). The tanh form of GELU is `x·σ(2·√(2/π)·(x + 0.044715·x³))`.
#[inline(always)]
fn activate(act: Gate, x: f32) -> (f32, f32) {
    const TWICE: f32 = 1.595_769;
    const CUBE: f32 = 0.044_715;
    let (inner, slope) = match act {
        Gate::Silu => (x, 1.0),
        Gate::GeluTanh => (TWICE * x * (1.0 + CUBE * x * x), TWICE * (1.0 + 3.0 * CUBE * x * x)),
    };
    let share = sigmoid(inner);
    (x * share, share + x * slope * share * (1.0 - share))
}

/// Gated activations of f32 tensors.
#[backend_extension(Flex, Autodiff)]
pub trait Gated: Backend {
    /// `act(gate)·up`
    fn fused_gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, act: Gate) -> FloatTensor<Self>;
}

impl Gated for Flex {
    fn fused_gated(gate: FlexTensor, up: FlexTensor, act: Gate) -> FlexTensor {
        let (gate, up) = (gate.to_contiguous(), up.to_contiguous());
        let (gates, ups) = (values(&gate), values(&up));
        let out = par_fill(gates.len(), CHUNK, |index, out| {
            let part = index * CHUNK..index * CHUNK + out.capacity();
            let (gates, ups) = (&gates[part.clone()], &ups[part]);
            // Branch outside the loop.
            simd!({
                match act {
                    Gate::Silu => out.map2(
                        gates,
                        ups,
                        #[inline(always)]
                        |gate, up| activate(Gate::Silu, gate).0 * up,
                    ),
                    Gate::GeluTanh => out.map2(
                        gates,
                        ups,
                        #[inline(always)]
                        |gate, up| activate(Gate::GeluTanh, gate).0 * up,
                    ),
                }
            });
        });
        tensor(out, gate.layout().shape().clone())
    }
}

/// Gradients of gate and up.
fn grads(gate: &FlexTensor, up: &FlexTensor, grad: &FlexTensor, act: Gate) -> [FlexTensor; 2] {
    let [gate, up, grad] = [gate, up, grad].map(FlexTensor::to_contiguous);
    let (gates, ups, grads) = (values(&gate), values(&up), values(&grad));
    let parts = par_fill_many([gates.len(); 2], [CHUNK; 2], |index, [of_gate, of_up]| {
        let part = index * CHUNK..index * CHUNK + of_gate.capacity();
        let (gates, ups, grads) = (&gates[part.clone()], &ups[part.clone()], &grads[part]);
        simd!({
            match act {
                Gate::Silu => {
                    of_gate.map3(
                        gates,
                        ups,
                        grads,
                        #[inline(always)]
                        |gate, up, grad| grad * up * activate(Gate::Silu, gate).1,
                    );
                    of_up.map2(
                        gates,
                        grads,
                        #[inline(always)]
                        |gate, grad| grad * activate(Gate::Silu, gate).0,
                    );
                }
                Gate::GeluTanh => {
                    of_gate.map3(
                        gates,
                        ups,
                        grads,
                        #[inline(always)]
                        |gate, up, grad| grad * up * activate(Gate::GeluTanh, gate).1,
                    );
                    of_up.map2(
                        gates,
                        grads,
                        #[inline(always)]
                        |gate, grad| grad * activate(Gate::GeluTanh, gate).0,
                    );
                }
            }
        });
    });
    parts.map(|part| tensor(part, gate.layout().shape().clone()))
}

#[derive(Debug)]
struct GatedStep;

impl Backward<Flex, 2> for GatedStep {
    type State = (FlexTensor, FlexTensor, Gate);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = gradients.consume::<Flex>(&ops.node);
        let (gate, up, act) = ops.state;
        for (parent, grad) in ops.parents.into_iter().zip(grads(&gate, &up, &grad, act)) {
            if let Some(node) = parent {
                gradients.register::<Flex>(node.id, grad);
            }
        }
    }
}

impl<C: CheckpointStrategy> Gated for Autodiff<Flex, C> {
    fn fused_gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, act: Gate) -> FloatTensor<Self> {
        let nodes = [gate.node(), up.node()];
        let (gate, up) = (gate.into_primitive(), up.into_primitive());
        match GatedStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((gate.clone(), up.clone(), act), Flex::fused_gated(gate, up, act)),
            OpsKind::UnTracked(prep) => prep.finish(Flex::fused_gated(gate, up, act)),
        }
    }
}
