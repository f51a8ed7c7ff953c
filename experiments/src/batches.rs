//! Batches of pictures: bytes kept once, normalised per batch.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use backbones::{Normalization, Vit};
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder, DataLoaderIterator};
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::{Device, Int, Tensor, TensorData};
use datasets::Images;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// What a model reads.
#[derive(Debug, Clone)]
pub enum Input {
    /// Normalised pictures `[batch, 3, size, size]`.
    Pixels(Tensor<4>),
    /// Features of a frozen backbone, `[batch, d_model]`.
    Features(Tensor<2>),
}

/// One batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The pictures, or what the frozen backbone made of them.
    pub input: Input,
    /// `[batch]`
    pub labels: Tensor<1, Int>,
}

/// Some pictures as a model reads them.
#[derive(Clone)]
pub struct Pictures {
    /// Bytes and labels.
    pub images: Arc<Images>,
    /// Of the backbone.
    pub normalization: Normalization,
    features: Option<Arc<Vec<f32>>>,
}

impl Pictures {
    /// Pictures to be normalised with `normalization`.
    pub fn new(images: Images, normalization: Normalization) -> Self {
        Self {
            images: Arc::new(images),
            normalization,
            features: None,
        }
    }

    /// The same pictures, each replaced by the features that a wholly frozen backbone gives it: computed once
    /// here instead of once an epoch. `device` is one without autodiff, as `model`'s is.
    ///
    /// # Errors
    /// What the loader says.
    pub fn with_features(mut self, model: &Vit, device: &Device) -> Result<Self, String> {
        let mut values = Vec::new();
        for batch in self.loader(100, device).iter() {
            if let Input::Pixels(pixels) = batch.map_err(|e| e.to_string())?.input {
                values.extend(model.features(pixels).into_data().iter::<f32>());
            }
        }
        self.features = Some(Arc::new(values));
        Ok(self)
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
            seed: self.seed,
            epoch: self.epoch.clone(),
        })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self {
            loader: self.loader.slice(start, end),
            order: self.order.clone(),
            device: self.device.clone(),
            seed: self.seed,
            epoch: self.epoch.clone(),
        })
    }
}

impl Batcher<usize, Batch> for Pictures {
    fn batch(&self, items: Vec<usize>, device: &Device) -> Batch {
        let labels: Vec<i64> = items.iter().map(|item| self.images.labels[*item] as i64).collect();
        let input = match &self.features {
            Some(features) => {
                let width = features.len() / self.images.len();
                let rows = items
                    .iter()
                    .flat_map(|item| &features[item * width..(item + 1) * width]);
                let data = TensorData::new(rows.copied().collect::<Vec<f32>>(), [items.len(), width]);
                Input::Features(Tensor::from_data(data, device))
            }
            None => Input::Pixels(normalised(
                items.iter().map(|item| self.images.picture(*item)),
                self.images.size,
                self.normalization,
                device,
            )),
        };
        Batch {
            input,
            labels: Tensor::from_data(TensorData::new(labels, [items.len()]), device),
        }
    }
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
