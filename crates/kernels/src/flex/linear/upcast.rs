//! Products of many rows with a weight that is stored narrower than f32: all cores upcast one block of it, then multiply it
//! while it is in the cache. The whole weight never exists as f32.

use rayon::prelude::*;

use super::{block_rows, cores};
use crate::flex::gemm::{Mat, product};
use crate::flex::simd::simd;
use crate::flex::weight::WeightView;

/// Elements upcast at a time: 4 MB.
const BLOCK: usize = 1 << 20;
/// Most rows of the weight in a block: sums are read and written once per block.
const DEPTH: usize = 2048;
/// Approximate number of elements that one task upcasts.
const CHUNK: usize = 1 << 15;

/// Adds `x·weight` to `out`. `x`: `[n, depth]`, `out`: `[n, columns]`.
pub fn add_product(out: &mut [f32], x: &[f32], weight: &WeightView) {
    let [depth, columns] = weight.size();
    if depth == 0 || columns == 0 {
        return;
    }
    let n = out.len() / columns;
    let rows = block_rows(n);
    let depth_step = depth.min(DEPTH);
    let column_step = columns.min(BLOCK / depth_step);
    let mut buffer = vec![0.0; depth_step * column_step];
    for column in (0..columns).step_by(column_step) {
        let width = column_step.min(columns - column);
        for row in (0..depth).step_by(depth_step) {
            let height = depth_step.min(depth - row);
            let block = upcast(&mut buffer, weight, [row, column], [height, width]);
            out.par_chunks_mut(rows * columns).enumerate().for_each(|(index, out)| {
                let count = out.len() / columns;
                let x = &x[index * rows * depth + row..];
                let x = Mat::new(x, [count, height], [depth, 1]);
                let out = &mut out[column..];
                product(out, columns, x, block, 1.0, true, cores(n, rows, [height, width]));
            });
        }
    }
}

/// The block of `weight` that starts at `from`, as f32.
fn upcast<'a>(out: &'a mut [f32], weight: &WeightView, from: [usize; 2], size: [usize; 2]) -> Mat<'a> {
    // In storage order.
    let (line, along) = if weight.by_rows { (0, 1) } else { (1, 0) };
    let len = size[along];
    let out = &mut out[..size[0] * size[1]];
    let lines = (CHUNK / len).max(1);
    out.par_chunks_mut(lines * len).enumerate().for_each(|(index, out)| {
        simd!({
            for (number, out) in out.chunks_exact_mut(len).enumerate() {
                weight.upcast_into(from[line] + index * lines + number, from[along], out);
            }
        });
    });
    let block = Mat::rows(out, [size[line], len]);
    if weight.by_rows { block } else { block.t() }
}
