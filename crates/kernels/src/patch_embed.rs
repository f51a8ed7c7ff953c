//! The patch embedding of vision transformers (Dosovitskiy et al. 2020, arXiv 2010.11929).

use burn::tensor::Tensor;

/// Pictures `[batch, channels, h, w]` to projected patches `[batch, patches, d]`, row by row. `weight`: `[d, channels,
/// patch, patch]`, `bias`: `[d]`; h and w are multiples of the patch size.
///
/// The patches do not overlap, so the convolution is one matrix product. On flex with f32 patches are cut out part by part
/// on all cores, and multiplied while they are in the cache.
pub fn patch_embed(pixels: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Tensor<3> {
    #[cfg(feature = "flex")]
    if crate::flex::takes(&pixels) && crate::flex::takes(&weight) {
        return crate::flex::patch_embed::patch_embed(pixels, weight, bias);
    }
    let [batch, channels, height, width] = pixels.dims();
    let [d, _, patch, _] = weight.dims();
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
