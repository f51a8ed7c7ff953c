//! Rotary position embeddings (Su et al. 2021, arXiv 2104.09864).

use burn::tensor::Tensor;

/// Turns queries or keys: of channel `i` of the first `half` channels and channel `i` of the next `half`,
/// `(a·cos - b·sin, b·cos + a·sin)`; channels beyond stay as they are.
///
/// `x`: `[batch, heads, tokens, width]`, `cos` and `sin`: `[batch or 1, 1, tokens, half]`, constants; result as `x`. On
/// flex a view such as `x.reshape([batch, tokens, heads, width]).swap_dims(1, 2)` is read where it lies, and the result
/// lies in memory as `[batch, tokens, heads, width]`.
pub fn rope(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    let (width, half) = (x.dims()[3], cos.dims()[3]);
    assert!(
        2 * half <= width && cos.dims() == sin.dims(),
        "angles {:?} and {:?} for {:?}",
        cos.dims(),
        sin.dims(),
        x.dims()
    );
    #[cfg(feature = "flex")]
    if [&x, &cos, &sin].into_iter().all(crate::flex::takes) {
        return crate::flex::rope::rope(x, cos, sin);
    }
    let (first, second) = (x.clone().narrow(3, 0, half), x.clone().narrow(3, half, half));
    let mut parts = vec![
        first.clone() * cos.clone() - second.clone() * sin.clone(),
        second * cos + first * sin,
    ];
    if width > 2 * half {
        parts.push(x.narrow(3, 2 * half, width - 2 * half));
    }
    Tensor::cat(parts, 3)
}
