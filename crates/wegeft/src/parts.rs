//! A fused weight, such as qkv, of which some column blocks are adapted and others are not.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::edit::{Bound, Edit};
use crate::low_rank::LowRank;
use crate::tensor::{product, with_rest};

/// One adapted block of columns.
#[derive(Debug)]
struct Part {
    start: usize,
    width: usize,
    bound: Bound,
}

/// The adapted blocks of one weight; the columns between them stay frozen.
#[derive(Debug)]
struct BoundParts {
    /// Ordered by column.
    parts: Vec<Part>,
}

/// Bound state of a weight of which these blocks are adapted: first column, width and bound state of each.
pub(crate) fn bound(blocks: Vec<(usize, usize, Bound)>) -> Bound {
    let places: Vec<(usize, usize)> = blocks.iter().map(|(start, width, _)| (*start, *width)).collect();
    let parts = blocks.into_iter().map(|(_, _, bound)| bound).collect();
    Bound::composed(parts, move |parts| {
        let part = |(&(start, width), bound)| Part { start, width, bound };
        Arc::new(BoundParts {
            parts: places.iter().zip(parts).map(part).collect(),
        })
    })
}

impl BoundParts {
    /// Columns of every block of `whole` (`[n, d_out]`), with `change` added to the adapted ones.
    fn changed(&self, whole: Tensor<2>, change: impl Fn(&Part) -> Tensor<2>) -> Tensor<2> {
        let [_, d_out] = whole.dims();
        let mut blocks = Vec::new();
        let mut next = 0;
        for part in &self.parts {
            if part.start > next {
                blocks.push(whole.clone().narrow(1, next, part.start - next));
            }
            blocks.push(whole.clone().narrow(1, part.start, part.width) + change(part));
            next = part.start + part.width;
        }
        if next < d_out {
            blocks.push(whole.narrow(1, next, d_out - next));
        }
        Tensor::cat(blocks, 1)
    }
}

impl Edit for BoundParts {
    // One product with the whole frozen weight; the low-rank residual of each block is cheap in comparison.
    fn affine(
        &self,
        x: Tensor<2>,
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
        residual: Option<Tensor<2>>,
    ) -> Tensor<2> {
        let out = self.changed(product(x.clone(), weight.clone()), |part| {
            let block = weight.clone().narrow(1, part.start, part.width);
            part.bound.edit().update(x.clone(), block)
        });
        with_rest(out, bias, residual)
    }

    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        self.changed(weight.zeros_like(), |part| {
            let block = weight.clone().narrow(1, part.start, part.width);
            part.bound.edit().residual(block)
        })
    }

    fn residual_in_training(&self, weight: Tensor<2>) -> Tensor<2> {
        self.changed(weight.zeros_like(), |part| {
            let block = weight.clone().narrow(1, part.start, part.width);
            part.bound.edit().residual_in_training(block)
        })
    }

    fn bias(&self, bias: Tensor<1>) -> Tensor<1> {
        let mut bias = bias;
        for part in &self.parts {
            let block = part.bound.edit().bias(bias.clone().narrow(0, part.start, part.width));
            bias = bias.slice_assign(part.start..part.start + part.width, block);
        }
        bias
    }

    fn adds_to_output(&self) -> bool {
        self.parts.iter().any(|part| part.bound.edit().adds_to_output())
    }

    fn unmerged(&self, merged: Tensor<2>) -> Option<Tensor<2>> {
        let mut whole = merged.clone();
        for part in &self.parts {
            let [d_in, _] = merged.dims();
            let block = part
                .bound
                .edit()
                .unmerged(merged.clone().narrow(1, part.start, part.width))?;
            whole = whole.slice_assign([0..d_in, part.start..part.start + part.width], block);
        }
        Some(whole)
    }

    // Ranks add up: the A of all blocks stacked, each block's B in its own rows.
    fn low_rank(&self, weight: Tensor<2>) -> Option<LowRank> {
        let [_, d_out] = weight.dims();
        let mut a = Vec::new();
        let mut b = Vec::new();
        for part in &self.parts {
            let block = weight.clone().narrow(1, part.start, part.width);
            let residual = part.bound.edit().low_rank(block)?;
            let [r, _] = residual.a.dims();
            let rows = Tensor::zeros([d_out, r], (&residual.b.device(), residual.b.dtype()));
            let rows = rows.slice_assign(
                [part.start..part.start + part.width, 0..r],
                residual.b.mul_scalar(residual.scale),
            );
            a.push(residual.a);
            b.push(rows);
        }
        Some(LowRank {
            a: Tensor::cat(a, 0),
            b: Tensor::cat(b, 1),
            scale: 1.0,
        })
    }
}
