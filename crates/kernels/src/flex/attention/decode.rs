//! The forward pass with one query per sequence, as in decoding. It is bound by reading keys and values, which happens once
//! for all heads that share them.

use std::ops::Range;

use rayon::prelude::*;

use super::tiles::{Inputs, Problem};
use crate::flex::lanes::{UNROLL, add_lines, dot, max, replace_and_sum};
use crate::flex::math::{exp_of_negative, tanh};
use crate::flex::simd::simd;

/// [`super::forward::attend`] with one query.
pub fn attend(inputs: &Inputs, problem: &Problem) -> (Vec<f32>, Vec<f32>) {
    let Problem {
        batch,
        heads,
        kv_heads,
        keys,
        width,
        ..
    } = *problem;
    // The chunks depend on the number of keys alone, so results do not depend on the number of threads.
    let chunks = Problem::tiles(keys);
    let count = chunks.len();
    let parts: Vec<Part> = (0..batch * kv_heads * count)
        .into_par_iter()
        .map(|task| {
            let (row, kv_head) = (task / count / kv_heads, task / count % kv_heads);
            simd!({ part(inputs, problem, row, kv_head, &chunks[task % count]) })
        })
        .collect();
    let mut out = vec![0.0; batch * heads * width];
    let mut logsumexp = vec![f32::INFINITY; batch * heads];
    let shared = heads / kv_heads;
    for (index, (out, logsumexp)) in out.chunks_exact_mut(width).zip(&mut logsumexp).enumerate() {
        let (group, head) = (index / shared, index % shared);
        let parts = &parts[group * count..][..count];
        let maximum = parts
            .iter()
            .map(|part| part.maximum[head])
            .fold(f32::NEG_INFINITY, f32::max);
        let mut total = 0.0;
        // A chunk without visible keys contributes nothing.
        for part in parts.iter().filter(|part| part.total[head] > 0.0) {
            let factor = exp_of_negative(part.maximum[head] - maximum);
            total += factor * part.total[head];
            for (out, sum) in out.iter_mut().zip(&part.sums[head * width..][..width]) {
                *out += factor * sum;
            }
        }
        if total > 0.0 {
            out.iter_mut().for_each(|out| *out /= total);
            *logsumexp = maximum + total.ln();
        }
    }
    (out, logsumexp)
}

/// One chunk of the keys, for the heads that share them.
struct Part {
    /// Maximum score of each head.
    maximum: Vec<f32>,
    /// Sum of exp(score - maximum) of each head.
    total: Vec<f32>,
    /// Values weighted by those exponentials, `[heads, width]`.
    sums: Vec<f32>,
}

#[inline(always)]
fn part(inputs: &Inputs, problem: &Problem, row: usize, kv_head: usize, keys: &Range<usize>) -> Part {
    let (shared, width) = (problem.heads / problem.kv_heads, problem.width);
    let visible = problem.visible_keys(row, 0, keys);
    let (first, count) = (keys.start + visible.start, visible.len());
    let mut part = Part {
        maximum: vec![f32::NEG_INFINITY; shared],
        total: vec![0.0; shared],
        sums: vec![0.0; shared * width],
    };
    if count == 0 {
        return part;
    }
    let scale = problem.options.scale(width) as f32;
    let mut scores = vec![0.0; shared * count];
    for index in 0..count {
        let key = inputs.key.token(row, kv_head, first + index);
        for head in 0..shared {
            let query = inputs.query.token(row, kv_head * shared + head, 0);
            scores[head * count + index] = scale * dot(query, key);
        }
    }
    if let Some(cap) = problem.options.softcap {
        let cap = cap as f32;
        for score in &mut scores {
            *score = cap * tanh(*score / cap);
        }
    }
    for (head, scores) in scores.chunks_exact_mut(count).enumerate() {
        let maximum = max(scores);
        part.maximum[head] = maximum;
        part.total[head] = replace_and_sum(
            scores,
            #[inline(always)]
            |score| exp_of_negative(score - maximum),
        );
    }
    let mut index = 0;
    while index + UNROLL <= count {
        let values = std::array::from_fn(|i| inputs.value.token(row, kv_head, first + index + i));
        for (sums, scores) in part.sums.chunks_exact_mut(width).zip(scores.chunks_exact(count)) {
            add_lines(sums, values, &scores[index..index + UNROLL]);
        }
        index += UNROLL;
    }
    for index in index..count {
        let value = inputs.value.token(row, kv_head, first + index);
        for (sums, scores) in part.sums.chunks_exact_mut(width).zip(scores.chunks_exact(count)) {
            for (sum, value) in sums.iter_mut().zip(value) {
                *sum += scores[index] * value;
            }
        }
    }
    part
}
