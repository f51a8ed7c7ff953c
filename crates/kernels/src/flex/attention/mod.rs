//! See [`crate::attention()`].

mod backward;
mod decode;
mod forward;
mod tiles;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Shape, Tensor};

use super::heads::{Heads, row_contiguous};
use super::tensor;
use crate::attention_options::AttentionOptions;
use tiles::{Inputs, Problem};

/// See [`crate::attention()`].
pub fn attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, options: AttentionOptions) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as Attention>::attention_of_heads(
        query.into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        options,
    ))
}

/// See [`crate::attention_qkv()`].
pub fn attention_qkv(qkv: Tensor<3>, heads: usize, queries: usize, options: AttentionOptions) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as Attention>::attention_of_fused(
        qkv.into_dispatch(),
        heads,
        queries,
        options,
    ))
}

/// Attention of f32 tensors.
#[backend_extension(Flex, Autodiff)]
pub trait Attention: Backend {
    /// See [`crate::attention()`].
    fn attention_of_heads(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        options: AttentionOptions,
    ) -> FloatTensor<Self>;
    /// See [`crate::attention_qkv()`].
    fn attention_of_fused(
        qkv: FloatTensor<Self>,
        heads: usize,
        queries: usize,
        options: AttentionOptions,
    ) -> FloatTensor<Self>;
}

impl Attention for Flex {
    fn attention_of_heads(
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        options: AttentionOptions,
    ) -> FlexTensor {
        let state = Separate::new(query, key, value, options);
        let (out, _) = forward::attend(&state.inputs(), &state.problem);
        state.problem.out(out)
    }

    fn attention_of_fused(qkv: FlexTensor, heads: usize, queries: usize, options: AttentionOptions) -> FlexTensor {
        let state = Fused::new(qkv, heads, queries, options);
        let (out, _) = forward::attend(&state.inputs(), &state.problem);
        tensor(out, state.out_shape())
    }
}

/// Saved for backward in addition to the inputs.
#[derive(Debug, Clone)]
struct Outcome {
    /// `[batch, queries, heads, width]`
    out: FlexTensor,
    /// Logsumexp of each query's scores, `[batch, queries, heads]`.
    logsumexp: FlexTensor,
}

impl Outcome {
    fn new(out: Vec<f32>, logsumexp: Vec<f32>) -> Self {
        let shape = |values: &[f32]| Shape::from([values.len()]);
        let (out_shape, log_shape) = (shape(&out), shape(&logsumexp));
        Self {
            out: tensor(out, out_shape),
            logsumexp: tensor(logsumexp, log_shape),
        }
    }
}

/// Separate query, key and value, `[batch, heads, tokens, width]` each.
#[derive(Debug, Clone)]
struct Separate {
    query: FlexTensor,
    key: FlexTensor,
    value: FlexTensor,
    problem: Problem,
}

impl Separate {
    fn new(query: FlexTensor, key: FlexTensor, value: FlexTensor, options: AttentionOptions) -> Self {
        let [q, k] = [&query, &key].map(|x| x.layout().shape().clone());
        assert_eq!(k, *value.layout().shape(), "key and value differ in shape");
        assert!(
            q[0] == k[0] && q[3] == k[3] && q[1].is_multiple_of(k[1]),
            "query {q:?} and key {k:?} do not fit"
        );
        let problem = Problem {
            batch: q[0],
            heads: q[1],
            kv_heads: k[1],
            queries: q[2],
            keys: k[2],
            width: q[3],
            options,
        };
        Self {
            query: row_contiguous(query),
            key: row_contiguous(key),
            value: row_contiguous(value),
            problem,
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            query: Heads::of(&self.query),
            key: Heads::of(&self.key),
            value: Heads::of(&self.value),
        }
    }
}

/// A fused tensor of queries, keys and values, `[batch, tokens, 3·heads·width]`.
#[derive(Debug, Clone)]
struct Fused {
    qkv: FlexTensor,
    problem: Problem,
}

