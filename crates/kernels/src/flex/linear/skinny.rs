//! Products of a few rows (GEMV-like), as in decoding. They are bound by reading the weight: every core reads its part once,
//! in storage order.

use std::ops::Range;

use rayon::prelude::*;

use super::packed_bf16;
use crate::flex::lanes::{UNROLL, add_lines, dot};
use crate::flex::simd::simd;
use crate::flex::weight::WeightView;

/// Most rows of a skinny product: up to here, reading a weight takes longer than computing with it.
pub const SKINNY_ROWS: usize = 8;
/// Approximate number of weight elements per task.
const PART: usize = 1 << 17;
/// See [`even`].
const SHARES: usize = 4;
/// Most columns per task: the sums of one row stay in the L1 cache.
const COLUMNS: usize = 4096;

/// One task: some rows and columns of the weight.
struct Part {
    depth: Range<usize>,
    columns: Range<usize>,
    /// `x·weight` over this part, `[n, columns]`.
    sums: Vec<f32>,
}

/// Adds `x·weight` to `out`. `x`: `[n, depth]`, `out`: `[n, columns]`.
///
/// The split, and so every rounding, depends on the shape and storage of the weight alone.
pub fn add_product(out: &mut [f32], x: &[f32], weight: &WeightView) {
    let [depth, columns] = weight.size();
    if depth == 0 || columns == 0 {
        return;
    }
    let n = out.len() / columns;
    let deinterleaved = match weight.has_packed_columns() {
        true => x.chunks_exact(depth).flat_map(packed_bf16::deinterleave).collect(),
        false => Vec::new(),
    };
    if n == 1 && !weight.by_rows {
        // Each task computes whole sums, for its own part of the only row.
        let step = even(columns, PART / depth);
        let compute = |(index, out): (usize, &mut [f32])| {
            let columns = index * step..index * step + out.len();
            simd!({ add_dots(&mut *out, columns.clone(), x, &deinterleaved, depth, weight) })
        };
        return match columns <= step {
            true => compute((0, out)),
            false => out.par_chunks_mut(step).enumerate().for_each(compute),
        };
    }
    let mut parts = cut(weight, n);
    let compute = |part: &mut Part| simd!({ part.compute(x, &deinterleaved, depth, weight) });
    // A small product is done before another thread would have woken up.
    match &mut parts[..] {
        [one] => compute(one),
        parts => parts.par_iter_mut().for_each(compute),
    }
    simd!({
        for part in &parts {
            let width = part.columns.len();
            for (out, sums) in out.chunks_exact_mut(columns).zip(part.sums.chunks_exact(width)) {
                for (out, sum) in out[part.columns.clone()].iter_mut().zip(sums) {
                    *out += sum;
                }
            }
        }
    });
}

fn cut(weight: &WeightView, n: usize) -> Vec<Part> {
    let [depth, columns] = weight.size();
    let (depth_step, column_step) = if weight.by_rows {
        let column_step = even(columns, COLUMNS);
        let depth_step = even(depth, PART / column_step).next_multiple_of(UNROLL);
        (depth_step, column_step)
    } else {
        (depth, even(columns, PART / depth))
    };
    let starts = |count: usize, step: usize| (0..count).step_by(step);
    starts(depth, depth_step)
        .flat_map(|row| starts(columns, column_step).map(move |column| (row, column)))
        .map(|(row, column)| {
            let columns = column..columns.min(column + column_step);
            Part {
                depth: row..depth.min(row + depth_step),
                sums: vec![0.0; n * columns.len()],
                columns,
            }
        })
        .collect()
}

/// Size of the parts if `count` is split into the fewest equal parts of at most `most` that two or four cores can share
/// evenly: one part, or a multiple of [`SHARES`].
fn even(count: usize, most: usize) -> usize {
    match count.div_ceil(most.max(1)) {
        1 => count,
        parts => count.div_ceil(parts.next_multiple_of(SHARES)),
    }
}

