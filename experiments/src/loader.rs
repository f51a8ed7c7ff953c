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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use backbones::Normalization;
    use datasets::{Images, Picture, Resize};

    use super::*;

    fn pictures(count: usize) -> Images {
        let mut images = Images::new(2, Resize::default());
        (0..count).for_each(|i| images.push_grey(&[i as u8; 4], i));
        images
    }

    fn loader(images: Images, seed: Option<u64>, first_epoch: usize) -> Loader {
        let normalization = Normalization {
            mean: [0.5; 3],
            std: [0.5; 3],
        };
        Loader::new(
            Pictures::new(images, normalization),
            4,
            seed,
            first_epoch,
            &Device::flex(),
        )
    }

    fn labels(loader: &dyn DataLoader<Batch>) -> Vec<Vec<i64>> {
        let batches = loader
            .iter()
            .map(|batch| batch.unwrap().labels.into_data().iter().collect());
        batches.collect()
    }

    #[test]
    fn batches_come_in_order_and_epochs_in_new_ones() {
        let plain = loader(pictures(10), None, 0);
        assert_eq!(labels(&plain), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
        let shuffled = loader(pictures(10), Some(3), 0);
        let epochs = [labels(&shuffled), labels(&shuffled), labels(&shuffled)];
        assert_ne!(epochs[0], epochs[1]);
        let mut all = epochs[1].concat();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        // A run resumed at the third epoch, and two devices that share the second one.
        assert_eq!(labels(&loader(pictures(10), Some(3), 2)), epochs[2]);
        let second = loader(pictures(10), Some(3), 1);
        let (first, rest) = (second.slice(0, 4), second.slice(4, 10));
        assert_eq!([labels(&*first), labels(&*rest)].concat(), epochs[1]);
    }

    #[test]
    fn a_picture_that_cannot_be_read_ends_the_epoch_with_its_name() {
        let mut images = pictures(12);
        images.pictures[6] = Picture::File(Path::new("/nowhere/6.png").into());
        let loader = loader(images, None, 0);
        let found: Vec<Result<(), String>> = loader
            .iter()
            .map(|batch| batch.map(drop).map_err(|e| e.to_string()))
            .collect();
        assert!(found[0].is_ok());
        assert!(found[1].as_ref().unwrap_err().contains("/nowhere/6.png"), "{found:?}");
        // The thread ends there: what follows is an error too, never a silent end.
        assert!(found[2..].iter().all(Result::is_err));
    }

    #[test]
    fn an_epoch_that_is_left_early_leaves_nothing_behind() {
        let loader = loader(pictures(40), None, 0);
        let progress = {
            let mut batches = loader.iter();
            batches.next().unwrap().unwrap();
            batches.progress()
        };
        assert_eq!((progress.items_processed, progress.items_total), (4, 40));
        assert_eq!(labels(&loader).len(), 10);
    }
}
