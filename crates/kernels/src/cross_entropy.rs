//! Cross-entropy of a language model's head without materializing the logits, so that a vocabulary of 262k tokens never fills
//! memory. On flex with a frozen head, one block of the vocabulary is processed at a time; otherwise the logits are computed
//! for a few rows at a time, and the gradient of each chunk is taken before the next one.

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use crate::dtype::upcast;
use crate::linear;
use crate::operands::Operands;

/// The target of a row to ignore: its loss and its gradient are 0.
pub const IGNORE_INDEX: i64 = -100;

/// Logits held at a time: 128 MB as f32.
const LOGITS: usize = 1 << 25;

/// The output head of a language model.
#[derive(Debug, Clone)]
pub struct LmHead {
    /// `[d_model, vocab]`; for a tied embedding, its transposed view.
    pub weight: Tensor<2>,
    /// Logits are `cap·tanh(logits / cap)`, as in Gemma 2.
    pub softcap: Option<f64>,
    /// Whether the weight receives a gradient. A frozen weight gets no buffer for it.
    pub trained: bool,
}

impl LmHead {
    /// The same head outside the autodiff graph.
    fn constant(&self) -> Self {
        Self {
            weight: inner(self.weight.clone()),
            ..*self
        }
    }

    /// `[n, d_model]` to `[n, vocab]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let logits = linear(hidden, self.weight.clone(), None);
        match self.softcap {
            Some(cap) => logits.div_scalar(cap).tanh().mul_scalar(cap),
            None => logits,
        }
    }
}