impl Part {
    #[inline(always)]
    fn compute(&mut self, x: &[f32], deinterleaved: &[f32], stride: usize, weight: &WeightView) {
        if weight.by_rows {
            let done = self.add_packed_rows(x, stride, weight);
            self.add_rows(done, x, stride, weight);
        } else {
            add_dots(&mut self.sums, self.columns.clone(), x, deinterleaved, stride, weight);
        }
    }

    /// [`Part::add_rows`] as far as the weight can be read as packed bf16 pairs; returns the row where it stopped.
    #[inline(always)]
    fn add_packed_rows(&mut self, x: &[f32], stride: usize, weight: &WeightView) -> usize {
        let (width, mut row) = (self.columns.len(), self.depth.start);
        let mut sums = Vec::new();
        while row + UNROLL <= self.depth.end {
            let Some(lines) = weight.packed_lines(row, self.columns.clone()) else {
                break;
            };
            sums.resize(self.sums.len(), 0.0);
            for (sums, x) in sums.chunks_exact_mut(width).zip(x.chunks_exact(stride)) {
                packed_bf16::add_lines(sums, lines, std::array::from_fn(|line| x[row + line]));
            }
            row += UNROLL;
        }
        for (out, sums) in self.sums.chunks_exact_mut(width).zip(sums.chunks_exact(width)) {
            packed_bf16::interleave_add(out, sums);
        }
        row
    }

    /// Adds each row of the weight from `row` on, times its factors, to the sums, which are read and written once for
    /// several rows.
    #[inline(always)]
    fn add_rows(&mut self, mut row: usize, x: &[f32], stride: usize, weight: &WeightView) {
        let width = self.columns.len();
        let mut scratch: [Vec<f32>; UNROLL] = std::array::from_fn(|_| vec![0.0; weight.scratch(width)]);
        while row + UNROLL <= self.depth.end {
            let [a, b, c, d] = &mut scratch;
            let a = weight.read(row, self.columns.clone(), a);
            let b = weight.read(row + 1, self.columns.clone(), b);
            let c = weight.read(row + 2, self.columns.clone(), c);
            let d = weight.read(row + 3, self.columns.clone(), d);
            for (sums, x) in self.sums.chunks_exact_mut(width).zip(x.chunks_exact(stride)) {
                add_lines(sums, [a, b, c, d], &x[row..row + UNROLL]);
            }
            row += UNROLL;
        }
        for row in row..self.depth.end {
            let line = weight.read(row, self.columns.clone(), &mut scratch[0]);
            for (sums, x) in self.sums.chunks_exact_mut(width).zip(x.chunks_exact(stride)) {
                let factor = x[row];
                for (sum, value) in sums.iter_mut().zip(line) {
                    *sum += factor * value;
                }
            }
        }
    }
}

/// Adds the dot product of each of `columns` of the weight and each row of `x` to `sums`, `[n, columns]`. For packed bf16
/// pairs, `deinterleaved` is `x` in their order; otherwise it is empty.
#[inline(always)]
fn add_dots(
    sums: &mut [f32],
    columns: Range<usize>,
    x: &[f32],
    deinterleaved: &[f32],
    depth: usize,
    weight: &WeightView,
) {
    let width = columns.len();
    if !deinterleaved.is_empty() {
        for (index, column) in columns.enumerate() {
            let line = weight.packed(column, 0..depth).unwrap_or_default();
            for (row, x) in deinterleaved.chunks_exact(depth).enumerate() {
                sums[row * width + index] += packed_bf16::dot(line, x);
            }
        }
        return;
    }
    let mut scratch = vec![0.0; weight.scratch(depth)];
    for (index, column) in columns.enumerate() {
        let line = weight.read(column, 0..depth, &mut scratch);
        for (row, x) in x.chunks_exact(depth).enumerate() {
            sums[row * width + index] += dot(line, x);
        }
    }
}
