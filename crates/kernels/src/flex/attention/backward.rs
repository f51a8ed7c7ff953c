//! The backward pass: probabilities recomputed from the scores and the saved logsumexp.

use rayon::prelude::*;

use super::Outcome;
use super::tiles::{Inputs, Problem};
use crate::flex::gemm::{Cores, Mat, product};
use crate::flex::heads::Heads;
use crate::flex::lanes::sum_of2;
use crate::flex::math::exp_of_negative;
use crate::flex::memory::{Writer, par_fill, par_fill_many};
use crate::flex::simd::simd;
use crate::flex::values;

/// Gradients of query `[batch, queries, heads, width]`, key and value `[batch, keys, kv_heads, width]`.
pub fn separate(inputs: &Inputs, problem: &Problem, outcome: &Outcome, grad: Heads) -> [Vec<f32>; 3] {
    let queries = problem.queries * problem.heads * problem.width;
    let keys = problem.keys * problem.kv_heads * problem.width;
    par_fill_many(
        [queries, keys, keys].map(|part| problem.batch * part),
        [queries, keys, keys],
        |row, [query, key, value]| {
            let heads = heads(inputs, problem, outcome, grad, row);
            for token in 0..problem.queries {
                heads
                    .iter()
                    .for_each(|head| write(query, &head.query, token, problem.width));
            }
            let groups = problem.heads / problem.kv_heads;
            for token in 0..problem.keys {
                for group in heads.chunks_exact(groups) {
                    write(key, &group[0].key, token, problem.width);
                    write(value, &group[0].value, token, problem.width);
                }
            }
        },
    )
}

/// The gradient of `[batch, tokens, 3, heads, width]`.
pub fn fused(inputs: &Inputs, problem: &Problem, outcome: &Outcome, grad: Heads) -> Vec<f32> {
    let part = 3 * problem.keys * problem.heads * problem.width;
    // The query gradient of a token that was not used as a query.
    let no_query = vec![0.0; problem.width];
    par_fill(problem.batch * part, part, |row, out| {
        let heads = heads(inputs, problem, outcome, grad, row);
        for token in 0..problem.keys {
            for head in &heads {
                match token < problem.queries {
                    true => write(out, &head.query, token, problem.width),
                    false => out.copy(&no_query),
                }
            }
            for of in 0..2 {
                for head in &heads {
                    write(out, [&head.key, &head.value][of], token, problem.width);
                }
            }
        }
    })
}

fn write(out: &mut Writer, from: &[f32], token: usize, width: usize) {
    out.copy(&from[token * width..][..width]);
}

/// Gradients of one head, `[tokens, width]` each.
struct Head {
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
}

/// All heads of one sequence. Among heads that share a key, the first one holds the sum of their key and value gradients.
fn heads(inputs: &Inputs, problem: &Problem, outcome: &Outcome, grad: Heads, row: usize) -> Vec<Head> {
    let mut heads: Vec<Head> = (0..problem.heads)
        .into_par_iter()
        .map(|head| one_head(inputs, problem, outcome, grad, row, head))
        .collect();
    for group in heads.chunks_exact_mut(problem.heads / problem.kv_heads) {
        if let [first, others @ ..] = group {
            for other in others {
                first.key.iter_mut().zip(&other.key).for_each(|(sum, key)| *sum += key);
                first
                    .value
                    .iter_mut()
                    .zip(&other.value)
                    .for_each(|(sum, value)| *sum += value);
            }
        }
    }
    heads
}

fn one_head(inputs: &Inputs, problem: &Problem, outcome: &Outcome, grad: Heads, row: usize, head: usize) -> Head {
    let width = problem.width;
    let scale = problem.options.scale(width) as f32;
    let kv_head = problem.kv_head(head);
    let out = Heads::contiguous(values(&outcome.out), problem.heads, width, problem.queries);
    let logsumexp = values(&outcome.logsumexp);
    let zeros = |tokens: usize| vec![0.0f32; tokens * width];
    let mut of = Head {
        query: zeros(problem.queries),
        key: zeros(problem.keys),
        value: zeros(problem.keys),
    };
    let (mut scores, mut slopes, mut of_scores) = (Vec::new(), Vec::new(), Vec::new());
    for queries in Problem::tiles(problem.queries) {
        let size = queries.len();
        let query = inputs.query.tokens(row, head, &queries);
        let of_out = grad.tokens(row, head, &queries);
        // Σ_j p_j·∂p_j of a query equals the dot product of its output and the gradient of the output.
        let mut along = vec![0.0; size];
        simd!({
            for (along, query) in along.iter_mut().zip(queries.clone()) {
                *along = sum_of2(grad.token(row, head, query), out.token(row, head, query), |a, b| a * b);
            }
        });
        for keys in Problem::tiles(problem.keys) {
            if !problem.any_visible(row, &queries, &keys) {
                continue;
            }
            let count = keys.len();
            let key = inputs.key.tokens(row, kv_head, &keys);
            let value = inputs.value.tokens(row, kv_head, &keys);
            let of_keys = keys.start * width..keys.end * width;
            scores.resize(size * count, 0.0);
            of_scores.resize(size * count, 0.0);
            inputs.scores(problem, row, head, &queries, &keys, &mut scores, Some(&mut slopes));
            product(&mut of_scores, count, of_out, value.t(), 1.0, false, Cores::One);
            simd!({
                let rows = scores.chunks_exact_mut(count).zip(of_scores.chunks_exact_mut(count));
                for (index, (scores, of_scores)) in rows.enumerate() {
                    let visible = problem.visible_keys(row, queries.start + index, &keys);
                    let end = visible.end.max(visible.start);
                    for hidden in [0..visible.start, end..count] {
                        scores[hidden.clone()].fill(0.0);
                        of_scores[hidden].fill(0.0);
                    }
                    let logsumexp = logsumexp[(row * problem.queries + queries.start + index) * problem.heads + head];
                    let along = along[index];
                    for (score, of_score) in scores[visible.start..end]
                        .iter_mut()
                        .zip(&mut of_scores[visible.start..end])
                    {
                        *score = exp_of_negative(*score - logsumexp);
                        *of_score = *score * (*of_score - along);
                    }
                }
                if problem.options.softcap.is_some() {
                    of_scores
                        .iter_mut()
                        .zip(&slopes)
                        .for_each(|(of_score, slope)| *of_score *= slope);
                }
            });
            let probabilities = Mat::rows(&scores, [size, count]);
            let of_scores = Mat::rows(&of_scores, [size, count]);
            let of_query = &mut of.query[queries.start * width..queries.end * width];
            product(
                &mut of.value[of_keys.clone()],
                width,
                probabilities.t(),
                of_out,
                1.0,
                true,
                Cores::One,
            );
            product(of_query, width, of_scores, key, scale, true, Cores::One);
            product(
                &mut of.key[of_keys],
                width,
                of_scores.t(),
                query,
                scale,
                true,
                Cores::One,
            );
        }
    }
    of
}
