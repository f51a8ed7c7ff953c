//! What attention takes besides its tensors: the visible keys and the scale of the scores.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::operands::Operands;

/// The keys visible to each query. Always one contiguous range, which covers causal masks, sliding windows, padding on
/// either side and packed sequences.
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
    /// One range per query: `batch · queries` of them, or `queries` that apply to every sequence of the batch. A query
    /// with an empty range produces zeros.
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

    /// True where a key is hidden from a query, `[batch or 1, 1, queries, keys]`; `None` if nothing is hidden. Computed on
    /// the device from the ends of the ranges: a mask built on the host would have to be uploaded in every layer.
    pub(crate) fn hidden(&self, queries: usize, keys: usize, device: &Device) -> Option<Tensor<4, Bool>> {
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
                    // An end beyond the keys may be too large for the integers of a device.
                    let ends: Vec<i64> = ranges.iter().map(|range| end(range).min(keys) as i64).collect();
                    let shape = [ends.len() / queries, 1, queries, 1];
                    Tensor::<4, Int>::from_data(TensorData::new(ends, shape), device)
                };
                let before = places.clone().lower(of(|range| range.start));
                Some(before.bool_or(places.greater_equal(of(|range| range.end))))
            }
        }
    }

    /// Whether a query may have no visible key.
    pub(crate) fn may_be_empty(&self, queries: usize, keys: usize) -> bool {
        match self {
            Self::All => false,
            Self::Causal { window } => queries > keys || *window == Some(0),
            Self::Ranges(ranges) => ranges.iter().any(|range| range.start >= range.end.min(keys)),
        }
    }

    #[track_caller]
    pub(crate) fn check(&self, operands: &Operands, batch: usize, queries: usize) {
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

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn a_range_may_end_anywhere_beyond_the_keys() {
        const KEYS: usize = 3;
        let ends = [KEYS, KEYS + 5, i64::MAX as usize, usize::MAX];
        let ranges: Vec<_> = ends.iter().flat_map(|end| [0..*end, 1..*end, *end..*end]).collect();
        let queries = ranges.len();
        let visible = Visible::Ranges(ranges.into());
        let hidden = visible.hidden(queries, KEYS, &Device::flex()).unwrap();
        let hidden: Vec<bool> = hidden.into_data().iter::<bool>().collect();
        let expected = [[false, false, false], [true, false, false], [true, true, true]];
        assert_eq!(hidden, expected.as_flattened().repeat(ends.len()));
        for query in 0..queries {
            let range = visible.range(0, query, queries, KEYS);
            let seen: Vec<bool> = (0..KEYS).map(|key| !range.contains(&key)).collect();
            assert_eq!(seen, hidden[query * KEYS..][..KEYS]);
        }
    }
}
