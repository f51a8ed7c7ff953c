//! Batches of pictures: read, resized and normalised per batch.

use std::sync::Arc;

use backbones::{Normalization, Vit};
use burn::data::dataloader::DataLoader;
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Int, Tensor, TensorData};
use datasets::Images;
use rayon::prelude::*;

use crate::loader::Loader;

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
    /// Pictures and labels.
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
        Arc::new(Loader::new(self.clone(), batch_size, None, 0, device))
    }

    /// The pictures in a new order each epoch, counted from `first_epoch`.
    pub fn shuffled(
        &self,
        batch_size: usize,
        seed: u64,
        first_epoch: usize,
        device: &Device,
    ) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Loader::new(self.clone(), batch_size, Some(seed), first_epoch, device))
    }

    /// Pictures `items` as one batch; `seed` is the epoch's where they are trained on.
    ///
    /// # Errors
    /// A picture that is missing or damaged.
    pub fn batch(&self, items: &[usize], seed: Option<u64>, device: &Device) -> Result<Batch, DatasetError> {
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
            None => {
                let pixels = |item: &usize| match seed {
                    Some(seed) => self.images.training_pixels(*item, seed),
                    None => self.images.pixels(*item),
                };
                let pixels = normalised(items, pixels, self.images.size, self.normalization, device);
                Input::Pixels(pixels.map_err(DatasetError::new)?)
            }
        };
        Ok(Batch {
            input,
            labels: Tensor::from_data(TensorData::new(labels, [items.len()]), device),
        })
    }
}

/// One tensor `[n, 3, size, size]` of what `pixels` gives for each item, `[3, size, size]` of 0 to 255; in parallel.
///
/// # Errors
/// The first one of `pixels`.
pub fn normalised<I: Sync, E: Send>(
    items: &[I],
    pixels: impl Fn(&I) -> Result<Vec<f32>, E> + Sync,
    size: usize,
    normalization: Normalization,
    device: &Device,
) -> Result<Tensor<4>, E> {
    let mut values = vec![0.0; items.len() * 3 * size * size];
    values
        .par_chunks_mut(3 * size * size)
        .zip(items)
        .try_for_each(|(out, item)| {
            let pixels = pixels(item)?;
            let planes = out.chunks_exact_mut(size * size).zip(pixels.chunks_exact(size * size));
            for (channel, (out, plane)) in planes.enumerate() {
                let (mean, std) = (normalization.mean[channel], normalization.std[channel]);
                for (out, value) in out.iter_mut().zip(plane) {
                    *out = (value / 255.0 - mean) / std;
                }
            }
            Ok(())
        })?;
    let shape = [items.len(), 3, size, size];
    Ok(Tensor::from_data(TensorData::new(values, shape), device))
}
