//! Batches of pictures, made by a thread of their own ahead of the model. At most four are in memory: the one that the
//! model reads, two that wait, and the one being made, whose pictures are read and resized on all cores.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::batches::{Batch, Pictures};

/// Batches that may wait for the model.
const WAITING: usize = 2;

/// Gives the batches of an epoch.
pub struct Loader {
    pictures: Pictures,
    batch_size: usize,
    device: Device,
    /// Seed of the run, where every epoch has a new order.
    seed: Option<u64>,
    /// Number of the next epoch, from 0.
    epoch: AtomicUsize,
    /// Part of the order that this loader gives: all of it, unless several devices share an epoch.
    places: Range<usize>,
}

impl Loader {
    /// The pictures in their order, or with `seed` in a new order each epoch. Order and random numbers of an epoch
    /// depend on the seed and the epoch's number only, so that a run resumed at `first_epoch` (from 0) goes on as if
    /// it had not been cut.
    pub fn new(pictures: Pictures, batch_size: usize, seed: Option<u64>, first_epoch: usize, device: &Device) -> Self {
        Self {
            places: 0..pictures.images.len(),
            pictures,
            batch_size,
            device: device.clone(),
            seed,
            epoch: AtomicUsize::new(first_epoch),
        }
    }

    fn with(&self, device: &Device, places: Range<usize>) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self {
            pictures: self.pictures.clone(),
            batch_size: self.batch_size,
            device: device.clone(),
            seed: self.seed,
            epoch: AtomicUsize::new(self.epoch.load(Ordering::SeqCst)),
            places,
        })
    }
}

impl DataLoader<Batch> for Loader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        let mut order: Vec<usize> = (0..self.pictures.images.len()).collect();
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) as u64;
        let seed = self.seed.map(|seed| seed.wrapping_add(epoch));
        if let Some(seed) = seed {
            order.shuffle(&mut StdRng::seed_from_u64(seed));
            self.device.seed(seed);
        }
        let (sender, batches) = sync_channel(WAITING);
        let (pictures, batch_size, device) = (self.pictures.clone(), self.batch_size, self.device.clone());
        let places = self.places.clone();
        std::thread::spawn(move || {
            for items in order[places].chunks(batch_size) {
                let batch = pictures.batch(items, seed, &device);
                let failed = batch.is_err();
                // Nobody listens any more where a run was interrupted.
                if sender.send(batch).is_err() || failed {
                    break;
                }
            }
        });
        Box::new(Batches {
            batches,
            batch_size: self.batch_size,
            done: 0,
            total: self.places.len(),
        })
    }

    fn num_items(&self) -> usize {
        self.places.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        self.with(device, self.places.clone())
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        let places = self.places.start + start..self.places.start + end;
        self.with(&self.device, places)
    }
}

/// The thread that makes batches ended before the last one.
#[derive(Debug, thiserror::Error)]
#[error("reading pictures stopped after {0} of {1}")]
struct Stopped(usize, usize);

struct Batches {
    batches: Receiver<Result<Batch, DatasetError>>,
    batch_size: usize,
    /// Pictures given.
    done: usize,
    total: usize,
}

impl Iterator for Batches {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done >= self.total {
            return None;
        }
        let batch = self.batches.recv();
        let done = (self.done + self.batch_size).min(self.total);
        let before = std::mem::replace(&mut self.done, if batch.is_ok() { done } else { self.total });
        Some(batch.unwrap_or_else(|_| Err(DatasetError::new(Stopped(before, self.total)))))
    }
}

impl DataLoaderIterator<Batch> for Batches {
    fn progress(&self) -> Progress {
        Progress::new(self.done, self.total, Some("items".into()))
    }
}
