//! Scaled dot-product attention that never holds a `[queries, keys]` matrix per head beyond one tile of it (Dao et
//! al. 2022, arXiv 2205.14135): the backward pass computes the probabilities anew.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::compute::wide;

/// The keys that a query sees: always a range, which is what causal masks, sliding windows, padding on either side and
/// packed sequences come to.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Visible {
    /// Every key.
    #[default]
    All,
    /// Keys up to the query's own place. The last query stands at the last key, so that queries may be fewer than keys
    /// (a cache lies before them).
    Causal {
        /// Only so many of the latest keys, the query's own among them.
        window: Option<usize>,
    },
    /// A range for each query of each row: `batch · queries` of them, or `queries` that hold for every row. A query with
    /// an empty range gets zeros.
    Ranges(Arc<[Range<usize>]>),
}

impl Visible {
    /// The keys that query `query` of row `row` sees.
    pub(crate) fn range(&self, row: usize, query: usize, queries: usize, keys: usize) -> Range<usize> {
        match self {
            Self::All => 0..keys,
            Self::Causal { window } => {
                let end = (keys + query + 1).saturating_sub(queries);
                end.saturating_sub(window.unwrap_or(usize::MAX))..end
            }
            Self::Ranges(ranges) => {
                let range = &ranges[(row * queries + query) % ranges.len()];
                range.start..range.end.min(keys)
            }
        }
    }

    /// True where a query does not see a key, `[batch or 1, 1, queries, keys]`; `None` where each sees all. Computed where
    /// the tensors are, of the ranges' ends: a mask made here would have to travel there, in every layer.
    fn hidden(&self, queries: usize, keys: usize, device: &Device) -> Option<Tensor<4, Bool>> {
        let places = Tensor::<1, Int>::arange(0..keys as i64, device).reshape([1, 1, 1, keys]);
        match self {
            Self::All => None,
            Self::Causal { window } => {
                let first = keys as i64 - queries as i64 + 1;
                let ends = Tensor::<1, Int>::arange(first..first + queries as i64, device).reshape([1, 1, queries, 1]);
                let later = places.clone().greater_equal(ends.clone());
                Some(match window {
                    Some(window) => later.bool_or(places.lower(ends.sub_scalar(*window.min(&keys) as i64))),
                    None => later,
                })
            }
            Self::Ranges(ranges) => {
                let of = |end: fn(&Range<usize>) -> usize| {
                    let ends: Vec<i64> = ranges.iter().map(|range| end(range) as i64).collect();
                    let shape = [ends.len() / queries, 1, queries, 1];
                    Tensor::<4, Int>::from_data(TensorData::new(ends, shape), device)
                };
                let before = places.clone().lower(of(|range| range.start));
                Some(before.bool_or(places.greater_equal(of(|range| range.end))))
            }
        }
    }

    /// Whether a query may see nothing.
    fn may_be_empty(&self, queries: usize, keys: usize) -> bool {
        match self {
            Self::All => false,
            Self::Causal { window } => queries > keys || *window == Some(0),
            Self::Ranges(ranges) => ranges.iter().any(|range| range.start >= range.end.min(keys)),
        }
    }

    fn check(&self, batch: usize, queries: usize) {
        if let Self::Ranges(ranges) = self {
            let count = ranges.len();
            assert!(
                count > 0 && (count == queries || count == batch * queries),
                "{count} ranges for {batch} rows of {queries} queries"
            );
        }
    }
}

/// How scores become probabilities.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AttentionOptions {
    /// Factor of the scores; 1/√width if absent.
    pub scale: Option<f64>,
    /// Scores are `cap·tanh(scores / cap)`, as in Gemma 2.
    pub softcap: Option<f64>,
    /// What queries see.
    pub visible: Visible,
}

impl AttentionOptions {
    pub(crate) fn scale(&self, width: usize) -> f64 {
        self.scale.unwrap_or((width as f64).powf(-0.5))
    }
}

