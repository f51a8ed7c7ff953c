//! What attention takes besides its tensors: the visible keys and the scale of the scores.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};

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
    /// The same as another, for all layers of a pass: its mask is made on the device once, not in every layer. See
    /// [`Visible::shared`].
    Shared(Arc<SharedMask>),
}

/// What is visible in a pass, and its mask on the device.
#[derive(Debug)]
pub struct SharedMask {
    visible: Visible,
    /// The mask, if not `visible` says what is hidden.
    given: Option<Mask>,
    made: Mutex<Option<Made>>,
}

/// The last mask that was asked for, and for what.
#[derive(Debug)]
struct Made {
    queries: usize,
    keys: usize,
    autodiff: bool,
    mask: Mask,
}

/// How hidden keys are kept out of a softmax. A sum and a product rather than fills: they need no copy of the mask for every
/// head, and GPUs compute them with the operations beside them.
#[derive(Debug, Clone)]
pub(crate) struct Mask {
    /// Added to the scores, `[batch or 1, 1, queries, keys]`. Finite, so that a query without visible keys gives no NaN.
    pub bias: Tensor<4>,
    /// Multiplied with the result, `[batch or 1, 1, queries, 1]`: 0 for a query without visible keys; absent if there is none.
    pub seeing: Option<Tensor<4>>,
}

impl Mask {
    fn new(hidden: Tensor<4, Bool>, seeing: Option<Tensor<4>>, dtype: DType) -> Self {
        let zeros = Tensor::<4>::zeros(hidden.dims(), (&hidden.device(), dtype));
        Self {
            bias: zeros.mask_fill(hidden, -1e30),
            seeing,
        }
    }

    fn cast(&self, dtype: DType) -> Self {
        let Self { bias, seeing } = self.clone();
        Self {
            bias: bias.cast(dtype),
            seeing: seeing.map(|seeing| seeing.cast(dtype)),
        }
    }
}

impl PartialEq for SharedMask {
    fn eq(&self, other: &Self) -> bool {
        self.given.is_none() && other.given.is_none() && self.visible == other.visible
    }
}

impl SharedMask {
    fn mask(&self, queries: usize, keys: usize, device: &Device, dtype: DType) -> Option<Mask> {
        if let Some(given) = &self.given {
            return Some(given.cast(dtype));
        }
        // A panic elsewhere leaves a whole mask or none.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = (queries, keys, device.is_autodiff());
        if let Some(last) = made.as_ref()
            && (last.queries, last.keys, last.autodiff) == wanted
            && last.mask.bias.device() == *device
        {
            return Some(last.mask.cast(dtype));
        }
        let mask = self.visible.mask(queries, keys, device, dtype)?;
        *made = Some(Made {
            queries,
            keys,
            autodiff: device.is_autodiff(),
            mask: mask.clone(),
        });
        Some(mask)
    }
}

impl Visible {
    /// The same, for all layers of a pass.
    pub fn shared(self) -> Self {
        match self {
            // Nothing is hidden, so there is no mask to share.
            Self::All => Self::All,
            Self::Shared(_) => self,
            visible => Self::Shared(Arc::new(SharedMask {
                visible,
                given: None,
                made: Mutex::new(None),
            })),
        }
    }

    /// All but what a mask on the device hides: `hidden` is true there, `[batch or 1, 1, queries, keys]`; every query sees a
    /// key. Not for flex, whose own attention reads ranges instead of a mask.
    pub fn masked(hidden: Tensor<4, Bool>) -> Self {
        let [_, _, queries, keys] = hidden.dims();
        let all = vec![0..keys; queries];
        Self::Shared(Arc::new(SharedMask {
            visible: Self::Ranges(all.into()),
            given: Some(Mask::new(hidden, None, DType::F32)),
            made: Mutex::new(None),
        }))
    }

