//! The patch embedding of vision transformers (Dosovitskiy et al. 2020, arXiv 2010.11929).

use burn::tensor::Tensor;

use crate::operands::Operands;

/// Images `[batch, channels, h, w]` to projected patches `[batch, patches, d]`, row by row. `weight`: `[d, channels, patch,
/// patch]`, `bias`: `[d]`, both of any float dtype; h and w are multiples of the patch size.
///
/// The patches do not overlap, so the convolution is one matrix product. On flex with f32, each core extracts a few patches at
/// a time and multiplies them while they are in the cache.
///
/// # Panics
/// `weight` or `bias` is not a float tensor or does not match `pixels`; patches that are not square; a height or width that is
/// not a multiple of the patch size; operands on different devices.
#[track_caller]
pub fn patch_embed(pixels: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Tensor<3> {
    let [batch, channels, height, width] = pixels.dims();
    let [d, of_channels, patch, of_width] = weight.dims();
    let operands = Operands::of("patch_embed", "pixels", &pixels);
    operands
        .float("weight", &weight)
        .require(
            of_channels == channels && of_width == patch && channels * patch > 0,
            || {
                format!(
                    "`weight` has shape {:?}; expected [d, channels, patch, patch] with channels = {channels}",
                    weight.dims()
                )
            },
        )
        .require(height.is_multiple_of(patch) && width.is_multiple_of(patch), || {
            format!(
                "`pixels` has shape {:?}; expected a height and width that are multiples of the patch size {patch}",
                pixels.dims()
            )
        });
    if let Some(bias) = &bias {
        operands.float("bias", bias).shape("bias", &bias.dims(), &[d], "[d]");
    }
    let patches = (height / patch) * (width / patch);
    if batch * patches * d == 0 {
        return Tensor::zeros([batch, patches, d], (&pixels.device(), pixels.dtype()));
    }
    let (weight, bias) = (weight.cast(pixels.dtype()), bias.map(|bias| bias.cast(pixels.dtype())));
    #[cfg(feature = "flex")]
    if crate::flex::supports(&pixels) && crate::flex::supports(&weight) {
        return crate::flex::patch_embed::patch_embed(pixels, weight, bias);
    }
    let (rows, columns) = (height / patch, width / patch);
    let pieces = pixels
        .reshape([batch, channels, rows, patch, columns, patch])
        .permute([0, 2, 4, 1, 3, 5])
        .reshape([batch * rows * columns, channels * patch * patch]);
    let tokens = pieces.matmul(weight.reshape([d, channels * patch * patch]).transpose());
    let tokens = match bias {
        Some(bias) => tokens + bias.unsqueeze::<2>(),
        None => tokens,
    };
    tokens.reshape([batch, rows * columns, d])
}
