//! Batches of images: read, resized and normalised per batch.

use std::ops::Range;
use std::sync::Arc;

use backbones::{Normalization, Vit};
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Int, Tensor, TensorData};
use datasets::resize::planes;
use datasets::{DataError, Images};
use image::RgbImage;
use rayon::prelude::*;

use crate::cli::interrupt::Interrupter;
use crate::run::jobs::share_out;
use crate::train::stream::{Ordered, Source};
use crate::vision::augment::{Augment, image_seed};
use crate::vision::prefix::Prefix;

/// The input of a model.
#[derive(Debug, Clone)]
pub enum Input {
    /// Normalised images `[batch, 3, size, size]`.
    Pixels(Tensor<4>),
    /// Tokens `[batch, tokens, d_model]` and the number of blocks that have processed them.
    Tokens(Tensor<3>, usize),
    /// Features of a frozen backbone, `[batch, d_model]`.
    Features(Tensor<2>),
}

impl Input {
    /// Logits `[batch, classes]`.
    pub fn logits(self, model: &Vit) -> Tensor<2> {
        match self {
            Self::Pixels(pixels) => model.forward(pixels),
            Self::Tokens(tokens, blocks) => model.classify(model.features_from(tokens, blocks)),
            Self::Features(features) => model.classify(features),
        }
    }
}

/// One batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The images, or the output of the frozen prefix for them.
    pub input: Input,
    /// `[batch]`
    pub labels: Tensor<1, Int>,
    /// Probabilities of the classes for each image, `[batch, classes]`, if labels are mixed or smoothed.
    pub shares: Option<Tensor<2>>,
    /// A seed that is unique among the training batches of the run; 0 if nothing is trained.
    pub seed: u64,
}

/// A batch in host memory, as the reading thread prepares it.
pub struct Values {
    /// `[batch, 3, size, size]`, or the output of the frozen prefix for the images.
    input: TensorData,
    /// `[batch]`
    labels: TensorData,
    /// Index of the first image.
    first: usize,
    /// Seed of the epoch, in training.
    seed: Option<u64>,
    /// If it is a share of a batch whose images are mixed: what it is mixed with.
    mixed: Option<Mixed>,
}

/// What the reversed batch has in the places of a share.
struct Mixed {
    input: TensorData,
    labels: TensorData,
    /// The first image of the whole batch.
    first: usize,
}

impl Values {
    /// A batch of normalised pixels `[batch, 3, size, size]` with their labels, unchanged.
    pub fn plain(pixels: TensorData, labels: Vec<i64>) -> Self {
        let count = labels.len();
        Self {
            input: pixels,
            labels: TensorData::new(labels, [count]),
            first: 0,
            seed: None,
            mixed: None,
        }
    }

    /// The batch on `device`, without augmentation.
    pub fn on_device(self, device: &Device) -> Batch {
        Batch {
            input: Input::Pixels(Tensor::from_data(self.input, device)),
            labels: Tensor::from_data(self.labels, device),
            shares: None,
            seed: 0,
        }
    }
}

/// Images as a model reads them.
#[derive(Clone)]
pub struct LabelledImages {
    /// Images and labels.
    pub images: Arc<Images>,
    /// Normalization of the backbone.
    pub normalization: Normalization,
    frozen: Option<Arc<Frozen>>,
    augmented: Option<Arc<Augmented>>,
}

/// Augmentation of training images.
struct Augmented {
    augment: Augment,
    classes: usize,
}

/// The output of a backbone's frozen prefix for each image.
struct Frozen {
    prefix: Prefix,
    /// Shape for one image: `[tokens, d_model]`, or `[1, d_model]` for pooled features.
    shape: [usize; 2],
    values: Vec<f32>,
}

impl LabelledImages {
    /// Images that are normalised with `normalization`.
    pub fn new(images: Images, normalization: Normalization) -> Self {
        Self {
            images: Arc::new(images),
            normalization,
            frozen: None,
            augmented: None,
        }
    }

    /// The same images with new augmentation in each epoch, for a task with that many classes.
    pub fn augmented(mut self, augment: Augment, classes: usize) -> Self {
        self.augmented = (!augment.is_off()).then(|| Arc::new(Augmented { augment, classes }));
        self
    }

