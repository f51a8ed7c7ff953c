//! Rotary position embeddings (Su et al. 2021, arXiv 2104.09864).

use burn::tensor::Tensor;

use crate::operands::Operands;

/// Rotates queries or keys: channel `i` of the first `half` channels (a) and channel `i` of the next `half` (b) become
/// `(a·cos - b·sin, b·cos + a·sin)`; further channels are unchanged.
///
/// `x`: `[batch, heads, tokens, width]`, `cos` and `sin`: `[batch or 1, 1, tokens, half]`, of any float dtype, without gradient;
/// the result has the shape of `x`. On flex, a view such as `x.reshape([batch, tokens, heads, width]).swap_dims(1, 2)` is read
/// without a copy, and the result is stored as `[batch, tokens, heads, width]`.
///
/// # Panics
/// `cos` or `sin` is not a float tensor of that shape, with 2·half ≤ width, on the device of `x`.
#[track_caller]
pub fn rope(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    rotated(x, cos, sin, None)
}

/// The cosines and sines of [`rope`] for all layers of a pass: what the layers share is computed once.
#[derive(Debug, Clone)]
pub struct RopeTable {
    cos: Tensor<4>,
    sin: Tensor<4>,
    /// See [`signed`]; absent where the rotation is fused.
    signed: Option<Tensor<5>>,
}

impl RopeTable {
    /// `cos` and `sin`: `[batch or 1, 1, tokens, half]`.
    pub fn new(cos: Tensor<4>, sin: Tensor<4>) -> Self {
        #[cfg(feature = "flex")]
        let is_plain = !crate::flex::supports(&sin);
        #[cfg(not(feature = "flex"))]
        let is_plain = true;
        let signed = (is_plain && sin.shape().num_elements() > 0).then(|| signed(sin.clone()));
        Self { cos, sin, signed }
    }

    /// [`rope`] of `x`.
    ///
    /// # Panics
    /// As [`rope`].
    #[track_caller]
    pub fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        rotated(x, self.cos.clone(), self.sin.clone(), self.signed.clone())
    }
}

/// `-sin` for the first half of the channels and `sin` for the second, `[batch or 1, 1, tokens, 2, half]`.
fn signed(sin: Tensor<4>) -> Tensor<5> {
    let [rows, _, tokens, half] = sin.dims();
    let sin = sin.detach().reshape([rows, 1, tokens, 1, half]);
    Tensor::cat(vec![sin.clone().neg(), sin], 3)
}

#[track_caller]
fn rotated(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>, known: Option<Tensor<5>>) -> Tensor<4> {
    let ([batch, heads, tokens, width], [rows, _, _, half]) = (x.dims(), cos.dims());
    let operands = Operands::of("rope", "x", &x);
    operands
        .float("cos", &cos)
        .require(rows == 1 || rows == batch, || {
            format!(
                "`cos` has shape {:?}; expected one row or {batch}, the batch of `x`",
                cos.dims()
            )
        })
        .require(2 * half <= width, || {
            format!(
                "`cos` has {half} angles per token, but the {width} channels of `x` have room for {}",
                width / 2
            )
        })
        .shape(
            "cos",
            &cos.dims(),
            &[rows, 1, tokens, half],
            "[batch or 1, 1, tokens, half]",
        )
        .float("sin", &sin)
        .shape("sin", &sin.dims(), &cos.dims(), "the shape of `cos`");
    if x.shape().num_elements() == 0 || half == 0 {
        return x;
    }
    let [cos, sin] = [cos, sin].map(|table| table.cast(x.dtype()));
    #[cfg(feature = "flex")]
    if [&x, &cos, &sin].into_iter().all(crate::flex::supports) {
        return crate::flex::rope::rope(x, cos, sin);
    }
    let [cos, sin] = [cos, sin].map(Tensor::detach);
    if width == 2 * half {
        // One reversal and one sum instead of slices and a concatenation, which GPUs do not fuse.
        let signed = known.unwrap_or_else(|| signed(sin)).cast(x.dtype());
        let cos = cos.reshape([rows, 1, tokens, 1, half]);
        let pairs = x.reshape([batch, heads, tokens, 2, half]);
        let flipped = pairs.clone().flip([3]);
        return (pairs * cos + flipped * signed).reshape([batch, heads, tokens, width]);
    }
    let (first, second) = (x.clone().narrow(3, 0, half), x.clone().narrow(3, half, half));
    let parts = vec![
        first.clone() * cos.clone() - second.clone() * sin.clone(),
        second * cos + first * sin,
        x.narrow(3, 2 * half, width - 2 * half),
    ];
    Tensor::cat(parts, 3)
}
