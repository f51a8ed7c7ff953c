//! Labelled pictures: kept decoded in their own size, or read again each time they are wanted. Nothing is kept in the
//! size that a model reads.
//!
//! What a set keeps is limited ([`Task::keep`]), so that memory hardly grows with the test set: `vtab --method linear`
//! with the shipped backbone peaked at 81 MB with 2,000 test pictures of 64 px (as dSprites' are), 93 MB with 20,000
//! and 101 MB with 70,000; what grows is the lists. Keeping no test picture costs little: of an evaluation of 15.6 s on
//! two busy cores (one run, none of the 20,000 kept) decoding took 2.5 s and resizing 3.4 s, summed over the threads,
//! and the model waited 0.06 s for pictures.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use image::RgbImage;
use indicatif::ProgressBar;
use rayon::prelude::*;

use crate::decode;
use crate::error::DataError;
use crate::resize::Resize;
use crate::steps::{self, Steps};

/// One picture.
#[derive(Debug, Clone, PartialEq)]
pub enum Picture {
    /// Decoded, in its own size.
    Decoded(Arc<RgbImage>),
    /// A file.
    File(Arc<Path>),
    /// The bytes of a picture file that lies in a larger file.
    Encoded {
        /// The larger file and the place in it, for messages.
        name: Arc<Path>,
        /// JPEG or PNG.
        bytes: Arc<[u8]>,
    },
}

impl Picture {
    /// The picture decoded, in its own size; no copy if it is kept decoded.
    ///
    /// # Errors
    /// A picture that is missing or damaged.
    pub fn rgb(&self) -> Result<Arc<RgbImage>, DataError> {
        match self {
            Self::Decoded(picture) => Ok(picture.clone()),
            Self::File(path) => decode::file(path).map(Arc::new),
            Self::Encoded { name, bytes } => decode::memory(bytes)
                .map(Arc::new)
                .map_err(|message| DataError::read(name, message)),
        }
    }

    /// Looks whether the picture's file is there, without reading it.
    ///
    /// # Errors
    /// A file that is missing.
    fn check(&self) -> Result<(), DataError> {
        match self {
            Self::File(path) => std::fs::metadata(&**path)
                .map(drop)
                .map_err(|e| DataError::read(path, e)),
            Self::Decoded(_) | Self::Encoded { .. } => Ok(()),
        }
    }

    /// The file, or the place in one; `None` for a picture that was made, not read.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Decoded(_) => None,
            Self::File(path) => Some(path),
            Self::Encoded { name, .. } => Some(name),
        }
    }
}

/// Labelled pictures that a model reads in one size. A clone shares the pictures.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Images {
    /// Side of the squares that the model reads, pixels.
    pub size: usize,
    /// How they are made of the pictures.
    pub resize: Resize,
    /// The steps of [`Resize::Model`].
    pub steps: Option<Steps>,
    /// One label a picture.
    pub labels: Vec<usize>,
    /// The pictures.
    pub pictures: Vec<Picture>,
}

