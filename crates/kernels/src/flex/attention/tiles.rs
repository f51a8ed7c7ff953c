//! What both passes work on: heads inside larger tensors, and tiles of scores.

use std::ops::Range;

use crate::attention::AttentionOptions;
use crate::flex::gemm::{Cores, product};
use crate::flex::heads::Heads;
use crate::flex::normal::tanh;
use crate::flex::wide::wide;

/// Queries and keys of a tile at most: two tiles of scores fit a 512 KiB second-level cache, and the 197 tokens of a
/// ViT at 224 pixels are one.
const TILE: usize = 224;

/// Sizes and options of one call.
#[derive(Debug, Clone)]
pub struct Problem {
    pub batch: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub queries: usize,
    pub keys: usize,
    pub width: usize,
    pub options: AttentionOptions,
}

impl Problem {
    /// The head of keys and values that head `head` reads.
    pub fn kv_head(&self, head: usize) -> usize {
        head * self.kv_heads / self.heads
    }

    /// Ranges that cover `0..count`, of nearly equal size.
    pub fn tiles(count: usize) -> Vec<Range<usize>> {
        let size = count.div_ceil(count.div_ceil(TILE).max(1)).max(1);
        (0..count)
            .step_by(size)
            .map(|from| from..count.min(from + size))
            .collect()
    }

    /// The part of `keys` that query `query` of row `row` sees, counted from the start of `keys`.
    pub fn seen(&self, row: usize, query: usize, keys: &Range<usize>) -> Range<usize> {
        let range = self.options.visible.range(row, query, self.queries, self.keys);
        let (from, end) = (range.start.max(keys.start), range.end.min(keys.end));
        from.min(end).saturating_sub(keys.start)..end.saturating_sub(keys.start)
    }

    /// False if none of `queries` sees any of `keys`.
    pub fn any_seen(&self, row: usize, queries: &Range<usize>, keys: &Range<usize>) -> bool {
        queries.clone().any(|query| !self.seen(row, query, keys).is_empty())
    }
}

/// Query, key and value.
pub struct Inputs<'a> {
    pub query: Heads<'a>,
    pub key: Heads<'a>,
    pub value: Heads<'a>,
}

impl Inputs<'_> {
    /// Scores of a tile of one head into `out`, `[queries, keys]`, soft-capped; with `slopes`, the factor that the cap
    /// puts on their gradients.
    #[allow(clippy::too_many_arguments)]
    pub fn scores(
        &self,
        problem: &Problem,
        row: usize,
        head: usize,
        queries: &Range<usize>,
        keys: &Range<usize>,
        out: &mut [f32],
        mut slopes: Option<&mut Vec<f32>>,
    ) {
        let query = self.query.tokens(row, head, queries);
        let key = self.key.tokens(row, problem.kv_head(head), keys);
        let scale = problem.options.scale(problem.width) as f32;
        product(out, keys.len(), query, key.t(), scale, false, Cores::One);
        if let Some(cap) = problem.options.softcap {
            let cap = cap as f32;
            wide!({
                for score in out.iter_mut() {
                    *score = tanh(*score / cap);
                }
                if let Some(slopes) = &mut slopes {
                    slopes.resize(out.len(), 0.0);
                    for (slope, tanh) in slopes.iter_mut().zip(out.iter()) {
                        *slope = 1.0 - tanh * tanh;
                    }
                }
                for score in out.iter_mut() {
                    *score *= cap;
                }
            });
        }
    }
}
