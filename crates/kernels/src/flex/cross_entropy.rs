//! See [`crate::linear_nll()`]: head, softmax and their gradient, one block of the vocabulary at a time. As in attention,
//! running sums are rescaled when a larger logit appears, so no logits are stored: each block leaves only its contribution
//! to `Σ p·w`, which the gradient needs.

use std::ops::Range;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Int, IntDType, Shape, Tensor};
use rayon::prelude::*;

use super::gemm::{Cores, Mat, product};
use super::lanes::{dot, max, replace_and_sum};
use super::math::{exp_of_negative, tanh};
use super::memory::par_fill;
use super::simd::simd;
use super::weight::{Weight, WeightView};
use super::{rows, tensor, values};
use crate::IGNORE_INDEX;

/// Most rows per task.
const ROWS: usize = 256;
/// Tokens of the vocabulary per block: the logits of a task's rows for one block fit the L2 cache.
const TOKENS: usize = 256;
/// Fewest tasks, if the vocabulary is large enough: an even number, for two cores.
const TASKS: usize = 8;

/// `-log softmax(head(hidden))[target]` of each row, `[n]`; the gradient goes to `hidden` alone.
pub fn linear_nll(hidden: Tensor<2>, weight: Tensor<2>, targets: Tensor<1, Int>, softcap: Option<f64>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as CrossEntropy>::fused_nll(
        hidden.into_dispatch(),
        weight.into_dispatch(),
        targets.cast(IntDType::I64).into_dispatch(),
        softcap,
    ))
}

/// Cross-entropy of f32 rows with a frozen head.
#[backend_extension(Flex, Autodiff)]
pub trait CrossEntropy: Backend {
    /// `hidden`: `[n, d_model]`, `weight`: `[d_model, vocab]`, `targets`: `[n]`; result `[n]`.
    fn fused_nll(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        softcap: Option<f64>,
    ) -> FloatTensor<Self>;
}

impl CrossEntropy for Flex {
    fn fused_nll(hidden: FlexTensor, weight: FlexTensor, targets: FlexTensor, softcap: Option<f64>) -> FlexTensor {
        Problem::new(hidden, weight, targets, softcap).solve(false).0
    }
}

impl<C: CheckpointStrategy> CrossEntropy for Autodiff<Flex, C> {
    fn fused_nll(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: FlexTensor,
        softcap: Option<f64>,
    ) -> FloatTensor<Self> {
        let (hidden, node) = hidden.into_parts();
        let problem = Problem::new(hidden, weight.into_primitive(), targets, softcap);
        match NllStep.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (nll, slope) = problem.solve(true);
                prep.finish(slope, nll)
            }
            OpsKind::UnTracked(prep) => prep.finish(problem.solve(false).0),
        }
    }
}

#[derive(Debug)]
struct NllStep;

impl Backward<Flex, 1> for NllStep {
    /// The gradient of each row's loss, `[n, d_model]`.
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        unary::<Flex, _>(ops.parents, ops.node, grads, |grad| {
            let grad = grad.to_contiguous();
            let (grad, slope) = (values(&grad), values(&ops.state));
            let [_, width] = rows(&ops.state);
            let out = par_fill(slope.len(), width * ROWS, |index, out| {
                let count = out.capacity() / width;
                for row in index * ROWS..index * ROWS + count {
                    out.map(&slope[row * width..][..width], |slope| slope * grad[row]);
                }
            });
            tensor(out, ops.state.layout().shape().clone())
        });
    }
}

/// Hidden states, head and targets.
struct Problem {
    /// `[n, d_model]`
    hidden: FlexTensor,
    /// `[d_model, vocab]`
    weight: Weight,
    /// `[n]`
    targets: FlexTensor,
    softcap: Option<f32>,
}

/// Running sums of some rows over a part of the vocabulary.
struct Sums {
    /// Maximum logit of each row.
    maximum: Vec<f32>,
    /// Σ exp(logit - maximum) of each row.
    total: Vec<f32>,
    /// Σ exp(logit - maximum)·slope·w of each row, `[rows, d_model]`; empty without gradient.
    mean: Vec<f32>,
}

impl Problem {
    fn new(hidden: FlexTensor, weight: FlexTensor, targets: FlexTensor, softcap: Option<f64>) -> Self {
        Self {
            hidden: hidden.to_contiguous(),
            weight: Weight::float(weight),
            targets: targets.to_contiguous(),
            softcap: softcap.map(|cap| cap as f32),
        }
    }

