//! Batches of pictures: bytes kept once, normalised per batch.

use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::{Device, Int, Tensor, TensorData};
use datasets::Images;

/// A set of pictures as burn-train's loader sees it: an item is an index, so that no picture is copied twice.
#[derive(Clone)]
pub struct Indices(pub usize);

impl Dataset<usize> for Indices {
    fn get(&self, index: usize) -> Result<usize, DatasetError> {
        Ok(index)
    }

    fn len(&self) -> usize {
        self.0
    }
}

/// One batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[batch, 3, size, size]`, normalised with mean 0.5 and deviation 0.5.
    pub pixels: Tensor<4>,
    /// `[batch]`
    pub labels: Tensor<1, Int>,
}

/// Makes batches of some pictures.
#[derive(Clone)]
pub struct PictureBatcher(pub Arc<Images>);

impl Batcher<usize, Batch> for PictureBatcher {
    fn batch(&self, items: Vec<usize>, device: &Device) -> Batch {
        let images = &self.0;
        let mut values = Vec::with_capacity(items.len() * 3 * images.size * images.size);
        for item in &items {
            values.extend(images.picture(*item).iter().map(|byte| f32::from(*byte) / 127.5 - 1.0));
        }
        let labels: Vec<i64> = items.iter().map(|item| images.labels[*item] as i64).collect();
        let shape = [items.len(), 3, images.size, images.size];
        Batch {
            pixels: Tensor::from_data(TensorData::new(values, shape), device),
            labels: Tensor::from_data(TensorData::new(labels, [items.len()]), device),
        }
    }
}
