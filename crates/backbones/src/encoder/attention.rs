//! Bidirectional self-attention: its masks, and the weighted sum of the values.

use std::cell::OnceCell;
use std::ops::Range;

use burn::nn::Dropout;
use burn::tensor::activation::softmax;
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};
use kernels::Visible;
use wegeft::Prompts;

use super::relative::Relative;
use crate::lm::Layout;
use crate::lm::attention::attend as attend_fused;
use crate::lm::rope::Rotation;

/// What all layers of one forward pass share.
#[derive(Debug)]
pub struct Pass {
    /// The mask of layers with global attention.
    pub full: Mask,
    /// The mask of layers with local attention, if the model has them.
    pub local: Option<Mask>,
    /// Rotations of global and of local layers (ModernBERT).
    pub rotations: Vec<Rotation>,
    /// Relative positions (DeBERTa).
    pub(super) relative: Option<Relative>,
    /// Where the tokens stand in their texts.
    pub(super) prompts: Prompts,
    /// 1 at tokens and 0 at padding, `[batch, tokens, 1]`, for models that need it and batches that have padding.
    pub(super) real: Option<Tensor<3>>,
}

impl Pass {
    /// Every token sees its whole text.
    pub fn new(layout: &Layout) -> Self {
        Self {
            full: Mask::new(layout, None),
            local: None,
            rotations: Vec::new(),
            relative: None,
            prompts: layout.prompts(),
            real: None,
        }
    }
}

/// Which tokens each token attends to: those of its own text, at most `reach` away; padding attends to nothing.
#[derive(Debug)]
pub struct Mask {
    /// Shared by all layers of the pass.
    visible: Visible,
    queries: usize,
    tokens: usize,
    hidden: OnceCell<Tensor<4, Bool>>,
}

impl Mask {
    /// The mask of `layout`.
    pub fn new(layout: &Layout, reach: Option<usize>) -> Self {
        let tokens = layout.tokens();
        let reach = reach.filter(|reach| *reach < tokens);
        let whole = layout.real().all(|real| real) && {
            let mut positions = layout.positions().iter().enumerate();
            positions.all(|(index, position)| *position as usize == index % tokens)
        };
        let visible = match (whole, reach) {
            (true, None) => Visible::All,
            (true, Some(reach)) => {
                let ranges = (0..tokens).map(|place| near(0..tokens, place, Some(reach)));
                Visible::Ranges(ranges.collect())
            }
            (false, reach) => Visible::Ranges(ranges(layout, reach).into()),
        };
        Self::of(visible, tokens, tokens)
    }

    fn of(visible: Visible, queries: usize, tokens: usize) -> Self {
        Self {
            visible: visible.shared(),
            queries,
            tokens,
            hidden: OnceCell::new(),
        }
    }

    /// What the first column of each row attends to.
    pub(super) fn first(&self) -> Self {
        let visible = match self.visible.unshared() {
            Visible::Ranges(ranges) => Visible::Ranges(ranges.iter().step_by(self.tokens).cloned().collect()),
            other => other.clone(),
        };
        Self::of(visible, 1, self.tokens)
    }

    /// True where a token does not see another, `[batch or 1, 1, queries, tokens]`; `None` where each sees all. Made at most
    /// once a pass.
    fn hidden(&self, device: &Device) -> Option<Tensor<4, Bool>> {
        let Visible::Ranges(ranges) = self.visible.unshared() else {
            return None;
        };
        let make = || {
            let ends = |of: fn(&Range<usize>) -> usize| {
                let ends: Vec<i64> = ranges.iter().map(|range| of(range) as i64).collect();
                let shape = [ends.len() / self.queries, 1, self.queries, 1];
                Tensor::<4, Int>::from_data(TensorData::new(ends, shape), device)
            };
            let places = Tensor::<1, Int>::arange(0..self.tokens as i64, device).reshape([1, 1, 1, self.tokens]);
            let before = places.clone().lower(ends(|range| range.start));
            before.bool_or(places.greater_equal(ends(|range| range.end)))
        };
        Some(self.hidden.get_or_init(make).clone())
    }
}

