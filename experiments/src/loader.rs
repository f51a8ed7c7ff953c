//! Batches of pictures, made by a thread of their own ahead of the model, also from one epoch to the next. At most four
//! are in memory: the one that the model reads, two that wait, and the one being made, whose pictures are read and resized
//! on all cores.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::batches::{Batch, Pictures, Values};

/// Batches that may wait for the model.
const WAITING: usize = 2;

/// What the thread gives for a batch.
type Made = Result<Values, DatasetError>;

/// Gives the batches of an epoch.
pub struct Loader {
    pictures: Pictures,
    batch_size: usize,
    device: Device,
    /// Seed of the run, where every epoch has a new order.
    seed: Option<u64>,
    /// Number of the next epoch, from 0.
    epoch: AtomicUsize,
    /// Epochs of the run.
    epochs: usize,
    /// Part of the order that this loader gives: all of it, unless several devices share an epoch.
    places: Range<usize>,
    /// The next epoch and its first batches, where this one has come to its end.
    ahead: Mutex<Option<(usize, Receiver<Made>)>>,
}

impl Loader {
    /// The pictures in their order, or with `seed` in a new order each epoch. Order and random numbers of an epoch
    /// depend on the seed and the epoch's number only, so that a run resumed at a later one of `epochs` (from 0) goes on
    /// as if it had not been cut.
    pub fn new(
        pictures: Pictures,
        batch_size: usize,
        seed: Option<u64>,
        epochs: Range<usize>,
        device: &Device,
    ) -> Self {
        Self {
            places: 0..pictures.images.len(),
            pictures,
            batch_size,
            device: device.clone(),
            seed,
            epoch: AtomicUsize::new(epochs.start),
            epochs: epochs.end,
            ahead: Mutex::default(),
        }
    }

    fn seed_of(&self, epoch: usize) -> Option<u64> {
        self.seed.map(|seed| seed.wrapping_add(epoch as u64))
    }

    /// Starts the thread that makes the batches of an epoch.
    fn start(&self, epoch: usize) -> Receiver<Made> {
        let seed = self.seed_of(epoch);
        let mut order: Vec<usize> = (0..self.pictures.images.len()).collect();
        if let Some(seed) = seed {
            order.shuffle(&mut StdRng::seed_from_u64(seed));
        }
        let (sender, batches) = sync_channel(WAITING);
        let (pictures, batch_size, places) = (self.pictures.clone(), self.batch_size, self.places.clone());
        std::thread::spawn(move || {
            for items in order[places].chunks(batch_size) {
                let batch = pictures.read(items, seed);
                let failed = batch.is_err();
                // Nobody listens any more where a run was interrupted.
                if sender.send(batch).is_err() || failed {
                    break;
                }
            }
        });
        batches
    }

    fn with(&self, device: &Device, places: Range<usize>) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self {
            pictures: self.pictures.clone(),
            batch_size: self.batch_size,
            device: device.clone(),
            seed: self.seed,
            epoch: AtomicUsize::new(self.epoch.load(Ordering::SeqCst)),
            epochs: self.epochs,
            places,
            ahead: Mutex::default(),
        })
    }
}

impl DataLoader<Batch> for Loader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst);
        if let Some(seed) = self.seed_of(epoch) {
            self.device.seed(seed);
        }
        let ahead = self.ahead.lock().ok().and_then(|mut ahead| ahead.take());
        let batches = match ahead {
            Some((known, batches)) if known == epoch => batches,
            _ => self.start(epoch),
        };
        Box::new(Batches {
            loader: self,
            epoch,
            batches,
            done: 0,
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

struct Batches<'a> {
    loader: &'a Loader,
    epoch: usize,
    batches: Receiver<Made>,
    /// Pictures given.
    done: usize,
}

impl Iterator for Batches<'_> {
    type Item = Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let total = self.loader.places.len();
        if self.done >= total {
            return None;
        }
        let values = self.batches.recv();
        let done = (self.done + self.loader.batch_size).min(total);
        let before = std::mem::replace(&mut self.done, if values.is_ok() { done } else { total });
        let next = self.epoch + 1;
        if self.done == total
            && values.is_ok()
            && next < self.loader.epochs
            && let Ok(mut ahead) = self.loader.ahead.lock()
        {
            // While the model learns from the last batch, and is evaluated.
            *ahead = Some((next, self.loader.start(next)));
        }
        let values = values.unwrap_or_else(|_| Err(DatasetError::new(Stopped(before, total))));
        // Here and not in the thread that read them: a GPU has a queue, and memory, for every thread that speaks to it.
        Some(values.map(|values| self.loader.pictures.on_device(values, &self.loader.device)))
    }
}

impl DataLoaderIterator<Batch> for Batches<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.done, self.loader.places.len(), Some("items".into()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use backbones::Normalization;
    use datasets::{ImageSource, Images, Resize};

    use super::*;

    fn pictures(count: usize) -> Images {
        let mut images = Images::new(2, Resize::default());
        (0..count).for_each(|i| images.push_grey(&[i as u8; 4], i));
        images
    }

    fn loader(images: Images, seed: Option<u64>, epochs: Range<usize>) -> Loader {
        let normalization = Normalization {
            mean: [0.5; 3],
            std: [0.5; 3],
        };
        Loader::new(Pictures::new(images, normalization), 4, seed, epochs, &Device::flex())
    }

    fn labels(loader: &dyn DataLoader<Batch>) -> Vec<Vec<i64>> {
        let batches = loader
            .iter()
            .map(|batch| batch.unwrap().labels.into_data().iter().collect());
        batches.collect()
    }

    #[test]
    fn batches_come_in_order_and_epochs_in_new_ones() {
        let plain = loader(pictures(10), None, 0..1);
        assert_eq!(labels(&plain), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
        let shuffled = loader(pictures(10), Some(3), 0..3);
        let epochs = [labels(&shuffled), labels(&shuffled), labels(&shuffled)];
        assert_ne!(epochs[0], epochs[1]);
        let mut all = epochs[1].concat();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        // A run resumed at the third epoch, and two devices that share the second one.
        assert_eq!(labels(&loader(pictures(10), Some(3), 2..3)), epochs[2]);
        let second = loader(pictures(10), Some(3), 1..3);
        let (first, rest) = (second.slice(0, 4), second.slice(4, 10));
        assert_eq!([labels(&*first), labels(&*rest)].concat(), epochs[1]);
    }

    #[test]
    fn the_next_epoch_is_begun_at_the_end_of_one_and_none_after_the_last() {
        let loader = loader(pictures(10), Some(3), 0..2);
        let begun = |loader: &Loader| loader.ahead.lock().unwrap().as_ref().map(|(epoch, _)| *epoch);
        let mut batches = loader.iter();
        batches.by_ref().take(2).for_each(drop);
        assert_eq!(begun(&loader), None);
        batches.next().unwrap().unwrap();
        assert_eq!(begun(&loader), Some(1));
        assert!(batches.next().is_none());
        labels(&loader);
        assert_eq!(begun(&loader), None);
    }

    #[test]
    fn a_picture_that_cannot_be_read_ends_the_epoch_with_its_name() {
        let mut images = pictures(12);
        images.sources[6] = ImageSource::File(Path::new("/nowhere/6.png").into());
        let loader = loader(images, None, 0..1);
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
        let loader = loader(pictures(40), None, 0..1);
        let progress = {
            let mut batches = loader.iter();
            batches.next().unwrap().unwrap();
            batches.progress()
        };
        assert_eq!((progress.items_processed, progress.items_total), (4, 40));
        assert_eq!(labels(&loader).len(), 10);
    }
}
