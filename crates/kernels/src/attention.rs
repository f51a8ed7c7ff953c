//! Scaled dot-product attention that never stores more than one tile of a head's `[queries, keys]` matrix (Dao et al. 2022,
//! arXiv 2205.14135): the backward pass recomputes the probabilities.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::dtype::upcast;
use crate::operands::Operands;

/// The keys visible to each query. Always one contiguous range, which covers causal masks, sliding windows, padding on either
/// side and packed sequences.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Visible {
    /// Every key.
    #[default]
    All,
    /// Keys up to the query's own position. The last query is aligned with the last key, so there may be fewer queries than
    /// keys (the others come from a KV cache).
    Causal {
        /// Width of the sliding window: only this many of the latest keys, including the query's own.
        window: Option<usize>,
    },
    /// One range per query: `batch · queries` of them, or `queries` that apply to every sequence of the batch. A query with an
    /// empty range produces zeros.
    Ranges(Arc<[Range<usize>]>),
}

impl Visible {
    /// The keys visible to query `query` of sequence `row`.
    #[cfg(feature = "flex")]
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

    /// True where a key is hidden from a query, `[batch or 1, 1, queries, keys]`; `None` if nothing is hidden. Computed on the
    /// device from the ends of the ranges: a mask built on the host would have to be uploaded in every layer.
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

    /// Whether a query may have no visible key.
    fn may_be_empty(&self, queries: usize, keys: usize) -> bool {
        match self {
            Self::All => false,
            Self::Causal { window } => queries > keys || *window == Some(0),
            Self::Ranges(ranges) => ranges.iter().any(|range| range.start >= range.end.min(keys)),
        }
    }

    #[track_caller]
    fn check(&self, operands: &Operands, batch: usize, queries: usize) {
        if let Self::Ranges(ranges) = self {
            let count = ranges.len();
            operands.require(count == queries || count == batch * queries, || {
                format!("`visible` has {count} ranges; expected one per query: {queries}, or {batch} x {queries}")
            });
        }
    }
}

/// How scores become probabilities.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AttentionOptions {
    /// Factor applied to the scores; 1/√width if absent.
    pub scale: Option<f64>,
    /// Scores are `cap·tanh(scores / cap)`, as in Gemma 2.
    pub softcap: Option<f64>,
    /// The keys visible to each query.
    pub visible: Visible,
}

impl AttentionOptions {
    pub(crate) fn scale(&self, width: usize) -> f64 {
        self.scale.unwrap_or((width as f64).powf(-0.5))
    }
}

/// `softmax(scale·query·keyᵀ)·value`.
///
/// `query`: `[batch, heads, queries, width]`, `key` and `value`: `[batch, kv_heads, keys, width]`, where `kv_heads` divides
/// `heads` and consecutive heads share a key (grouped-query attention); the result has the shape of `query`. On flex, views
/// such as `x.reshape([batch, tokens, heads, width]).swap_dims(1, 2)` are read without a copy, and the result is stored as
/// `[batch, queries, heads, width]`, so that `swap_dims(1, 2).reshape(..)` of it costs nothing.
///
/// # Panics
/// Operands that differ in dtype or device, or whose shapes do not match; ranges that are not one per query.
#[track_caller]
pub fn attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, options: &AttentionOptions) -> Tensor<4> {
    let ([batch, heads, queries, width], [_, kv_heads, keys, _]) = (query.dims(), key.dims());
    let operands = Operands::of("attention", "query", &query);
    operands
        .same("key", &key)
        .same("value", &value)
        .shape(
            "key",
            &key.dims(),
            &[batch, kv_heads, keys, width],
            "[batch, kv_heads, keys, width]",
        )
        .shape("value", &value.dims(), &key.dims(), "the shape of `key`")
        .require(heads == 0 || kv_heads > 0 && heads.is_multiple_of(kv_heads), || {
            format!("`query` has {heads} heads, `key` {kv_heads}; expected a divisor of {heads}")
        });
    options.visible.check(&operands, batch, queries);
    if query.shape().num_elements() == 0 || keys == 0 {
        return Tensor::zeros(query.dims(), (&query.device(), query.dtype()));
    }
    #[cfg(feature = "flex")]
    if [&query, &key, &value].into_iter().all(crate::flex::supports) {
        return crate::flex::attention::attention(query, key, value, options.clone());
    }
    plain(query, key, value, options)
}

/// [`attention`] on a fused projection. `qkv`: `[batch, tokens, 3·d_model]`, the queries of all heads, then the keys, then the
/// values. Only the first `queries` tokens are used as queries; result `[batch, queries, d_model]`. With
/// [`Visible::Causal`], which aligns the last query with the last key, `queries` must be `tokens`.
///
/// # Panics
/// `qkv` is not a float tensor, its last dimension is not divisible by 3·heads, or `queries` is too large.
#[track_caller]
pub fn attention_qkv(qkv: Tensor<3>, heads: usize, queries: usize, options: &AttentionOptions) -> Tensor<3> {
    let [batch, tokens, width] = qkv.dims();
    let operands = Operands::of("attention_qkv", "qkv", &qkv);
    let causal = matches!(options.visible, Visible::Causal { .. });
    operands
        .require(heads > 0 && width.is_multiple_of(3 * heads), || {
            format!("`qkv` has {width} channels; expected a multiple of 3 x {heads} heads")
        })
        .require(queries == tokens || queries < tokens && !causal, || {
            let most = if causal {
                "all of them with a causal mask"
            } else {
                "at most all of them"
            };
            format!("{queries} queries of {tokens} tokens; expected {most}")
        });
    options.visible.check(&operands, batch, queries);
    if qkv.shape().num_elements() == 0 || queries == 0 {
        return Tensor::zeros([batch, queries, width / 3], (&qkv.device(), qkv.dtype()));
    }
    #[cfg(feature = "flex")]
    if crate::flex::supports(&qkv) {
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
        // The newest token needs no mask.
        let visible_keys = window.map_or(keys, |window| window.min(keys));
        let options = AttentionOptions {
            visible: Visible::All,
            ..options.clone()
        };
        let latest = |past: Tensor<4>| past.narrow(2, keys - visible_keys, visible_keys);
        return plain(query, latest(key), latest(value), &options);
    }
    // Heads that share a key become rows of one product.
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
    let scores = upcast(scores);
    let probabilities = match options.visible.hidden(queries, keys, &scores.device()) {
        None => softmax(scores, 3),
        Some(hidden) => {
            let hidden = hidden.expand([batch, heads, queries, keys]);
            // Finite, so that a query without visible keys gives no NaN; its row is set to zero afterwards.
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
