//! Shared by both passes: heads inside larger tensors, and tiles of scores.

use std::ops::Range;

use crate::attention_options::{AttentionOptions, Visible};
use crate::flex::gemm::{Cores, product};
use crate::flex::heads::Heads;
use crate::flex::math::tanh;
use crate::flex::simd::simd;

/// Most queries and keys in a tile: two tiles of scores fit a 512 KiB L2 cache, and the 197 tokens of a ViT at 224 pixels
/// form one tile.
const TILE: usize = 224;

/// Shapes and options of one call.
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
    /// The key and value head that query head `head` reads.
    pub fn kv_head(&self, head: usize) -> usize {
        head * self.kv_heads / self.heads
    }

    /// Ranges of nearly equal size that cover `0..count`.
    pub fn tiles(count: usize) -> Vec<Range<usize>> {
        let size = count.div_ceil(count.div_ceil(TILE).max(1)).max(1);
        (0..count)
            .step_by(size)
            .map(|from| from..count.min(from + size))
            .collect()
    }

    /// The part of `keys` that is visible to query `query` of sequence `row`, relative to the start of `keys`.
    pub fn visible_keys(&self, row: usize, query: usize, keys: &Range<usize>) -> Range<usize> {
        let range = self.options.visible.range(row, query, self.queries, self.keys);
        let (from, end) = (range.start.max(keys.start), range.end.min(keys.end));
        from.min(end).saturating_sub(keys.start)..end.saturating_sub(keys.start)
    }

    /// Whether any of `keys` is visible to any of `queries`.
    pub fn any_visible(&self, row: usize, queries: &Range<usize>, keys: &Range<usize>) -> bool {
        if self.options.visible == Visible::All {
            return !queries.is_empty() && !keys.is_empty();
        }
        queries
            .clone()
            .any(|query| !self.visible_keys(row, query, keys).is_empty())
    }
}

/// Query, key and value.
pub struct Inputs<'a> {
    pub query: Heads<'a>,
    pub key: Heads<'a>,
    pub value: Heads<'a>,
}

impl Inputs<'_> {
    /// Writes the soft-capped scores of one head's tile to `out`, `[queries, keys]`; `slopes` receives the derivative of the
    /// soft cap.
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
            simd!({
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