/// `softmax(scale·query·keyᵀ)·value`.
///
/// `query`: `[batch, heads, queries, width]`, `key` and `value`: `[batch, kv_heads, keys, width]`, where `kv_heads`
/// divides `heads` and neighbouring heads share a key; result as `query`. On flex, views such as
/// `x.reshape([batch, tokens, heads, width]).swap_dims(1, 2)` are read where they lie, and the result lies in memory as
/// `[batch, queries, heads, width]`, so that `swap_dims(1, 2).reshape(..)` of it is free.
pub fn attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, options: &AttentionOptions) -> Tensor<4> {
    let [batch, _, queries, _] = query.dims();
    options.visible.check(batch, queries);
    #[cfg(feature = "flex")]
    if [&query, &key, &value].into_iter().all(crate::flex::takes) {
        return crate::flex::attention::attention(query, key, value, options.clone());
    }
    plain(query, key, value, options)
}

/// [`attention`] of a fused projection. `qkv`: `[batch, tokens, 3·d_model]`, the queries of all heads, then the keys,
/// then the values. Only the first `queries` tokens ask; result `[batch, queries, d_model]`. With [`Visible::Causal`],
/// where the last query stands at the last key, all must.
pub fn attention_qkv(qkv: Tensor<3>, heads: usize, queries: usize, options: &AttentionOptions) -> Tensor<3> {
    let [batch, tokens, width] = qkv.dims();
    options.visible.check(batch, queries);
    let causal = matches!(options.visible, Visible::Causal { .. });
    assert!(
        queries == tokens || queries < tokens && !causal,
        "the first {queries} of {tokens} tokens cannot ask"
    );
    #[cfg(feature = "flex")]
    if crate::flex::takes(&qkv) {
        return crate::flex::attention::attention_qkv(qkv, heads, queries, options.clone());
    }
    let d_model = width / 3;
    let qkv = qkv
        .reshape([batch, tokens, 3, heads, d_model / heads])
        .permute([2, 0, 3, 1, 4]);
    let part = |i: usize| qkv.clone().narrow(0, i, 1).squeeze_dim::<4>(0);
    plain(part(0).narrow(2, 0, queries), part(1), part(2), options)
        .swap_dims(1, 2)
        .reshape([batch, queries, d_model])
}

fn plain(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, options: &AttentionOptions) -> Tensor<4> {
    let [batch, heads, queries, width] = query.dims();
    let [_, kv_heads, keys, _] = key.dims();
    if let (Visible::Causal { window }, 1) = (&options.visible, queries)
        && *window != Some(0)
    {
        // The latest token needs no mask.
        let seen = window.map_or(keys, |window| window.min(keys));
        let options = AttentionOptions {
            visible: Visible::All,
            ..options.clone()
        };
        let latest = |held: Tensor<4>| held.narrow(2, keys - seen, seen);
        return plain(query, latest(key), latest(value), &options);
    }
    // Heads that share a key are rows of one product.
    let rows = heads / kv_heads * queries;
    let scores = query
        .mul_scalar(options.scale(width))
        .reshape([batch, kv_heads, rows, width])
        .matmul(key.swap_dims(2, 3));
    let scores = match options.softcap {
        Some(cap) => scores.div_scalar(cap).tanh().mul_scalar(cap),
        None => scores,
    }
    .reshape([batch, heads, queries, keys]);
    let dtype = scores.dtype();
    let scores = wide(scores);
    let probabilities = match options.visible.hidden(queries, keys, &scores.device()) {
        None => softmax(scores, 3),
        Some(hidden) => {
            let hidden = hidden.expand([batch, heads, queries, keys]);
            // Finite, so that a query that sees nothing has no NaN; its row is zeroed after.
            let probabilities = softmax(scores.mask_fill(hidden.clone(), -1e30), 3);
            match options.visible.may_be_empty(queries, keys) {
                true => probabilities.mask_fill(hidden, 0.0),
                false => probabilities,
            }
        }
    };
    probabilities
        .cast(dtype)
        .reshape([batch, kv_heads, rows, keys])
        .matmul(value)
        .reshape([batch, heads, queries, width])
}
