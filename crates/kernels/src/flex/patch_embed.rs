//! See [`crate::patch_embed()`].

use std::ops::Range;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Shape, Tensor};

use super::gemm::{Cores, Mat, product};
use super::linear::bias_or_zeros;
use super::memory::par_fill;
use super::{column_sums, rows, tensor, values};

/// Approximate number of patches per task.
const PATCHES: usize = 200;

/// See [`crate::patch_embed()`].
pub fn patch_embed(pixels: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Tensor<3> {
    let [batch, _, height, width] = pixels.dims();
    let [d, _, patch, _] = weight.dims();
    let bias = bias_or_zeros(bias, d, &weight.device());
    let tokens = Tensor::<2>::from_dispatch(<Dispatch as PatchEmbed>::project_patches(
        pixels.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    ));
    tokens.reshape([batch, (height / patch) * (width / patch), d])
}

/// Projected patches of images.
#[backend_extension(Flex, Autodiff)]
pub trait PatchEmbed: Backend {
    /// `pixels`: `[batch, channels, h, w]`, `weight`: `[d, channels, patch, patch]`, `bias`: `[d]`, all f32; result
    /// `[batch·patches, d]`.
    fn project_patches(
        pixels: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// Sizes of the images and of their patches.
#[derive(Debug, Clone, Copy)]
struct Grid {
    batch: usize,
    channels: usize,
    /// Patch size.
    patch: usize,
    /// Patches per column of an image.
    rows: usize,
    /// Patches per row of an image.
    columns: usize,
}

impl Grid {
    fn new(pixels: &Shape, weight: &Shape) -> Self {
        let patch = weight[2];
        let (rows, columns) = (pixels[2] / patch, pixels[3] / patch);
        assert!(
            weight[1] == pixels[1] && weight[3] == patch && rows * patch == pixels[2] && columns * patch == pixels[3],
            "images of {pixels:?} for patches of {weight:?}"
        );
        Self {
            batch: pixels[0],
            channels: pixels[1],
            patch,
            rows,
            columns,
        }
    }

    /// Elements of a patch.
    fn depth(&self) -> usize {
        self.channels * self.patch * self.patch
    }

    /// Writes the patches of row `row`, counted through all images, to `out`, in the channel order of a weight.
    fn extract(&self, pixels: &[f32], row: usize, out: &mut [f32]) {
        let Self { patch, columns, .. } = *self;
        let width = columns * patch;
        let (image, row) = (row / self.rows, row % self.rows);
        for channel in 0..self.channels {
            for line in 0..patch {
                let start = ((image * self.channels + channel) * self.rows * patch + row * patch + line) * width;
                let at = (channel * patch + line) * patch;
                let patches = pixels[start..start + width].chunks_exact(patch);
                for (piece, out) in patches.zip(out.chunks_exact_mut(self.depth())) {
                    out[at..at + patch].copy_from_slice(piece);
                }
            }
        }
    }

    /// The patches of these rows, `[patches, depth]`.
    fn patches(&self, pixels: &[f32], rows: Range<usize>) -> Vec<f32> {
        let len = self.columns * self.depth();
        let mut patches = vec![0.0; rows.len() * len];
        for (row, out) in rows.zip(patches.chunks_exact_mut(len.max(1))) {
            self.extract(pixels, row, out);
        }
        patches
    }

    /// Images from their patches, `[batch·patches, depth]`.
    fn assemble(&self, patches: FlexTensor) -> FlexTensor {
        let Self {
            batch,
            channels,
            patch,
            rows,
            columns,
        } = *self;
        let patches = Flex::float_reshape(patches, Shape::from([batch, rows, columns, channels, patch, patch]));
        let images = Flex::float_permute(patches, &[0, 3, 1, 4, 2, 5]);
        Flex::float_reshape(images, Shape::from([batch, channels, rows * patch, columns * patch]))
    }
}

impl PatchEmbed for Flex {
    fn project_patches(pixels: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        let (pixels, weight, bias) = (pixels.to_contiguous(), weight.to_contiguous(), bias.to_contiguous());
        let grid = Grid::new(pixels.layout().shape(), weight.layout().shape());
        let d = weight.layout().shape()[0];
        let (image, bias) = (values(&pixels), values(&bias));
        let (depth, columns) = (grid.depth(), grid.columns);
        let projection = Mat::rows(values(&weight), [d, depth]).t();
        let count = grid.batch * grid.rows * columns;
        let rows_per_task = (PATCHES / columns.max(1)).max(1);
        let out = par_fill(count * d, rows_per_task * columns * d, |index, out| {
            let count = out.capacity() / d;
            let first = index * rows_per_task;
            let patches = grid.patches(image, first..first + count / columns);
            for _ in 0..count {
                out.copy(bias);
            }
            let patches = Mat::rows(&patches, [count, depth]);
            product(out.written(), d, patches, projection, 1.0, true, Cores::One);
        });
        tensor(out, Shape::from([count, d]))
    }
}

/// Saved for backward: nothing for gradients that are not required.
#[derive(Debug, Clone)]
struct Saved {
    grid: Grid,
    /// If the weight requires a gradient.
    pixels: Option<FlexTensor>,
    /// If the images require one.
    weight: Option<FlexTensor>,
}

#[derive(Debug)]
struct PatchEmbedStep;

/// Parents: images, weight, bias.
impl Backward<Flex, 3> for PatchEmbedStep {
    type State = Saved;

    fn backward(self, ops: Ops<Saved, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let Saved { grid, pixels, weight } = ops.state;
        let [of_pixels, of_weight, of_bias] = ops.parents;
        let [_, d] = rows(&grad);
        if let (Some(node), Some(weight)) = (of_pixels, weight) {
            let weight = Flex::float_reshape(weight, Shape::from([d, grid.depth()]));
            grads.register::<Flex>(node.id, grid.assemble(Flex::float_matmul(grad.clone(), weight)));
        }
        if let (Some(node), Some(pixels)) = (of_weight, pixels) {
            let pixels = pixels.to_contiguous();
            let patches = grid.patches(values(&pixels), 0..grid.batch * grid.rows);
            let patches = tensor(patches, Shape::from([rows(&grad)[0], grid.depth()]));
            let of_weight = Flex::float_matmul(Flex::float_transpose(grad.clone()), patches);
            let shape = Shape::from([d, grid.channels, grid.patch, grid.patch]);
            grads.register::<Flex>(node.id, Flex::float_reshape(of_weight, shape));
        }
        if let Some(node) = of_bias {
            grads.register::<Flex>(node.id, column_sums(grad));
        }
    }
}

impl<C: CheckpointStrategy> PatchEmbed for Autodiff<Flex, C> {
    fn project_patches(
        pixels: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [pixels.node(), weight.node(), bias.node()];
        let saved = Saved {
            grid: Grid::new(pixels.primitive().layout().shape(), weight.primitive().layout().shape()),
            pixels: weight.is_tracked().then(|| pixels.primitive().clone()),
            weight: pixels.is_tracked().then(|| weight.primitive().clone()),
        };
        let out = Flex::project_patches(pixels.into_primitive(), weight.into_primitive(), bias.into_primitive());
        match PatchEmbedStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(saved, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }
}
