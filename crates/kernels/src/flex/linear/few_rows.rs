//! Products of a few rows, as in a step of decoding: the time is that of reading the weight, which every core does for a
//! part of it, once and in the order in which it lies.

use std::ops::Range;

use rayon::prelude::*;

use super::halves;
use crate::flex::lanes::{TOGETHER, add_lines, dot};
use crate::flex::stored::Stored;
use crate::flex::wide::wide;

/// Rows that are few: up to here reading a weight takes longer than computing with it.
pub const FEW: usize = 8;
/// Values of the weight that one task reads, about.
const PART: usize = 1 << 17;
/// See [`even`].
const SHARES: usize = 4;
/// Columns that one task adds to at most: sums of one row stay in the first-level cache.
const COLUMNS: usize = 4096;

/// A part of the work: some rows of the weight, some of its columns.
struct Part {
    depth: Range<usize>,
    columns: Range<usize>,
    /// `x·weight` over this part, `[n, columns]`.
    sums: Vec<f32>,
}

/// `x·weight` added to `out`. `x`: `[n, depth]`, `out`: `[n, columns]`.
///
/// How the work is cut, and so every rounding, depends on the weight alone: its shape, and how it is stored.
pub fn add_product(out: &mut [f32], x: &[f32], weight: &Stored) {
    let [depth, columns] = weight.size();
    if depth == 0 || columns == 0 {
        return;
    }
    let n = out.len() / columns;
    let apart = match weight.columns_of_words() {
        true => x.chunks_exact(depth).flat_map(halves::apart).collect(),
        false => Vec::new(),
    };
    if n == 1 && !weight.by_rows {
        // Each task adds whole sums to its own part of the only row.
        let step = even(columns, PART / depth);
        let compute = |(index, out): (usize, &mut [f32])| {
            let columns = index * step..index * step + out.len();
            wide!({ add_dots(&mut *out, columns.clone(), x, &apart, depth, weight) })
        };
        return match columns <= step {
            true => compute((0, out)),
            false => out.par_chunks_mut(step).enumerate().for_each(compute),
        };
    }
    let mut parts = cut(weight, n);
    let compute = |part: &mut Part| wide!({ part.compute(x, &apart, depth, weight) });
    // What is small is done before another thread would have woken up.
    match &mut parts[..] {
        [one] => compute(one),
        parts => parts.par_iter_mut().for_each(compute),
    }
    wide!({
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

fn cut(weight: &Stored, n: usize) -> Vec<Part> {
    let [depth, columns] = weight.size();
    let (depth_step, column_step) = if weight.by_rows {
        let column_step = even(columns, COLUMNS);
        let depth_step = even(depth, PART / column_step).next_multiple_of(TOGETHER);
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

/// The size of the fewest equal parts of `count` that have at most `most` each and that two or four cores can share evenly:
/// one, or a multiple of [`SHARES`].
fn even(count: usize, most: usize) -> usize {
    match count.div_ceil(most.max(1)) {
        1 => count,
        parts => count.div_ceil(parts.next_multiple_of(SHARES)),
    }
}

impl Part {
    #[inline(always)]
    fn compute(&mut self, x: &[f32], apart: &[f32], stride: usize, weight: &Stored) {
        if weight.by_rows {
            let done = self.add_rows_of_halves(x, stride, weight);
            self.add_rows(done, x, stride, weight);
        } else {
            add_dots(&mut self.sums, self.columns.clone(), x, apart, stride, weight);
        }
    }

    /// As [`Part::add_rows`] as far as the weight is bf16 that lies evenly; where it stops.
    #[inline(always)]
    fn add_rows_of_halves(&mut self, x: &[f32], stride: usize, weight: &Stored) -> usize {
        let (width, mut row) = (self.columns.len(), self.depth.start);
        let mut sums = Vec::new();
        while row + TOGETHER <= self.depth.end {
            let Some(lines) = weight.four_of_words(row, self.columns.clone()) else {
                break;
            };
            sums.resize(self.sums.len(), 0.0);
            for (sums, x) in sums.chunks_exact_mut(width).zip(x.chunks_exact(stride)) {
                halves::add_lines(sums, lines, std::array::from_fn(|line| x[row + line]));
            }
            row += TOGETHER;
        }
        for (out, sums) in self.sums.chunks_exact_mut(width).zip(sums.chunks_exact(width)) {
            halves::add_together(out, sums);
        }
        row
    }

    /// Each row of the weight from `row` on, times its factors, is added to the sums, which are read and written once for
    /// several rows.
    #[inline(always)]
    fn add_rows(&mut self, mut row: usize, x: &[f32], stride: usize, weight: &Stored) {
        let width = self.columns.len();
        let mut scratch: [Vec<f32>; TOGETHER] = std::array::from_fn(|_| vec![0.0; weight.scratch(width)]);
        while row + TOGETHER <= self.depth.end {
            let [a, b, c, d] = &mut scratch;
            let a = weight.read(row, self.columns.clone(), a);
            let b = weight.read(row + 1, self.columns.clone(), b);
            let c = weight.read(row + 2, self.columns.clone(), c);
            let d = weight.read(row + 3, self.columns.clone(), d);
            for (sums, x) in self.sums.chunks_exact_mut(width).zip(x.chunks_exact(stride)) {
                add_lines(sums, [a, b, c, d], &x[row..row + TOGETHER]);
            }
            row += TOGETHER;
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

/// Each of `columns` of the weight makes one sum of every row of `x`, added to `sums`, `[n, columns]`. Where they are bf16
/// that lies evenly, `apart` is `x` in the order of their words, and otherwise empty.
#[inline(always)]
fn add_dots(sums: &mut [f32], columns: Range<usize>, x: &[f32], apart: &[f32], depth: usize, weight: &Stored) {
    let width = columns.len();
    if !apart.is_empty() {
        for (index, column) in columns.enumerate() {
            let line = weight.words(column, 0..depth).unwrap_or_default();
            for (row, x) in apart.chunks_exact(depth).enumerate() {
                sums[row * width + index] += halves::dot(line, x);
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
