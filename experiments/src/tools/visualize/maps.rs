//! The maps themselves: steps 1 to 4 of the list in `visualize`.

use backbones::Vit;
use burn::tensor::Tensor;
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use wegeft::{Adapted, linear};

/// The projection whose output is clustered.
const SITE: &str = "attn.proj";

/// Maps of one adapted block for one image; each `[size, size]`, from 0 to 1, with values up to 0.5 set to 0.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockMaps {
    /// Number of the block, from 0.
    pub block: usize,
    /// One map per cluster, of the output with the residual.
    pub after: Vec<Vec<f32>>,
    /// One map per cluster, of the output of the frozen projection.
    pub before: Vec<Vec<f32>>,
}

/// For each block with its phi: clusters, `[r, d_model]`, the rows of `(W·phi)ᵀ`.
///
/// # Errors
/// An adapter that is not WeGeFT on the attention output projection.
pub fn clusters(adapted: &Adapted<Vit>) -> Result<Vec<(usize, Tensor<2>)>, String> {
    let mut found = Vec::new();
    for (group, factors) in adapted.bank().groups().iter().zip(&adapted.bank().factors) {
        for site in &group.sites {
            let module = site.module();
            let block = module.strip_prefix("blocks.").and_then(|rest| rest.strip_suffix(SITE));
            let block = block.and_then(|number| number.trim_end_matches('.').parse::<usize>().ok());
            let Some(block) = block.filter(|_| factors.contains("phi")) else {
                continue;
            };
            let weight = adapted.backbone().blocks[block].attn.proj.weight.base();
            let phi = factors.matrix("phi");
            if phi.dims()[0] != weight.dims()[0] {
                continue;
            }
            found.push((block, phi.transpose().matmul(weight)));
        }
    }
    found.sort_by_key(|(block, _)| *block);
    match found.is_empty() {
        true => Err(format!(
            "the adapter has no WeGeFT on '{SITE}'; train one with --method wegeft --target-modules {SITE}"
        )),
        false => Ok(found),
    }
}

/// Maps of one normalised image, `[1, 3, size, size]`, for each of `clusters`.
pub fn maps(adapted: &Adapted<Vit>, clusters: &[(usize, Tensor<2>)], pixels: Tensor<4>) -> Vec<BlockMaps> {
    let size = pixels.dims()[2];
    let bound = adapted.bind();
    let inputs = bound.projection_inputs(pixels);
    let first = bound.prefix_tokens();
    clusters
        .iter()
        .map(|(block, clusters)| {
            let of = |model: &Vit| {
                let output = linear(&model.blocks[*block].attn.proj, inputs[*block].clone());
                let [_, tokens, d] = output.dims();
                let patches = output.slice([0..1, first..tokens, 0..d]).squeeze_dim::<2>(0);
                drawn(clusters.clone().matmul(patches.transpose()), size)
            };
            BlockMaps {
                block: *block,
                after: of(&bound),
                before: of(adapted.backbone()),
            }
        })
        .collect()
}

/// Similarities `[r, patches]` as maps of `size` × `size`: resized bilinearly, then each scaled to 0 to 1, with values
/// up to 0.5 set to 0.
pub fn drawn(similarities: Tensor<2>, size: usize) -> Vec<Vec<f32>> {
    let [r, patches] = similarities.dims();
    let grid = (patches as f64).sqrt().round() as usize;
    let options = InterpolateOptions::new(InterpolateMode::Bilinear)
        .with_align_corners(false)
        .with_output_size([size, size]);
    let resized = interpolate(similarities.reshape([1, r, grid, grid]), options);
    let values: Vec<f32> = resized.into_data().iter().collect();
    values
        .chunks_exact(size * size)
        .map(|map| {
            let (low, high) = extent(map.iter().copied());
            let range = if high > low { high - low } else { 1.0 };
            let normal = map.iter().map(|value| (value - low) / range);
            normal.map(|value| if value <= 0.5 { 0.0 } else { value }).collect()
        })
        .collect()
}

/// Smallest and largest value.
pub(super) fn extent(values: impl Iterator<Item = f32>) -> (f32, f32) {
    values.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    })
}