impl Images {
    /// No picture yet.
    pub fn new(size: usize, resize: Resize) -> Self {
        Self {
            size,
            resize,
            ..Self::default()
        }
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Adds a picture.
    pub fn push(&mut self, picture: Picture, label: usize) {
        self.pictures.push(picture);
        self.labels.push(label);
    }

    /// Adds a grey picture of `size * size` bytes.
    pub fn push_grey(&mut self, grey: &[u8], label: usize) {
        let side = self.size as u32;
        let picture = RgbImage::from_fn(side, side, |x, y| image::Rgb([grey[(y * side + x) as usize]; 3]));
        self.push(Picture::Decoded(Arc::new(picture)), label);
    }

    /// Picture `index` decoded, in its own size.
    ///
    /// # Errors
    /// A picture that is missing or damaged.
    pub fn rgb(&self, index: usize) -> Result<Arc<RgbImage>, DataError> {
        self.pictures[index].rgb()
    }

    /// Picture `index` as the model reads it in evaluation: `[3, size, size]`, values 0 to 255, not rounded.
    ///
    /// # Errors
    /// A picture that is missing or damaged.
    pub fn pixels(&self, index: usize) -> Result<Vec<f32>, DataError> {
        self.resized(index, None)
    }

    /// Picture `index` as the model reads it in training: as `pixels`, with the random parts of `resize` drawn from
    /// `seed` and `index`.
    ///
    /// # Errors
    /// A picture that is missing or damaged.
    pub fn training_pixels(&self, index: usize, seed: u64) -> Result<Vec<f32>, DataError> {
        // The odd constant spreads neighbouring indices over all seeds, so that no two epochs share draws.
        let own = seed.rotate_left(32) ^ (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.resized(index, Some(own))
    }

    fn resized(&self, index: usize, random: Option<u64>) -> Result<Vec<f32>, DataError> {
        let picture = self.rgb(index)?;
        let pixels = steps::prepare(self.resize, self.steps, &picture, self.size, random);
        pixels.map_err(|message| {
            let path = self.pictures[index].path().unwrap_or(Path::new("a picture"));
            DataError::read(path, message)
        })
    }

    /// Decodes the first pictures, in parallel, and keeps them until they take `limit` bytes; of the others only
    /// checks that their files are there. `bar` goes on by one a picture, and the whole as long as `go_on` says so.
    ///
    /// # Errors
    /// A picture that is missing or damaged; a stop.
    pub fn keep(&mut self, limit: usize, bar: &ProgressBar, go_on: &dyn Fn() -> bool) -> Result<(), DataError> {
        const CHUNK: usize = 64;
        let mut kept = 0;
        for chunk in self.pictures.chunks_mut(CHUNK) {
            if !go_on() {
                return Err(DataError::Stopped);
            }
            if kept < limit {
                let decoded = chunk
                    .par_iter()
                    .map(|picture| picture.rgb().inspect(|_| bar.inc(1)))
                    .collect::<Result<Vec<_>, _>>()?;
                for (picture, decoded) in chunk.iter_mut().zip(decoded) {
                    let bytes = decoded.as_raw().len();
                    if kept + bytes <= limit {
                        *picture = Picture::Decoded(decoded);
                    }
                    kept += bytes;
                }
                continue;
            }
            for picture in chunk {
                picture.check()?;
                bar.inc(1);
            }
        }
        Ok(())
    }

    /// Bytes of the pictures that are kept decoded.
    pub fn kept_bytes(&self) -> usize {
        let bytes = |picture: &Picture| match picture {
            Picture::Decoded(picture) => picture.as_raw().len(),
            Picture::File(_) => 0,
            Picture::Encoded { bytes, .. } => bytes.len(),
        };
        self.pictures.iter().map(bytes).sum()
    }

    /// The pictures of both, these first.
    pub fn joined(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.labels.extend_from_slice(&other.labels);
        both.pictures.extend_from_slice(&other.pictures);
        both
    }

    /// Moves the pictures from `at` on into a second set.
    pub fn split_off(&mut self, at: usize) -> Self {
        Self {
            size: self.size,
            resize: self.resize,
            steps: self.steps,
            labels: self.labels.split_off(at),
            pictures: self.pictures.split_off(at),
        }
    }
}

/// One classification task: pictures to train on, pictures to choose by, and a test set.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Name.
    pub name: String,
    /// VTAB's group (natural, specialized, structured), or `fgvc`, or `other`.
    pub group: String,
    /// Name of each class; the length is the number of classes.
    pub classes: Vec<String>,
    /// train800.
    pub train: Images,
    /// val200.
    pub valid: Images,
    /// test.
    pub test: Images,
}

/// Bytes of decoded pictures that a set to train on may keep; one is read once an epoch.
const KEPT_TRAIN: usize = 1 << 30;

/// Bytes of decoded pictures that a set to validate on may keep; one is read once an epoch, and is small.
const KEPT_VALID: usize = 256 << 20;

/// Bytes of decoded pictures that a set to test on may keep; one is read once a run, ahead of the model, and may be large.
const KEPT_TEST: usize = 32 << 20;

impl Task {
    /// Looks whether the pictures' files are there, without reading them.
    ///
    /// # Errors
    /// A file that is missing.
    pub fn check(&self) -> Result<(), DataError> {
        let parts = [&self.train, &self.valid, &self.test];
        parts
            .iter()
            .flat_map(|part| &part.pictures)
            .try_for_each(Picture::check)
    }

    /// Number of test pictures that are trained on as well: their score tells nothing.
    pub fn trained_and_tested(&self) -> usize {
        let trained: HashSet<_> = self.train.pictures.iter().filter_map(Picture::path).collect();
        let tested = self.test.pictures.iter().filter_map(Picture::path);
        tested.filter(|path| trained.contains(path)).count()
    }

    /// Decodes and keeps pictures of the three sets within fixed limits (1 GiB, 256 MiB and 32 MiB); pictures beyond
    /// are read again each time. Shows a progress bar, and goes on as long as `go_on` says so.
    ///
    /// # Errors
    /// A picture that is missing or damaged; a stop.
    pub fn keep(mut self, go_on: &dyn Fn() -> bool) -> Result<Self, DataError> {
        let total = self.train.len() + self.valid.len() + self.test.len();
        let bar = crate::progress::bar(total, format!("{}: reading pictures", self.name));
        self.train.keep(KEPT_TRAIN, &bar, go_on)?;
        self.valid.keep(KEPT_VALID, &bar, go_on)?;
        self.test.keep(KEPT_TEST, &bar, go_on)?;
        bar.finish_and_clear();
        Ok(self)
    }
}
