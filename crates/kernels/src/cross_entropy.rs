//! Cross-entropy of a language model's head without its logits, so that a vocabulary of 262k words never fills the
//! memory. On flex with a frozen head a block of words is at hand at a time; otherwise the logits are formed for a few
//! rows at a time, and each part's gradient is taken while it is there.

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use crate::compute::wide;
use crate::linear;

/// Logits that are held at a time: 128 MB as f32.
const LOGITS: usize = 1 << 25;

/// What follows the last hidden state of a language model.
#[derive(Debug, Clone)]
pub struct LmHead {
    /// `[d_model, vocab]`; a tied embedding is its transposed view.
    pub weight: Tensor<2>,
    /// Logits are `cap·tanh(logits / cap)`, as in Gemma 2.
    pub soft_cap: Option<f64>,
    /// Whether the weight gets a gradient. A frozen one has no buffer for it.
    pub trained: bool,
}

impl LmHead {
    /// The same values outside the graph.
    fn constant(&self) -> Self {
        Self {
            weight: inner(self.weight.clone()),
            ..*self
        }
    }

    /// `[n, d_model]` to `[n, vocab]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let logits = linear(hidden, self.weight.clone(), None);
        match self.soft_cap {
            Some(cap) => logits.div_scalar(cap).tanh().mul_scalar(cap),
            None => logits,
        }
    }
}

/// `-Σ log softmax(head(hidden))[target] / denominator`, a tensor of one value, in f32 where `hidden` is of half
/// precision.
///
/// `hidden`: `[n, d_model]`, `targets`: `[n]`. The gradient of `hidden` is known when the value is; the backward pass
/// only hands it on.
pub fn linear_cross_entropy(hidden: Tensor<2>, head: &LmHead, targets: Tensor<1, Int>, denominator: f64) -> Tensor<1> {
    #[cfg(feature = "flex")]
    if !head.trained && is_fused(&hidden, head) {
        let weight = head.constant().weight;
        let nll = crate::flex::cross_entropy::linear_nll(hidden, weight, targets, head.soft_cap);
        return nll.sum().div_scalar(denominator);
    }
    if !hidden.is_autodiff() {
        return linear_nll(hidden, head, targets).sum().div_scalar(denominator);
    }
    let frozen = head.constant();
    let (rows, labels) = (hidden.clone().inner(), targets.inner());
    let mut losses = Vec::new();
    let mut hidden_grads = Vec::new();
    let mut weight_grad: Option<Tensor<2>> = None;
    for (rows, labels) in chunks(rows, labels, &frozen) {
        let logits = wide(frozen.logits(rows.clone()));
        let (nll, log_total) = nll(logits.clone(), labels.clone());
        losses.push(nll.sum());
        let [n] = labels.dims();
        let minus_one = Tensor::<2>::full([n, 1], -1.0, (&rows.device(), logits.dtype()));
        let grad = (logits.clone() - log_total)
            .exp()
            .scatter(1, labels.reshape([n, 1]), minus_one, IndexingUpdateOp::Add)
            .div_scalar(denominator);
        let grad = match frozen.soft_cap {
            Some(cap) => grad * (logits.div_scalar(cap).square().neg().add_scalar(1.0)),
            None => grad,
        };
        let grad = grad.cast(rows.dtype());
        if head.trained {
            let part = rows.transpose().matmul(grad.clone()).cast(frozen.weight.dtype());
            weight_grad = Some(match weight_grad {
                Some(sum) => sum + part,
                None => part,
            });
        }
        hidden_grads.push(linear(grad, frozen.weight.clone().transpose(), None));
    }
    let value = Tensor::cat(losses, 0).sum().div_scalar(denominator);
    // A linear function whose gradient is the known one and whose value is 0.
    // Summed in f32: what overflows is no longer 0 after the subtraction.
    let carrier = (wide(hidden) * wide(Tensor::cat(hidden_grads, 0))).sum();
    let carrier = match weight_grad {
        Some(grad) => {
            let dtype = carrier.dtype();
            carrier + (wide(head.weight.clone()) * wide(grad)).sum().cast(dtype)
        }
        None => carrier,
    };
    carrier.clone() - carrier.detach() + value
}

/// `-log softmax(head(hidden))[target]` of each row, `[n]`, without gradient, in f32 where `hidden` is of half precision.
///
/// `hidden`: `[n, d_model]`, `targets`: `[n]`.
pub fn linear_nll(hidden: Tensor<2>, head: &LmHead, targets: Tensor<1, Int>) -> Tensor<1> {
    let head = head.constant();
    let hidden = inner(hidden);
    let targets = if targets.is_autodiff() {
        targets.inner()
    } else {
        targets
    };
    #[cfg(feature = "flex")]
    if is_fused(&hidden, &head) {
        return crate::flex::cross_entropy::linear_nll(hidden, head.weight, targets, head.soft_cap);
    }
    let parts = chunks(hidden, targets, &head).map(|(rows, labels)| nll(wide(head.logits(rows)), labels).0);
    Tensor::cat(parts.collect(), 0)
}

#[cfg(feature = "flex")]
fn is_fused(hidden: &Tensor<2>, head: &LmHead) -> bool {
    crate::flex::takes(hidden) && crate::flex::takes_weight(&head.weight) && head.weight.dtype().is_float()
}

fn inner<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.is_autodiff() { tensor.inner() } else { tensor }
}

/// (`-log p` of the labels `[n]`, the logarithm of the sum of all exponentials `[n, 1]`).
fn nll(logits: Tensor<2>, labels: Tensor<1, Int>) -> (Tensor<1>, Tensor<2>) {
    let [n, _] = logits.dims();
    let greatest = logits.clone().max_dim(1);
    let log_total = (logits.clone() - greatest.clone()).exp().sum_dim(1).log() + greatest;
    let of_label = logits.gather(1, labels.reshape([n, 1]));
    ((log_total.clone() - of_label).reshape([n]), log_total)
}

/// Rows and labels, so many at a time that their logits fit [`LOGITS`].
fn chunks(rows: Tensor<2>, labels: Tensor<1, Int>, head: &LmHead) -> impl Iterator<Item = (Tensor<2>, Tensor<1, Int>)> {
    let [n, _] = rows.dims();
    let [_, vocab] = head.weight.dims();
    let step = (LOGITS / vocab).max(1);
    (0..n).step_by(step).map(move |from| {
        let part = from..n.min(from + step);
        let rows = rows.clone().slice([part.clone()]);
        (rows, labels.clone().slice([part]))
    })
}
