//! Batches of the sequences that a training is evaluated on.

use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;

use crate::language::batches::{Sequence, Step, make_step};

/// Sequences to evaluate on, sorted by length, a batch a step.
#[derive(Clone)]
pub struct HeldOut {
    sequences: Arc<Vec<Sequence>>,
    batch_size: usize,
    device: Device,
}

impl HeldOut {
    /// The batches of `sequences`, which may be none.
    pub fn new(mut sequences: Vec<Sequence>, batch_size: usize, device: &Device) -> Self {
        sequences.sort_by_key(|sequence| sequence.ids.len());
        Self {
            sequences: Arc::new(sequences),
            batch_size,
            device: device.clone(),
        }
    }
}

impl DataLoader<Step> for HeldOut {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Step> + 'a> {
        Box::new(HeldOutSteps { set: self, next: 0 })
    }

    fn num_items(&self) -> usize {
        self.sequences.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Step>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.clone()
        })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Step>> {
        Arc::new(Self::new(
            self.sequences[start..end].to_vec(),
            self.batch_size,
            &self.device,
        ))
    }
}

struct HeldOutSteps<'a> {
    set: &'a HeldOut,
    next: usize,
}

impl Iterator for HeldOutSteps<'_> {
    type Item = Result<Step, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let count = self.set.sequences.len();
        let from = self.next;
        self.next = count.min(from + self.set.batch_size);
        let batch: Vec<usize> = (from..self.next).collect();
        (!batch.is_empty()).then(|| Ok(make_step(&self.set.sequences, &[batch], 0, &self.set.device)))
    }
}

impl DataLoaderIterator<Step> for HeldOutSteps<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.next, self.set.sequences.len(), Some("sequences".into()))
    }
}