impl Fused {
    fn new(qkv: FlexTensor, heads: usize, queries: usize, options: AttentionOptions) -> Self {
        let shape = qkv.layout().shape().clone();
        assert!(
            heads > 0 && shape[2].is_multiple_of(3 * heads),
            "{heads} heads do not divide a third of {}",
            shape[2]
        );
        let problem = Problem {
            batch: shape[0],
            heads,
            kv_heads: heads,
            queries,
            keys: shape[1],
            width: shape[2] / 3 / heads,
            options,
        };
        Self {
            qkv: qkv.to_contiguous(),
            problem,
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        let Problem { heads, width, keys, .. } = self.problem;
        let part = |index: usize| Heads::fused(super::values(&self.qkv), index, heads, width, keys);
        Inputs {
            query: part(0),
            key: part(1),
            value: part(2),
        }
    }

    fn out_shape(&self) -> Shape {
        let Problem {
            batch,
            queries,
            heads,
            width,
            ..
        } = self.problem;
        Shape::from([batch, queries, heads * width])
    }
}

impl Problem {
    /// An output `[batch, queries, heads, width]`, viewed as `[batch, heads, queries, width]`.
    fn out(&self, values: Vec<f32>) -> FlexTensor {
        self.view(values, self.queries, self.heads)
    }

    /// A buffer `[batch, tokens, heads, width]`, viewed as `[batch, heads, tokens, width]`.
    fn view(&self, values: Vec<f32>, tokens: usize, heads: usize) -> FlexTensor {
        let stored = Shape::from([self.batch, tokens, heads, self.width]);
        let values = tensor(values, stored.clone());
        values.with_layout(Layout::contiguous(stored).transpose(1, 2))
    }
}

#[derive(Debug)]
struct SeparateStep;

impl Backward<Flex, 3> for SeparateStep {
    type State = (Separate, Outcome);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = row_contiguous(grads.consume::<Flex>(&ops.node));
        let (state, outcome) = ops.state;
        let problem = &state.problem;
        let [query, key, value] = backward::separate(&state.inputs(), problem, &outcome, Heads::of(&grad));
        let parts = [
            problem.view(query, problem.queries, problem.heads),
            problem.view(key, problem.keys, problem.kv_heads),
            problem.view(value, problem.keys, problem.kv_heads),
        ];
        for (parent, grad) in ops.parents.into_iter().zip(parts) {
            if let Some(node) = parent {
                grads.register::<Flex>(node.id, grad);
            }
        }
    }
}

#[derive(Debug)]
struct FusedStep;

impl Backward<Flex, 1> for FusedStep {
    type State = (Fused, Outcome);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node).to_contiguous();
        let (state, outcome) = ops.state;
        let problem = &state.problem;
        let visible = Heads::contiguous(super::values(&grad), problem.heads, problem.width, problem.queries);
        let qkv = backward::fused(&state.inputs(), problem, &outcome, visible);
        if let [Some(node)] = ops.parents {
            grads.register::<Flex>(node.id, tensor(qkv, state.qkv.layout().shape().clone()));
        }
    }
}

impl<C: CheckpointStrategy> Attention for Autodiff<Flex, C> {
    fn attention_of_heads(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        options: AttentionOptions,
    ) -> FloatTensor<Self> {
        let nodes = [query.node(), key.node(), value.node()];
        let state = Separate::new(
            query.into_primitive(),
            key.into_primitive(),
            value.into_primitive(),
            options,
        );
        let (out, logsumexp) = forward::attend(&state.inputs(), &state.problem);
        match SeparateStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let outcome = Outcome::new(out, logsumexp);
                let problem = &state.problem;
                let stored = Shape::from([problem.batch, problem.queries, problem.heads, problem.width]);
                let visible = Layout::contiguous(stored).transpose(1, 2);
                let out = outcome.out.clone().with_layout(visible);
                prep.finish((state, outcome), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(state.problem.out(out)),
        }
    }

    fn attention_of_fused(
        qkv: FloatTensor<Self>,
        heads: usize,
        queries: usize,
        options: AttentionOptions,
    ) -> FloatTensor<Self> {
        let (qkv, node) = qkv.into_parts();
        let state = Fused::new(qkv, heads, queries, options);
        let (out, logsumexp) = forward::attend(&state.inputs(), &state.problem);
        match FusedStep.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let outcome = Outcome::new(out, logsumexp);
                let out = outcome.out.clone().with_layout(Layout::contiguous(state.out_shape()));
                prep.finish((state, outcome), out)
            }
            OpsKind::UnTracked(prep) => {
                let shape = state.out_shape();
                prep.finish(tensor(out, shape))
            }
        }
    }
}
