//! Batches of pictures: bytes kept once, normalised per batch.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use backbones::{Normalization, Vit};
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder, DataLoaderIterator};
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::{Device, Int, Tensor, TensorData};
use datasets::Images;
use image::RgbImage;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rayon::prelude::*;

use crate::augment::{Augment, picture_seed};
use crate::prefix::Prefix;

/// What a model reads.
#[derive(Debug, Clone)]
pub enum Input {
    /// Normalised pictures `[batch, 3, size, size]`.
    Pixels(Tensor<4>),
    /// Tokens `[batch, tokens, d_model]` and the number of blocks that they have been through.
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
    /// The pictures, or what the frozen backbone made of them.
    pub input: Input,
    /// `[batch]`
    pub labels: Tensor<1, Int>,
    /// Share of each class in each picture, `[batch, classes]`, where labels are mixed or smoothed.
    pub shares: Option<Tensor<2>>,
}

/// Some pictures as a model reads them.
#[derive(Clone)]
pub struct Pictures {
    /// Bytes and labels.
    pub images: Arc<Images>,
    /// Of the backbone.
    pub normalization: Normalization,
    frozen: Option<Arc<Frozen>>,
    augmented: Option<Arc<Augmented>>,
}

/// How training pictures are varied.
struct Augmented {
    augment: Augment,
    classes: usize,
    /// Seed of the present epoch.
    seed: AtomicU64,
}

/// What the frozen prefix of a backbone makes of each picture.
struct Frozen {
    prefix: Prefix,
    /// Of one picture: `[tokens, d_model]`, or `[1, d_model]` of pooled features.
    shape: [usize; 2],
    values: Vec<f32>,
}

impl Pictures {
    /// Pictures to be normalised with `normalization`.
    pub fn new(images: Images, normalization: Normalization) -> Self {
        Self {
            images: Arc::new(images),
            normalization,
            frozen: None,
            augmented: None,
        }
    }

    /// The same pictures, varied anew each epoch, of a task with that many classes.
    pub fn augmented(mut self, augment: Augment, classes: usize) -> Self {
        self.augmented = (!augment.is_off()).then(|| {
            Arc::new(Augmented {
                augment,
                classes,
                seed: AtomicU64::new(0),
            })
        });
        self
    }

    /// The same pictures, each replaced by what the frozen `prefix` of `model` makes of it: computed once here instead
    /// of once an epoch. `device` is one without autodiff, as `model`'s is.
    ///
    /// # Errors
    /// What the loader says.
    pub fn through(mut self, prefix: Prefix, model: &Vit, device: &Device) -> Result<Self, String> {
        let (mut values, mut shape) = (Vec::new(), [0, 0]);
        for batch in self.loader(100, device).iter() {
            let Input::Pixels(pixels) = batch.map_err(|e| e.to_string())?.input else {
                continue;
            };
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

    /// True if both hold one and the same result of a frozen prefix.
    pub fn shares_frozen(&self, other: &Self) -> bool {
        matches!((&self.frozen, &other.frozen), (Some(a), Some(b)) if Arc::ptr_eq(a, b))
    }

    /// These pictures, then those of `other`, which have been through the same prefix.
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

    /// The pictures in their order.
    pub fn loader(&self, batch_size: usize, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        let order = Arc::new(Mutex::new((0..self.images.len()).collect()));
        self.ordered(order, batch_size, device)
    }

    /// The pictures in a new order each epoch. Order and random numbers of an epoch depend on `seed` and its
    /// number only, so that a run resumed at `first_epoch` (from 0) goes on as if it had not been cut.
    pub fn shuffled(
        &self,
        batch_size: usize,
        seed: u64,
        first_epoch: usize,
        device: &Device,
    ) -> Arc<dyn DataLoader<Batch>> {
        let order = Arc::new(Mutex::new((0..self.images.len()).collect()));
        Arc::new(PerEpoch {
            loader: self.ordered(order.clone(), batch_size, device),
            order,
            device: device.clone(),
            augmented: self.augmented.clone(),
            seed,
            epoch: Arc::new(AtomicUsize::new(first_epoch)),
        })
    }

    fn ordered(&self, order: Order, batch_size: usize, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        DataLoaderBuilder::new(self.clone())
            .batch_size(batch_size)
            .set_device(device.clone())
            .build(Ordered(order))
    }
}

impl Frozen {
    fn rows(&self, items: &[usize], device: &Device) -> Input {
        let [tokens, d_model] = self.shape;
        let len = tokens * d_model;
        let mut values = Vec::with_capacity(items.len() * len);
        for item in items {
            values.extend_from_slice(&self.values[item * len..(item + 1) * len]);
        }
        match self.prefix {
            Prefix::Blocks(blocks) => {
                let data = TensorData::new(values, [items.len(), tokens, d_model]);
                Input::Tokens(Tensor::from_data(data, device), blocks)
            }
            Prefix::Whole => Input::Features(Tensor::from_data(
                TensorData::new(values, [items.len(), d_model]),
                device,
            )),
        }
    }
}

type Order = Arc<Mutex<Vec<usize>>>;

/// A set of pictures as burn-train's loader sees it: an item is an index, so that no picture is copied twice.
struct Ordered(Order);

impl Ordered {
    fn order(&self) -> std::sync::MutexGuard<'_, Vec<usize>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Dataset<usize> for Ordered {
    fn get(&self, index: usize) -> Result<usize, DatasetError> {
        Ok(self.order()[index])
    }

    fn len(&self) -> usize {
        self.order().len()
    }
}

/// A loader that sets the order and the device's random numbers at the start of each epoch.
struct PerEpoch {
    loader: Arc<dyn DataLoader<Batch>>,
    order: Order,
    device: Device,
    augmented: Option<Arc<Augmented>>,
    seed: u64,
    epoch: Arc<AtomicUsize>,
}

impl DataLoader<Batch> for PerEpoch {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) as u64;
        let seed = self.seed.wrapping_add(epoch);
        {
            let mut order = self.order.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            order.sort_unstable();
            order.shuffle(&mut StdRng::seed_from_u64(seed));
        }
        self.device.seed(seed);
        if let Some(augmented) = &self.augmented {
            augmented.seed.store(seed, Ordering::SeqCst);
        }
        self.loader.iter()
    }

