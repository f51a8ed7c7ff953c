//! All tasks and sets of examples as Burn `Dataset`s, for a Burn project's own `DataLoaderBuilder`.
//!
//! The parts of a [`Task`](crate::Task) are [`Images`], a dataset of [`LabelledImage`]s as a model reads them in
//! evaluation; [`TrainingImages`] draws the random parts of resizing. [`Examples`] is a dataset of language examples,
//! and [`questions`] makes one of questions. This is a complete program (tests/tests/burn_dataset.rs runs it):
//!
//! ```ignore
#![doc = include_str!("../../tests/tests/burn_dataset.rs")]
//! ```

use burn_dataset::{Dataset, DatasetError, InMemDataset};

use crate::images::Images;
use crate::language::{Example, Examples, Question};

/// One image as a model reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledImage {
    /// `[3, size, size]`, values 0 to 255, row-major.
    pub pixels: Vec<f32>,
    /// Side length, pixels.
    pub size: usize,
    /// Number of its class.
    pub label: usize,
}

impl Dataset<LabelledImage> for Images {
    fn get(&self, index: usize) -> Result<LabelledImage, DatasetError> {
        Ok(LabelledImage {
            pixels: self.pixels(index).map_err(DatasetError::new)?,
            size: self.size,
            label: self.labels[index],
        })
    }

    fn len(&self) -> usize {
        self.labels.len()
    }
}

/// Images as a model reads them in training: the random parts of [`Resize`](crate::Resize) depend on the seed and the
/// image's index, so each epoch needs its own seed.
#[derive(Debug, Clone)]
pub struct TrainingImages {
    /// The images.
    pub images: Images,
    /// Seed of the epoch.
    pub seed: u64,
}

impl Dataset<LabelledImage> for TrainingImages {
    fn get(&self, index: usize) -> Result<LabelledImage, DatasetError> {
        let pixels = self.images.training_pixels(index, self.seed);
        Ok(LabelledImage {
            pixels: pixels.map_err(DatasetError::new)?,
            size: self.images.size,
            label: self.images.labels[index],
        })
    }

    fn len(&self) -> usize {
        self.images.labels.len()
    }
}

impl Dataset<Example> for Examples {
    fn get(&self, index: usize) -> Result<Example, DatasetError> {
        Ok(self.examples[index].clone())
    }

    fn len(&self) -> usize {
        self.examples.len()
    }
}

/// The questions of a test set as a dataset.
pub fn questions(questions: Vec<Question>) -> InMemDataset<Question> {
    InMemDataset::new(questions)
}