    /// The same images, each replaced by its output of the frozen `prefix` of `model`, which is computed once here
    /// instead of once per epoch. `device` and `model` are without autodiff.
    ///
    /// # Errors
    /// An error of the loader, an interruption.
    pub fn through(
        mut self,
        prefix: Prefix,
        model: &Vit,
        interrupter: &Interrupter,
        device: &Device,
    ) -> Result<Self, String> {
        let (mut values, mut shape) = (Vec::new(), [0, 0]);
        for batch in self.batches(100, device).batches() {
            let Input::Pixels(pixels) = batch.map_err(|e| e.to_string())?.input else {
                continue;
            };
            if interrupter.should_stop() {
                return Err("interrupted".into());
            }
            let tokens = match prefix {
                Prefix::Blocks(blocks) => model.tokens(pixels, blocks),
                Prefix::Whole => model.features(pixels).unsqueeze_dim(1),
            };
            let [_, count, d_model] = tokens.dims();
            shape = [count, d_model];
            values.extend(tokens.into_data().iter::<f32>());
        }
        self.frozen = Some(Arc::new(Frozen { prefix, shape, values }));
        Ok(self)
    }

    /// True if both share the same outputs of a frozen prefix.
    pub fn shares_frozen(&self, other: &Self) -> bool {
        matches!((&self.frozen, &other.frozen), (Some(a), Some(b)) if Arc::ptr_eq(a, b))
    }

    /// These images followed by those of `other`, which were processed by the same prefix.
    pub fn joined(&self, other: &Self) -> Self {
        let frozen = self.frozen.iter().zip(&other.frozen).next().map(|(a, b)| {
            Arc::new(Frozen {
                prefix: a.prefix,
                shape: a.shape,
                values: [&a.values[..], &b.values].concat(),
            })
        });
        Self {
            images: Arc::new(self.images.joined(&other.images)),
            normalization: self.normalization,
            frozen,
            augmented: None,
        }
    }

    /// The images in order.
    pub fn batches(&self, batch_size: usize, device: &Device) -> Ordered<Self> {
        Ordered::new(self.clone(), batch_size, device)
    }

    /// One image `[3, size, size]` with values from 0 to 255, augmented in training.
    fn pixels(&self, item: usize, seed: Option<u64>) -> Result<Vec<f32>, DataError> {
        let images = &self.images;
        match (seed, &self.augmented) {
            (None, _) => images.pixels(item),
            (Some(seed), None) => images.training_pixels(item, seed),
            (Some(seed), Some(augmented)) => {
                let augment = &augmented.augment;
                let own = image_seed(seed, item);
                let augmented = |image: &RgbImage| planes(&augment.image(image, images.size as u32, own));
                // A random crop works on the whole image; without it, images are resized as usual.
                match augment.crop_scale {
                    Some(_) => images.with_rgb(item, augmented),
                    None => Ok(augmented(&rounded(&images.training_pixels(item, seed)?, images.size))),
                }
            }
        }
    }
}

impl Source for LabelledImages {
    type Host = Values;
    type Batch = Batch;

    fn count(&self) -> usize {
        self.images.len()
    }

    fn read(&self, items: &[usize], seed: Option<u64>) -> Result<Values, DatasetError> {
        let labels: Vec<i64> = items.iter().map(|item| self.images.labels[*item] as i64).collect();
        let input = match &self.frozen {
            Some(frozen) => frozen.rows(items),
            None => {
                let pixels = |item: &usize| self.pixels(*item, seed);
                normalised(items, pixels, [self.images.size; 2], self.normalization).map_err(DatasetError::new)?
            }
        };
        Ok(Values {
            input,
            labels: TensorData::new(labels, [items.len()]),
            first: items[0],
            seed,
            mixed: None,
        })
    }

    /// Where images are mixed, each share brings those of the batch that it is mixed with.
    fn shares(&self, items: &[usize], seed: Option<u64>, count: usize) -> Result<Vec<Values>, DatasetError> {
        let mixes = self.augmented.as_ref().is_some_and(|own| own.augment.mix.mixes());
        let reversed: Vec<usize> = items.iter().rev().copied().collect();
        let share = |places: Range<usize>| {
            let mut values = self.read(&items[places.clone()], seed)?;
            if mixes && count > 1 && self.frozen.is_none() {
                let others = self.read(&reversed[places], seed)?;
                values.mixed = Some(Mixed {
                    input: others.input,
                    labels: others.labels,
                    first: items[0],
                });
            }
            Ok(values)
        };
        share_out(items.len(), count).map(share).collect()
    }