    /// (loss of each row `[n]`, its gradient `[n, d_model]`; the latter is empty without `slope`).
    fn solve(&self, slope: bool) -> (FlexTensor, FlexTensor) {
        let [n, width] = rows(&self.hidden);
        let weight = self.weight.view();
        let hidden = values(&self.hidden);
        let targets: &[i64] = self.targets.as_slice().expect("made contiguous i64");
        let [_, vocab] = weight.size();
        let tiles = even_ranges(n, ROWS);
        let groups = TASKS.div_ceil(tiles.len().max(1));
        let groups = even_ranges(vocab, vocab.div_ceil(groups).next_multiple_of(TOKENS));
        let sums: Vec<Sums> = (0..tiles.len() * groups.len())
            .into_par_iter()
            .map(|task| {
                let tile = &tiles[task / groups.len()];
                let rows = Mat::rows(&hidden[tile.start * width..tile.end * width], [tile.len(), width]);
                self.sums(&weight, rows, &groups[task % groups.len()], slope)
            })
            .collect();
        let mut nll = Vec::with_capacity(n);
        let mut slopes = vec![0.0; if slope { n * width } else { 0 }];
        let mut column = vec![0.0; width];
        let mut scratch = Vec::new();
        for (tile, sums) in tiles.iter().zip(sums.chunks_exact(groups.len().max(1))) {
            for (index, row) in tile.clone().enumerate() {
                if targets[row] == IGNORE_INDEX {
                    nll.push(0.0);
                    continue;
                }
                let maximum = sums.iter().map(|sums| sums.maximum[index]);
                let maximum = maximum.fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
                let factor = |sums: &Sums| exp_of_negative(sums.maximum[index] - maximum);
                let total: f32 = sums.iter().map(|sums| sums.total[index] * factor(sums)).sum();
                let target = weight.block([0, targets[row] as usize], [width, 1], &mut scratch);
                target.copy_column(&mut column);
                let (logit, target_slope) = self.capped(dot(&hidden[row * width..][..width], &column));
                nll.push(maximum + total.ln() - logit);
                if slope {
                    let slopes = &mut slopes[row * width..][..width];
                    for sums in sums {
                        let factor = factor(sums) / total;
                        for (slope, mean) in slopes.iter_mut().zip(&sums.mean[index * width..][..width]) {
                            *slope += factor * mean;
                        }
                    }
                    for (slope, column) in slopes.iter_mut().zip(&column) {
                        *slope -= target_slope * column;
                    }
                }
            }
        }
        let shape = [slopes.len() / width.max(1), width];
        (tensor(nll, Shape::from([n])), tensor(slopes, Shape::from(shape)))
    }

    /// (soft-capped logit, derivative of the cap).
    #[inline(always)]
    fn capped(&self, logit: f32) -> (f32, f32) {
        match self.softcap {
            Some(cap) => {
                let share = tanh(logit / cap);
                (cap * share, 1.0 - share * share)
            }
            None => (logit, 1.0),
        }
    }

    fn sums(&self, weight: &WeightView, rows: Mat, tokens: &Range<usize>, slope: bool) -> Sums {
        let [count, width] = rows.size();
        let mut sums = Sums {
            maximum: vec![f32::NEG_INFINITY; count],
            total: vec![0.0; count],
            mean: vec![0.0; if slope { count * width } else { 0 }],
        };
        let (mut logits, mut slopes, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
        for from in tokens.clone().step_by(TOKENS) {
            let len = TOKENS.min(tokens.end - from);
            let block = weight.block([0, from], [width, len], &mut scratch);
            logits.resize(count * len, 0.0);
            product(&mut logits, len, rows, block, 1.0, false, Cores::One);
            simd!({
                if self.softcap.is_some() {
                    slopes.resize(count * len, 0.0);
                    for (logit, slope) in logits.iter_mut().zip(&mut slopes) {
                        (*logit, *slope) = self.capped(*logit);
                    }
                }
                for (row, logits) in logits.chunks_exact_mut(len).enumerate() {
                    let mean = if slope { row * width..(row + 1) * width } else { 0..0 };
                    sums.add(row, logits, mean);
                }
                if slope && self.softcap.is_some() {
                    for (share, slope) in logits.iter_mut().zip(&slopes) {
                        *share *= slope;
                    }
                }
            });
            if slope {
                let shares = Mat::rows(&logits, [count, len]);
                product(&mut sums.mean, width, shares, block.t(), 1.0, true, Cores::One);
            }
        }
        sums
    }
}

impl Sums {
    /// Adds the logits of one row and replaces them by exp(logit - maximum); `mean`: the row's range in [`Sums::mean`].
    #[inline(always)]
    fn add(&mut self, row: usize, logits: &mut [f32], mean: Range<usize>) {
        let before = self.maximum[row];
        let now = max(logits);
        let now = if now > before { now } else { before };
        let sum = replace_and_sum(
            logits,
            #[inline(always)]
            |logit| exp_of_negative(logit - now),
        );
        if before < now {
            let shrink = exp_of_negative(before - now);
            self.total[row] *= shrink;
            for mean in &mut self.mean[mean] {
                *mean *= shrink;
            }
        }
        self.total[row] += sum;
        self.maximum[row] = now;
    }
}

/// Ranges of nearly equal size, at most `most`, that cover `0..count`.
fn even_ranges(count: usize, most: usize) -> Vec<Range<usize>> {
    let size = count.div_ceil(count.div_ceil(most.max(1)).max(1)).max(1);
    (0..count)
        .step_by(size)
        .map(|from| from..count.min(from + size))
        .collect()
}