/// `-Σ log softmax(head(hidden))[target] / denominator`, a tensor with one element; f32 if `hidden` is half precision.
///
/// `hidden`: `[n, d_model]`, `targets`: `[n]`, token ids or [`IGNORE_INDEX`]. Ignored rows add nothing; leaving them out of
/// `denominator` is up to the caller. The gradient of `hidden` is computed together with the loss; the backward pass only
/// passes it on.
///
/// # Panics
/// Shapes that do not match; operands on different devices; a quantized head with `trained`; on flex, a target outside the
/// vocabulary (other backends do not check, since that would synchronize with the device).
#[track_caller]
pub fn linear_cross_entropy(hidden: Tensor<2>, head: &LmHead, targets: Tensor<1, Int>, denominator: f64) -> Tensor<1> {
    check("linear_cross_entropy", &hidden, head, &targets).require(
        !head.trained || head.weight.dtype().is_float(),
        || {
            format!(
                "`head.weight` is trained and has dtype {:?}; expected a float dtype",
                head.weight.dtype()
            )
        },
    );
    if hidden.dims()[0] == 0 {
        return upcast(hidden).sum();
    }
    #[cfg(feature = "flex")]
    if !head.trained && is_fused(&hidden, head) {
        let weight = head.constant().weight;
        let nll = crate::flex::cross_entropy::linear_nll(hidden, weight, targets, head.softcap);
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
        let logits = upcast(frozen.logits(rows.clone()));
        let ignored = labels.clone().equal_elem(IGNORE_INDEX);
        let labels = labels.mask_fill(ignored.clone(), 0);
        let (nll, logsumexp) = nll(logits.clone(), labels.clone());
        losses.push(nll.mask_fill(ignored.clone(), 0.0).sum());
        let ([n], [_, vocab]) = (labels.dims(), logits.dims());
        let minus_one = Tensor::<2>::full([n, 1], -1.0, (&rows.device(), logits.dtype()));
        let grad = (logits.clone() - logsumexp)
            .exp()
            .scatter(1, labels.reshape([n, 1]), minus_one, IndexingUpdateOp::Add)
            .div_scalar(denominator);
        let grad = match frozen.softcap {
            Some(cap) => grad * (logits.div_scalar(cap).square().neg().add_scalar(1.0)),
            None => grad,
        };
        let grad = grad
            .mask_fill(ignored.reshape([n, 1]).expand([n, vocab]), 0.0)
            .cast(rows.dtype());
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
    // A linear function with the known gradient and the value 0.
    // Summed in f32: if it overflowed, the difference below would not be 0.
    let carrier = (upcast(hidden) * upcast(Tensor::cat(hidden_grads, 0))).sum();
    let carrier = match weight_grad {
        Some(grad) => {
            let dtype = carrier.dtype();
            carrier + (upcast(head.weight.clone()) * upcast(grad)).sum().cast(dtype)
        }
        None => carrier,
    };
    carrier.clone() - carrier.detach() + value
}

/// `-log softmax(head(hidden))[target]` of each row, `[n]`, without gradient; f32 if `hidden` is half precision.
///
/// `hidden`: `[n, d_model]`, `targets`: `[n]`, token ids or [`IGNORE_INDEX`], which gives 0.
///
/// # Panics
/// As [`linear_cross_entropy`].
#[track_caller]
pub fn linear_nll(hidden: Tensor<2>, head: &LmHead, targets: Tensor<1, Int>) -> Tensor<1> {
    check("linear_nll", &hidden, head, &targets);
    if hidden.dims()[0] == 0 {
        let dtype = upcast(hidden.clone()).dtype();
        return Tensor::zeros([0], (&hidden.device().inner(), dtype));
    }
    let head = head.constant();
    let hidden = inner(hidden);
    let targets = if targets.is_autodiff() {
        targets.inner()
    } else {
        targets
    };
    #[cfg(feature = "flex")]
    if is_fused(&hidden, &head) {
        return crate::flex::cross_entropy::linear_nll(hidden, head.weight, targets, head.softcap);
    }
    let parts = chunks(hidden, targets, &head).map(|(rows, labels)| {
        let ignored = labels.clone().equal_elem(IGNORE_INDEX);
        let labels = labels.mask_fill(ignored.clone(), 0);
        nll(upcast(head.logits(rows)), labels).0.mask_fill(ignored, 0.0)
    });
    Tensor::cat(parts.collect(), 0)
}

#[track_caller]
fn check(operation: &'static str, hidden: &Tensor<2>, head: &LmHead, targets: &Tensor<1, Int>) -> Operands {
    let operands = Operands::of(operation, "hidden", hidden);
    let ([n, d_model], [_, vocab]) = (hidden.dims(), head.weight.dims());
    operands
        .weight("head.weight", &head.weight)
        .shape(
            "head.weight",
            &head.weight.dims(),
            &[d_model, vocab],
            "[d_model, vocab]",
        )
        .require(vocab > 0, || {
            "`head.weight` has no columns; expected a vocabulary".to_string()
        })
        .on_device("targets", &targets.device())
        .shape("targets", &targets.dims(), &[n], "[n]");
    #[cfg(feature = "flex")]
    if crate::flex::is_flex(&targets.device()) {
        for (row, target) in targets.to_data().iter::<i64>().enumerate() {
            operands.require(target == IGNORE_INDEX || (0..vocab as i64).contains(&target), || {
                format!("target {target} of row {row}; expected a token id below {vocab}, or {IGNORE_INDEX} to ignore the row")
            });
        }
    }
    operands
}

#[cfg(feature = "flex")]
fn is_fused(hidden: &Tensor<2>, head: &LmHead) -> bool {
    crate::flex::supports(hidden) && crate::flex::supports_weight(&head.weight) && head.weight.dtype().is_float()
}

fn inner<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.is_autodiff() { tensor.inner() } else { tensor }
}

/// (`-log p` of the labels `[n]`, logsumexp of the logits `[n, 1]`).
fn nll(logits: Tensor<2>, labels: Tensor<1, Int>) -> (Tensor<1>, Tensor<2>) {
    let [n, _] = logits.dims();
    let maximum = logits.clone().max_dim(1);
    let logsumexp = (logits.clone() - maximum.clone()).exp().sum_dim(1).log() + maximum;
    let of_label = logits.gather(1, labels.reshape([n, 1]));
    ((logsumexp.clone() - of_label).reshape([n]), logsumexp)
}

/// Rows and labels in chunks whose logits fit [`LOGITS`].
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
