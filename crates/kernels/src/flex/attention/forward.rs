//! The forward pass: keys tile by tile, the softmax rescaled as larger scores come (Milakov and Gimelshein 2018,
//! arXiv 1805.02867).

use std::ops::Range;

use rayon::prelude::*;

use super::one_query;
use super::tiles::{Inputs, Problem};
use crate::flex::gemm::{Cores, Mat, product};
use crate::flex::lanes::{max, replace_and_sum};
use crate::flex::memory::filled_together;
use crate::flex::normal::exp_of_negative;
use crate::flex::wide::wide;

/// (result `[batch, queries, heads, width]`, logarithm of the sum of the exponentials of a query's scores
/// `[batch, queries, heads]`, +∞ if it sees nothing).
pub fn attend(inputs: &Inputs, problem: &Problem) -> (Vec<f32>, Vec<f32>) {
    let Problem {
        batch,
        heads,
        queries,
        width,
        ..
    } = *problem;
    if queries == 1 {
        return one_query::attend(inputs, problem);
    }
    let tiles = Problem::tiles(queries);
    let [out, log_total] = filled_together(
        [batch * queries * heads * width, batch * queries * heads],
        [queries * heads * width, queries * heads],
        |row, [out, log_total]| {
            let parts: Vec<Tile> = (0..tiles.len() * heads)
                .into_par_iter()
                .map(|task| tile(inputs, problem, row, task % heads, &tiles[task / heads]))
                .collect();
            for (tile, parts) in tiles.iter().zip(parts.chunks_exact(heads)) {
                for query in 0..tile.len() {
                    for part in parts {
                        out.copy(&part.out[query * width..][..width]);
                        log_total.copy(&part.log_total[query..=query]);
                    }
                }
            }
        },
    );
    (out, log_total)
}

/// A tile of queries of one head.
struct Tile {
    /// `[queries, width]`
    out: Vec<f32>,
    /// `[queries]`
    log_total: Vec<f32>,
}

fn tile(inputs: &Inputs, problem: &Problem, row: usize, head: usize, queries: &Range<usize>) -> Tile {
    let width = problem.width;
    let mut out = vec![0.0; queries.len() * width];
    let mut greatest = vec![f32::NEG_INFINITY; queries.len()];
    let mut total = vec![0.0f32; queries.len()];
    let mut scores = Vec::new();
    let mut started = false;
    for keys in Problem::tiles(problem.keys) {
        if !problem.any_seen(row, queries, &keys) {
            continue;
        }
        scores.resize(queries.len() * keys.len(), 0.0);
        inputs.scores(problem, row, head, queries, &keys, &mut scores, None);
        wide!({
            for (index, scores) in scores.chunks_exact_mut(keys.len()).enumerate() {
                let seen = problem.seen(row, queries.start + index, &keys);
                scores[..seen.start].fill(0.0);
                scores[seen.end.max(seen.start)..].fill(0.0);
                if seen.is_empty() {
                    continue;
                }
                let scores = &mut scores[seen];
                let before = greatest[index];
                let now = max(scores);
                let now = if now > before { now } else { before };
                let sum = replace_and_sum(
                    scores,
                    #[inline(always)]
                    |score| exp_of_negative(score - now),
                );
                if started && before < now {
                    let shrink = exp_of_negative(before - now);
                    total[index] *= shrink;
                    for out in &mut out[index * width..][..width] {
                        *out *= shrink;
                    }
                }
                total[index] += sum;
                greatest[index] = now;
            }
        });
        let value = inputs.value.tokens(row, problem.kv_head(head), &keys);
        let probabilities = Mat::rows(&scores, [queries.len(), keys.len()]);
        product(&mut out, width, probabilities, value, 1.0, started, Cores::One);
        started = true;
    }
    for (out, total) in out.chunks_exact_mut(width).zip(&total) {
        let factor = if *total == 0.0 { 0.0 } else { 1.0 / total };
        out.iter_mut().for_each(|out| *out *= factor);
    }
    let log_total = greatest
        .iter()
        .zip(&total)
        .map(|(greatest, total)| match *total == 0.0 {
            true => f32::INFINITY,
            false => greatest + total.ln(),
        });
    Tile {
        log_total: log_total.collect(),
        out,
    }
}
