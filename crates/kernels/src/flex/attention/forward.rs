//! The forward pass: keys tile by tile, with an online softmax (Milakov and Gimelshein 2018, arXiv 1805.02867).

use std::ops::Range;

use rayon::prelude::*;

use super::decode;
use super::tiles::{Inputs, Problem};
use crate::flex::gemm::{Cores, Mat, product};
use crate::flex::lanes::{max, replace_and_sum};
use crate::flex::math::exp_of_negative;
use crate::flex::memory::par_fill_many;
use crate::flex::simd::simd;

/// (output `[batch, queries, heads, width]`, logsumexp of each query's scores `[batch, queries, heads]`, +∞ for a query
/// without visible keys).
pub fn attend(inputs: &Inputs, problem: &Problem) -> (Vec<f32>, Vec<f32>) {
    let Problem {
        batch,
        heads,
        queries,
        width,
        ..
    } = *problem;
    if queries == 1 {
        return decode::attend(inputs, problem);
    }
    let tiles = Problem::tiles(queries);
    let [out, logsumexp] = par_fill_many(
        [batch * queries * heads * width, batch * queries * heads],
        [queries * heads * width, queries * heads],
        |row, [out, logsumexp]| {
            let parts: Vec<Tile> = (0..tiles.len() * heads)
                .into_par_iter()
                .map(|task| tile(inputs, problem, row, task % heads, &tiles[task / heads]))
                .collect();
            for (tile, parts) in tiles.iter().zip(parts.chunks_exact(heads)) {
                for query in 0..tile.len() {
                    for part in parts {
                        out.copy(&part.out[query * width..][..width]);
                        logsumexp.copy(&part.logsumexp[query..=query]);
                    }
                }
            }
        },
    );
    (out, logsumexp)
}

/// The output of a tile of queries of one head.
struct Tile {
    /// `[queries, width]`
    out: Vec<f32>,
    /// `[queries]`
    logsumexp: Vec<f32>,
}

fn tile(inputs: &Inputs, problem: &Problem, row: usize, head: usize, queries: &Range<usize>) -> Tile {
    let width = problem.width;
    let mut out = vec![0.0; queries.len() * width];
    let mut maximum = vec![f32::NEG_INFINITY; queries.len()];
    let mut total = vec![0.0f32; queries.len()];
    let mut scores = Vec::new();
    let mut started = false;
    for keys in Problem::tiles(problem.keys) {
        if !problem.any_visible(row, queries, &keys) {
            continue;
        }
        scores.resize(queries.len() * keys.len(), 0.0);
        inputs.scores(problem, row, head, queries, &keys, &mut scores, None);
        simd!({
            for (index, scores) in scores.chunks_exact_mut(keys.len()).enumerate() {
                let visible = problem.visible_keys(row, queries.start + index, &keys);
                scores[..visible.start].fill(0.0);
                scores[visible.end.max(visible.start)..].fill(0.0);
                if visible.is_empty() {
                    continue;
                }
                let scores = &mut scores[visible];
                let before = maximum[index];
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
                maximum[index] = now;
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
    let logsumexp = maximum.iter().zip(&total).map(|(maximum, total)| match *total == 0.0 {
        true => f32::INFINITY,
        false => maximum + total.ln(),
    });
    Tile {
        logsumexp: logsumexp.collect(),
        out,
    }
}
