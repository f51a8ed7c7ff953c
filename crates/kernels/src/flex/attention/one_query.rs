//! The forward pass of one query a row, as in a step of decoding: the time is that of reading keys and values, which is
//! done once for all the heads that share them.

use std::ops::Range;

use rayon::prelude::*;

use super::tiles::{Inputs, Problem};
use crate::flex::lanes::{TOGETHER, add_lines, dot, max, replace_and_sum};
use crate::flex::normal::{exp_of_negative, tanh};
use crate::flex::wide::wide;

/// As [`super::forward::attend`], of one query.
pub fn attend(inputs: &Inputs, problem: &Problem) -> (Vec<f32>, Vec<f32>) {
    let Problem {
        batch,
        heads,
        kv_heads,
        keys,
        width,
        ..
    } = *problem;
    // How keys are cut depends on their number alone: any number of threads gives the same numbers.
    let stretches = Problem::tiles(keys);
    let count = stretches.len();
    let parts: Vec<Part> = (0..batch * kv_heads * count)
        .into_par_iter()
        .map(|task| {
            let (row, kv_head) = (task / count / kv_heads, task / count % kv_heads);
            wide!({ part(inputs, problem, row, kv_head, &stretches[task % count]) })
        })
        .collect();
    let mut out = vec![0.0; batch * heads * width];
    let mut log_total = vec![f32::INFINITY; batch * heads];
    let shared = heads / kv_heads;
    for (index, (out, log_total)) in out.chunks_exact_mut(width).zip(&mut log_total).enumerate() {
        let (group, head) = (index / shared, index % shared);
        let parts = &parts[group * count..][..count];
        let greatest = parts
            .iter()
            .map(|part| part.greatest[head])
            .fold(f32::NEG_INFINITY, f32::max);
        let mut total = 0.0;
        // A part that sees nothing has no sum.
        for part in parts.iter().filter(|part| part.total[head] > 0.0) {
            let factor = exp_of_negative(part.greatest[head] - greatest);
            total += factor * part.total[head];
            for (out, sum) in out.iter_mut().zip(&part.sums[head * width..][..width]) {
                *out += factor * sum;
            }
        }
        if total > 0.0 {
            out.iter_mut().for_each(|out| *out /= total);
            *log_total = greatest + total.ln();
        }
    }
    (out, log_total)
}

/// Some of the keys, for the heads that share them.
struct Part {
    /// Greatest score of each head.
    greatest: Vec<f32>,
    /// Sum of the exponentials of each head's scores less the greatest.
    total: Vec<f32>,
    /// The values with those exponentials as weights, `[heads, width]`.
    sums: Vec<f32>,
}

#[inline(always)]
fn part(inputs: &Inputs, problem: &Problem, row: usize, kv_head: usize, keys: &Range<usize>) -> Part {
    let (shared, width) = (problem.heads / problem.kv_heads, problem.width);
    let seen = problem.seen(row, 0, keys);
    let (first, count) = (keys.start + seen.start, seen.len());
    let mut part = Part {
        greatest: vec![f32::NEG_INFINITY; shared],
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
        let greatest = max(scores);
        part.greatest[head] = greatest;
        part.total[head] = replace_and_sum(
            scores,
            #[inline(always)]
            |score| exp_of_negative(score - greatest),
        );
    }
    let mut index = 0;
    while index + TOGETHER <= count {
        let values = std::array::from_fn(|i| inputs.value.token(row, kv_head, first + index + i));
        for (sums, scores) in part.sums.chunks_exact_mut(width).zip(scores.chunks_exact(count)) {
            add_lines(sums, values, &scores[index..index + TOGETHER]);
        }
        index += TOGETHER;
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