    fn num_items(&self) -> usize {
        self.loader.num_items()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self {
            loader: self.loader.to_device(device),
            order: self.order.clone(),
            device: device.clone(),
            augmented: self.augmented.clone(),
            seed: self.seed,
            epoch: self.epoch.clone(),
        })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self {
            loader: self.loader.slice(start, end),
            order: self.order.clone(),
            device: self.device.clone(),
            augmented: self.augmented.clone(),
            seed: self.seed,
            epoch: self.epoch.clone(),
        })
    }
}

impl Batcher<usize, Batch> for Pictures {
    fn batch(&self, items: Vec<usize>, device: &Device) -> Batch {
        let labels: Vec<i64> = items.iter().map(|item| self.images.labels[*item] as i64).collect();
        let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [items.len()]), device);
        let size = self.images.size;
        if let Some(frozen) = &self.frozen {
            return Batch {
                input: frozen.rows(&items, device),
                labels,
                shares: None,
            };
        }
        let Some(augmented) = &self.augmented else {
            let pictures = items.iter().map(|item| self.images.picture(*item));
            return Batch {
                input: Input::Pixels(normalised(pictures, size, self.normalization, device)),
                labels,
                shares: None,
            };
        };
        let seed = augmented.seed.load(Ordering::SeqCst);
        let made: Vec<Vec<u8>> = items
            .par_iter()
            .map(|item| {
                let picture = rgb(self.images.picture(*item), size);
                let own = picture_seed(seed, *item);
                planes(&augmented.augment.picture(&picture, size as u32, own))
            })
            .collect();
        let pixels = normalised(made.iter().map(Vec::as_slice), size, self.normalization, device);
        let mix = augmented.augment.mix;
        if mix.is_off() {
            return Batch {
                input: Input::Pixels(pixels),
                labels,
                shares: None,
            };
        }
        // A batch is known by its first picture, which no other one of the epoch has.
        let own = picture_seed(seed.wrapping_add(1), items[0]);
        let (pixels, shares) = mix.batch(pixels, &labels, augmented.classes, own);
        Batch {
            input: Input::Pixels(pixels),
            labels,
            shares: Some(shares),
        }
    }
}

/// Bytes `[3, size, size]` as a picture.
pub fn rgb(bytes: &[u8], size: usize) -> RgbImage {
    RgbImage::from_fn(size as u32, size as u32, |x, y| {
        let at = y as usize * size + x as usize;
        image::Rgb([bytes[at], bytes[size * size + at], bytes[2 * size * size + at]])
    })
}

/// A picture as bytes `[3, h, w]`.
fn planes(picture: &RgbImage) -> Vec<u8> {
    let plane = |channel: usize| picture.pixels().map(move |pixel| pixel[channel]);
    (0..3).flat_map(plane).collect()
}

/// Pictures of bytes `[3, size, size]` as one tensor `[n, 3, size, size]`.
pub fn normalised<'a>(
    pictures: impl ExactSizeIterator<Item = &'a [u8]>,
    size: usize,
    normalization: Normalization,
    device: &Device,
) -> Tensor<4> {
    let shape = [pictures.len(), 3, size, size];
    // 256 possible values a channel: looked up, not computed per pixel.
    let tables: [[f32; 256]; 3] = std::array::from_fn(|channel| {
        let (mean, std) = (normalization.mean[channel], normalization.std[channel]);
        std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / std)
    });
    let mut values = Vec::with_capacity(shape.iter().product());
    for picture in pictures {
        for (plane, table) in picture.chunks_exact(size * size).zip(&tables) {
            values.extend(plane.iter().map(|byte| table[usize::from(*byte)]));
        }
    }
    Tensor::from_data(TensorData::new(values, shape), device)
}