    fn on_device(&self, values: Values, device: &Device) -> Batch {
        // A batch is known by its first image, which no other one of the epoch has.
        let own = |step: u64, first: usize| values.seed.map(|seed| image_seed(seed.wrapping_add(step), first));
        let labels = Tensor::<1, Int>::from_data(values.labels, device);
        let plain = |input| Batch {
            input,
            labels: labels.clone(),
            shares: None,
            seed: own(2, values.first).unwrap_or(0),
        };
        let input = values.input;
        match self.frozen.as_ref().map(|frozen| frozen.prefix) {
            Some(Prefix::Blocks(blocks)) => return plain(Input::Tokens(Tensor::from_data(input, device), blocks)),
            Some(Prefix::Whole) => return plain(Input::Features(Tensor::from_data(input, device))),
            None => {}
        }
        let pixels = Tensor::from_data(input, device);
        let first = values.mixed.as_ref().map_or(values.first, |mixed| mixed.first);
        let (Some(seed), Some(augmented)) = (own(1, first), &self.augmented) else {
            return plain(Input::Pixels(pixels));
        };
        let mix = augmented.augment.mix;
        if mix.is_off() {
            return plain(Input::Pixels(pixels));
        }
        let (pixels, shares) = match values.mixed {
            Some(mixed) => {
                let others = (
                    Tensor::from_data(mixed.input, device),
                    Tensor::from_data(mixed.labels, device),
                );
                mix.share(pixels, &labels, others, augmented.classes, seed)
            }
            None => mix.batch(pixels, &labels, augmented.classes, seed),
        };
        Batch {
            shares: Some(shares),
            ..plain(Input::Pixels(pixels))
        }
    }
}

impl Frozen {
    /// `[items, tokens, d_model]`, or `[items, d_model]`.
    fn rows(&self, items: &[usize]) -> TensorData {
        let [tokens, d_model] = self.shape;
        let len = tokens * d_model;
        let mut values = Vec::with_capacity(items.len() * len);
        for item in items {
            values.extend_from_slice(&self.values[item * len..(item + 1) * len]);
        }
        match self.prefix {
            Prefix::Blocks(_) => TensorData::new(values, [items.len(), tokens, d_model]),
            Prefix::Whole => TensorData::new(values, [items.len(), d_model]),
        }
    }
}

/// Values `[3, size, size]` from 0 to 255 as an image.
pub fn rounded(values: &[f32], size: usize) -> RgbImage {
    RgbImage::from_fn(size as u32, size as u32, |x, y| {
        let at = y as usize * size + x as usize;
        let value = |channel: usize| values[channel * size * size + at].round() as u8;
        image::Rgb([value(0), value(1), value(2)])
    })
}

/// Normalised values `[n, 3, height, width]` of the images that `pixels` returns, `[3, height, width]` from 0 to 255;
/// computed in parallel.
///
/// # Errors
/// The first error of `pixels`.
pub fn normalised<I: Sync, E: Send>(
    items: &[I],
    pixels: impl Fn(&I) -> Result<Vec<f32>, E> + Sync,
    [height, width]: [usize; 2],
    normalization: Normalization,
) -> Result<TensorData, E> {
    let area = height * width;
    let mut values = vec![0.0; items.len() * 3 * area];
    values.par_chunks_mut(3 * area).zip(items).try_for_each(|(out, item)| {
        let pixels = pixels(item)?;
        let planes = out.chunks_exact_mut(area).zip(pixels.chunks_exact(area));
        for (channel, (out, plane)) in planes.enumerate() {
            let (mean, std) = (normalization.mean[channel], normalization.std[channel]);
            for (out, value) in out.iter_mut().zip(plane) {
                *out = (value / 255.0 - mean) / std;
            }
        }
        Ok(())
    })?;
    Ok(TensorData::new(values, [items.len(), 3, height, width]))
}