fn near(text: Range<usize>, place: usize, reach: Option<usize>) -> Range<usize> {
    match reach {
        Some(reach) => text.start.max(place.saturating_sub(reach))..text.end.min(place + reach + 1),
        None => text,
    }
}

/// For each token of each row the columns that it sees.
fn ranges(layout: &Layout, reach: Option<usize>) -> Vec<Range<usize>> {
    let tokens = layout.tokens();
    let real: Vec<bool> = layout.real().collect();
    let mut ranges = Vec::with_capacity(real.len());
    for (row, positions) in layout.positions().chunks_exact(tokens.max(1)).enumerate() {
        // Tokens of one text agree in where it begins.
        let start = |place: usize| real[row * tokens + place].then(|| place - positions[place] as usize);
        let mut place = 0;
        while place < tokens {
            let text = start(place);
            let end = (place..tokens).find(|next| start(*next) != text).unwrap_or(tokens);
            ranges.extend((place..end).map(|place| match text {
                Some(first) => near(first..end, place, reach),
                None => 0..0,
            }));
            place = end;
        }
    }
    ranges
}

/// True if `dropout` drops anything on `device`.
pub(super) fn drops(dropout: &Dropout, device: &Device) -> bool {
    dropout.prob > 0.0 && dropout.training.is_enabled() && device.is_autodiff()
}

/// Scaled dot-product attention. `query`: `[batch, heads, queries, width]`, `key` and `value`: `[batch, heads, tokens,
/// width]`; result `[batch, queries, heads·width]`.
pub(super) fn attend(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    mask: &Mask,
    scale: f64,
    dropout: &Dropout,
) -> Tensor<3> {
    if !drops(dropout, &query.device()) {
        return attend_fused(query, key, value, &mask.visible, scale, None);
    }
    let scores = query.mul_scalar(scale).matmul(key.swap_dims(2, 3));
    mix(scores, value, mask, dropout)
}

/// `dropout(softmax(scores))·value`. `scores`: `[batch, heads, queries, tokens]`, `value`: `[batch, heads, tokens,
/// width]`; result `[batch, queries, heads·width]`.
pub(super) fn mix(scores: Tensor<4>, value: Tensor<4>, mask: &Mask, dropout: &Dropout) -> Tensor<3> {
    let dtype = value.dtype();
    let [batch, heads, queries, tokens] = scores.dims();
    let width = value.dims()[3];
    let scores = scores.cast(DType::F32);
    let scores = match mask.hidden(&scores.device()) {
        // Finite: padding, which sees nothing, then has no NaN.
        Some(hidden) => scores.mask_fill(hidden.expand([batch, heads, queries, tokens]), -1e30),
        None => scores,
    };
    let probabilities = dropout.forward(softmax(scores, 3)).cast(dtype);
    let mixed = probabilities.matmul(value);
    mixed.swap_dims(1, 2).reshape([batch, queries, heads * width])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lm::Side;

    #[test]
    fn a_token_sees_its_text_within_reach() {
        let seen = |layout: &Layout, reach| match Mask::new(layout, reach).visible.unshared().clone() {
            Visible::All => None,
            Visible::Ranges(ranges) => Some(ranges.to_vec()),
            other => panic!("{other:?}"),
        };
        assert_eq!(seen(&Layout::dense(2, 3), None), None);
        assert_eq!(seen(&Layout::dense(2, 3), Some(3)), None);
        assert_eq!(seen(&Layout::dense(2, 3), Some(1)), Some(vec![0..2, 0..3, 1..3]));
        let right = Layout::padded(&[3, 1], 3, Side::Right);
        assert_eq!(seen(&right, None), Some(vec![0..3, 0..3, 0..3, 0..1, 0..0, 0..0]));
        let left = Layout::padded(&[1, 3], 3, Side::Left);
        assert_eq!(seen(&left, Some(1)), Some(vec![0..0, 0..0, 2..3, 0..2, 0..3, 1..3]));
        let packed = Layout::packed(&[vec![1, 2]], 4);
        assert_eq!(seen(&packed, None), Some(vec![0..1, 1..3, 1..3, 0..0]));
        let first = Mask::new(&right, None).first().visible.unshared().clone();
        assert_eq!(first, Visible::Ranges(vec![0..3, 0..1].into()));
    }
}
