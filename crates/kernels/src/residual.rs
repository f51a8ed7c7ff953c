//! A branch joined to its residual stream: LayerScale, stochastic depth and the sum.

use burn::tensor::Tensor;

/// `residual + branch · scale · keep`. `residual` and `branch`: `[batch, tokens, d]`; `scale`: `[d]`, LayerScale (Touvron et
/// al. 2021, arXiv 2103.17239); `keep`: `[batch]`, a factor for each sample, 0 where stochastic depth drops the branch
/// (Huang et al. 2016, arXiv 1603.09382). It has no gradient.
///
/// On flex with f32: one pass on all cores, forward and backward; nothing is kept but the factors if the scale is frozen.
///
/// # Panics
/// Shapes that do not fit.
pub fn residual_add(
    residual: Tensor<3>,
    branch: Tensor<3>,
    scale: Option<Tensor<1>>,
    keep: Option<Tensor<1>>,
) -> Tensor<3> {
    let [batch, _, width] = branch.dims();
    assert_eq!(residual.dims(), branch.dims(), "a residual stream and its branch");
    assert!(
        scale.as_ref().is_none_or(|scale| scale.dims() == [width]),
        "a scale for {width} channels"
    );
    assert!(
        keep.as_ref().is_none_or(|keep| keep.dims() == [batch]),
        "a factor for {batch} samples"
    );
    if scale.is_none() && keep.is_none() {
        return residual + branch;
    }
    #[cfg(feature = "flex")]
    if crate::flex::takes(&branch) {
        return crate::flex::residual::residual_add(residual, branch, scale, keep);
    }
    let branch = match scale {
        Some(scale) => branch.clone() * scale.cast(branch.dtype()).unsqueeze::<3>(),
        None => branch,
    };
    let branch = match keep {
        Some(keep) => branch.clone() * keep.detach().cast(branch.dtype()).reshape([batch, 1, 1]),
        None => branch,
    };
    residual + branch
}
