//! A branch added to its residual stream: LayerScale, stochastic depth and the sum.

use burn::tensor::Tensor;

use crate::operands::Operands;

/// `residual + branch · scale · keep`. `residual` and `branch`: `[batch, tokens, d]`; `scale`: `[d]`, LayerScale (Touvron et
/// al. 2021, arXiv 2103.17239); `keep`: `[batch]`, one factor per sample, 0 where stochastic depth drops the branch (Huang et
/// al. 2016, arXiv 1603.09382), without gradient.
///
/// On flex with f32: one pass on all cores, forward and backward; with a frozen scale only the factors are saved for backward.
///
/// All operands may be of any float dtype; the result has that of `branch`.
///
/// # Panics
/// An operand is not a float tensor, does not match `branch`, or is on another device.
#[track_caller]
pub fn residual_add(
    residual: Tensor<3>,
    branch: Tensor<3>,
    scale: Option<Tensor<1>>,
    keep: Option<Tensor<1>>,
) -> Tensor<3> {
    let [batch, _, width] = branch.dims();
    let operands = Operands::of("residual_add", "branch", &branch);
    operands
        .float("residual", &residual)
        .shape("residual", &residual.dims(), &branch.dims(), "the shape of `branch`");
    for (name, factor, len, meaning) in [("scale", &scale, width, "[d]"), ("keep", &keep, batch, "[batch]")] {
        if let Some(factor) = factor {
            operands
                .float(name, factor)
                .shape(name, &factor.dims(), &[len], meaning);
        }
    }
    let residual = residual.cast(branch.dtype());
    if scale.is_none() && keep.is_none() || branch.shape().num_elements() == 0 {
        return residual + branch;
    }
    #[cfg(feature = "flex")]
    if crate::flex::supports(&branch) {
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