    /// What is visible, without the mask on the device.
    pub fn unshared(&self) -> &Self {
        match self {
            Self::Shared(mask) => &mask.visible,
            own => own,
        }
    }

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
            Self::Shared(mask) => mask.visible.range(row, query, queries, keys),
        }
    }

    /// The mask of scores of type `dtype`; `None` if nothing is hidden.
    pub(crate) fn mask(&self, queries: usize, keys: usize, device: &Device, dtype: DType) -> Option<Mask> {
        if let Self::Shared(mask) = self {
            return mask.mask(queries, keys, device, dtype);
        }
        let hidden = self.hidden(queries, keys, device)?;
        let seeing = self.may_be_empty(queries, keys).then(|| {
            let count = hidden.clone().int().sum_dim(3);
            count.lower_elem(keys as i64).float().cast(dtype)
        });
        Some(Mask::new(hidden, seeing, dtype))
    }

    /// True where a key is hidden from a query, `[batch or 1, 1, queries, keys]`; `None` if nothing is hidden. Computed on
    /// the device from the ends of the ranges: a mask built on the host would be far larger to upload.
    fn hidden(&self, queries: usize, keys: usize, device: &Device) -> Option<Tensor<4, Bool>> {
        let places = || Tensor::<1, Int>::arange(0..keys as i64, device).reshape([1, 1, 1, keys]);
        match self {
            Self::All => None,
            Self::Shared(mask) => mask.visible.hidden(queries, keys, device),
            Self::Causal { window } => {
                let places = places();
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
                let places = places();
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
            Self::Shared(mask) => mask.visible.may_be_empty(queries, keys),
        }
    }

    #[track_caller]
    pub(crate) fn check(&self, operands: &Operands, batch: usize, queries: usize) {
        if let Self::Ranges(ranges) = self.unshared() {
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
    /// The same without the mask on the device, for an operation that makes none or others.
    pub(crate) fn unshared(&self) -> Self {
        Self {
            visible: self.visible.unshared().clone(),
            ..*self
        }
    }

    pub(crate) fn scale(&self, width: usize) -> f64 {
        self.scale.unwrap_or((width as f64).powf(-0.5))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn a_shared_mask_is_made_once_for_each_shape_and_device() {
        let ranges = Visible::Ranges([0..1, 0..2, 1..2].into());
        let device = Device::flex();
        for visible in [Visible::Causal { window: Some(2) }, ranges] {
            let shared = visible.clone().shared();
            let mask = |of: &Visible, device: &Device| of.mask(3, 3, device, DType::F32).unwrap();
            for device in [&device, &device.clone().autodiff(), &device] {
                let [made, own] = [&shared, &visible].map(|of| mask(of, device).bias);
                assert_eq!(made.is_autodiff(), device.is_autodiff());
                assert_eq!(made.into_data(), own.into_data());
            }
            let Visible::Shared(inside) = &shared else {
                panic!("{shared:?}")
            };
            let made = inside.made.lock().unwrap();
            assert!(made.as_ref().is_some_and(|made| !made.autodiff && made.keys == 3));
            assert_eq!((shared.unshared(), shared.clone().shared()), (&visible, shared.clone()));
        }
        assert_eq!(Visible::All.shared(), Visible::All);
    }

    #[test]
    fn a_query_that_sees_nothing_is_marked() {
        let device = Device::flex();
        let mask = |visible: Visible| visible.mask(3, 2, &device, DType::F32).unwrap();
        let values = |tensor: Tensor<4>| tensor.into_data().iter::<f32>().collect::<Vec<_>>();
        let ranges = mask(Visible::Ranges([0..1, 1..1, 1..2].into()));
        assert_eq!(values(ranges.bias), [0.0, -1e30, -1e30, -1e30, -1e30, 0.0]);
        assert_eq!(ranges.seeing.map(values), Some(vec![1.0, 0.0, 1.0]));
        let causal = mask(Visible::Causal { window: None });
        assert_eq!(causal.seeing.map(values), Some(vec![0.0, 1.0, 1.0]));
        assert!(mask(Visible::Ranges([0..1, 0..1, 1..2].into())).seeing.is_none());
    }

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
