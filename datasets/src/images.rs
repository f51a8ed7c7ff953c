//! Labelled images: kept decoded in their original size, or read again each time they are used. Nothing is kept in the
//! model's input size.
//!
//! What a set keeps is limited ([`Task::keep`]), so that memory hardly grows with the test set: `vtab --method linear`
//! with the shipped backbone peaked at 81 MB with 2,000 test images of 64 px (as dSprites' are), 93 MB with 20,000 and
//! 101 MB with 70,000; the growth comes from the lists. Keeping no test images costs little: in an evaluation of 15.6 s
//! on two busy cores (one run, none of the 20,000 images kept), decoding took 2.5 s and resizing 3.4 s, summed over the
//! threads, and the model waited 0.06 s for images.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use image::RgbImage;
use indicatif::ProgressBar;
use rayon::prelude::*;

use crate::decode::{Decoded, Decoder};
use crate::error::DataError;
use crate::resize::Resize;
use crate::steps::{self, Steps};

/// One image.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageSource {
    /// Decoded, in its original size.
    Decoded(Arc<RgbImage>),
    /// A file.
    File(Arc<Path>),
    /// The bytes of an image file within a larger file.
    Encoded {
        /// The larger file and the position in it, for messages.
        name: Arc<Path>,
        /// A complete image file.
        bytes: Arc<[u8]>,
    },
}

/// An image in its original size.
enum Opened {
    /// An image that is kept decoded.
    Kept(Arc<RgbImage>),
    /// An image that was just decoded.
    Read(Decoded),
}

impl ImageSource {
    /// The image in its original size.
    fn open(&self, decoder: &Decoder) -> Result<Opened, DataError> {
        match self {
            Self::Decoded(image) => Ok(Opened::Kept(image.clone())),
            Self::File(path) => decoder.file(path).map(Opened::Read),
            Self::Encoded { name, bytes } => decoder
                .bytes(bytes)
                .map(Opened::Read)
                .map_err(|message| DataError::read(name, message)),
        }
    }

    /// Size of the decoded image in bytes, from its header.
    fn decoded_bytes(&self, decoder: &Decoder) -> Result<usize, DataError> {
        let (width, height) = match self {
            Self::Decoded(image) => image.dimensions(),
            Self::File(path) => decoder.file_size(path)?,
            Self::Encoded { name, bytes } => decoder
                .bytes_size(bytes)
                .map_err(|message| DataError::read(name, message))?,
        };
        Ok(3 * width as usize * height as usize)
    }

    /// Checks that the image's file exists, without reading it.
    fn check(&self) -> Result<(), DataError> {
        match self {
            Self::File(path) => std::fs::metadata(&**path)
                .map(drop)
                .map_err(|e| DataError::read(path, e)),
            Self::Decoded(_) | Self::Encoded { .. } => Ok(()),
        }
    }

    /// The file, or the position in one; `None` for a generated image.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Decoded(_) => None,
            Self::File(path) => Some(path),
            Self::Encoded { name, .. } => Some(name),
        }
    }
}

/// Labelled images that a model reads at a fixed size. Clones share the images.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Images {
    /// Side length of the model's square input, pixels.
    pub size: usize,
    /// How images are resized to it.
    pub resize: Resize,
    /// The steps of [`Resize::Model`].
    pub steps: Option<Steps>,
    /// One label per image.
    pub labels: Vec<usize>,
    /// The images.
    pub sources: Vec<ImageSource>,
    /// How their files are decoded.
    pub decoder: Decoder,
}

impl Images {
    /// An empty set.
    pub fn new(size: usize, resize: Resize) -> Self {
        Self {
            size,
            resize,
            ..Self::default()
        }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Adds an image.
    pub fn push(&mut self, image: ImageSource, label: usize) {
        self.sources.push(image);
        self.labels.push(label);
    }

    /// Adds a grey image of `size * size` bytes.
    pub fn push_grey(&mut self, grey: &[u8], label: usize) {
        let side = self.size as u32;
        let image = RgbImage::from_fn(side, side, |x, y| image::Rgb([grey[(y * side + x) as usize]; 3]));
        self.push(ImageSource::Decoded(Arc::new(image)), label);
    }

    /// Image `index` decoded, in its original size; not copied if it is kept decoded. To read many large images at a
    /// time, use [`Images::with_rgb`], which limits their memory.
    ///
    /// # Errors
    /// An image that is missing, damaged or too large.
    pub fn rgb(&self, index: usize) -> Result<Arc<RgbImage>, DataError> {
        Ok(match self.sources[index].open(&self.decoder)? {
            Opened::Kept(image) => image,
            Opened::Read(decoded) => Arc::new(decoded.image),
        })
    }

    /// The result of `made` for image `index` in its original size. All threads together hold at most 256 MiB of
    /// decoded images in such calls; `made` must not wait for work in a thread pool.
    ///
    /// # Errors
    /// An image that is missing, damaged or too large.
    pub fn with_rgb<T>(&self, index: usize, made: impl FnOnce(&RgbImage) -> T) -> Result<T, DataError> {
        Ok(match self.sources[index].open(&self.decoder)? {
            Opened::Kept(image) => made(&image),
            Opened::Read(decoded) => made(&decoded.image),
        })
    }

    /// Image `index` as the model reads it in evaluation: `[3, size, size]`, values 0 to 255, not rounded.
    ///
    /// # Errors
    /// An image that is missing or damaged.
    pub fn pixels(&self, index: usize) -> Result<Vec<f32>, DataError> {
        self.resized(index, None)
    }

    /// Image `index` as the model reads it in training: like `pixels`, with the random parts of `resize` determined by
    /// `seed` and `index`.
    ///
    /// # Errors
    /// An image that is missing or damaged.
    pub fn training_pixels(&self, index: usize, seed: u64) -> Result<Vec<f32>, DataError> {
        // The odd constant spreads neighbouring indices over all seeds, so that no two epochs share draws.
        let own = seed.rotate_left(32) ^ (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.resized(index, Some(own))
    }

    fn resized(&self, index: usize, random: Option<u64>) -> Result<Vec<f32>, DataError> {
        let resized = self.with_rgb(index, |image| {
            steps::prepare(self.resize, self.steps, image, self.size, random)
        })?;
        resized.map_err(|message| {
            let path = self.sources[index].path().unwrap_or(Path::new("an image"));
            DataError::read(path, message)
        })
    }

    /// Decodes the first images in parallel and keeps them, up to `limit` bytes; for the others, only checks that their
    /// files exist. The headers tell which ones fit, so that none is decoded in vain. `bar` advances by one per image;
    /// the work stops once `go_on` returns false. Returns what was noticed of the decoded images.
    ///
    /// # Errors
    /// An image that is missing, damaged or too large; an interruption.
    pub fn keep(&mut self, limit: usize, bar: &ProgressBar, go_on: &dyn Fn() -> bool) -> Result<Noticed, DataError> {
        const CHUNK: usize = 64;
        let (mut kept, mut noticed) = (0_usize, Noticed::default());
        let decoder = self.decoder;
        for chunk in self.sources.chunks_mut(CHUNK) {
            if !go_on() {
                return Err(DataError::Stopped);
            }
            if kept >= limit {
                for image in chunk {
                    image.check()?;
                    bar.inc(1);
                }
                continue;
            }
            let sizes = chunk
                .par_iter()
                .map(|image| image.decoded_bytes(&decoder))
                .collect::<Result<Vec<_>, _>>()?;
            let fits: Vec<bool> = sizes
                .iter()
                .map(|bytes| {
                    let fits = kept + bytes <= limit;
                    kept += bytes;
                    fits
                })
                .collect();
            let of_chunk = chunk
                .par_iter_mut()
                .zip(fits)
                .map(|(image, fits)| {
                    let mut noticed = Noticed::default();
                    if fits && let Opened::Read(decoded) = image.open(&decoder)? {
                        noticed = Noticed::of(&decoded, image.path());
                        *image = ImageSource::Decoded(Arc::new(decoded.image));
                    }
                    bar.inc(1);
                    Ok(noticed)
                })
                .collect::<Result<Vec<_>, DataError>>()?;
            noticed = of_chunk.into_iter().fold(noticed, Noticed::and);
        }
        Ok(noticed)
    }

    /// Size of the images that are kept decoded, bytes.
    pub fn kept_bytes(&self) -> usize {
        let bytes = |image: &ImageSource| match image {
            ImageSource::Decoded(image) => image.as_raw().len(),
            ImageSource::File(_) => 0,
            ImageSource::Encoded { bytes, .. } => bytes.len(),
        };
        self.sources.iter().map(bytes).sum()
    }

    /// These images followed by those of `other`.
    pub fn joined(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.labels.extend_from_slice(&other.labels);
        both.sources.extend_from_slice(&other.sources);
        both
    }

    /// Moves the images from index `at` into a second set.
    pub fn split_off(&mut self, at: usize) -> Self {
        Self {
            size: self.size,
            resize: self.resize,
            steps: self.steps,
            labels: self.labels.split_off(at),
            sources: self.sources.split_off(at),
            decoder: self.decoder,
        }
    }
}

/// What a user should know of images that were decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noticed {
    /// Number of images that were rotated because of their EXIF orientation.
    pub turned: usize,
    /// Number of images that are not all that their files hold ([`Decoded::lost`]).
    pub lost: usize,
    /// The first of them, with what is lost.
    pub first: Option<String>,
}

impl Noticed {
    fn of(decoded: &Decoded, path: Option<&Path>) -> Self {
        let name = path.unwrap_or(Path::new("an image")).display();
        Self {
            turned: usize::from(decoded.turned),
            lost: usize::from(decoded.lost.is_some()),
            first: decoded.lost.as_ref().map(|lost| format!("{name}: {lost}")),
        }
    }

    /// Of these images and of `later` ones.
    fn and(self, later: Self) -> Self {
        Self {
            turned: self.turned + later.turned,
            lost: self.lost + later.lost,
            first: self.first.or(later.first),
        }
    }

    /// One sentence for each kind.
    fn notes(&self) -> Vec<String> {
        let turned = (self.turned > 0).then(|| format!("{} images turned as their EXIF orientation says", self.turned));
        let lost = self.first.as_ref().map(|first| match self.lost {
            1 => first.clone(),
            2 => format!("{first}; something of 1 more image is lost too"),
            count => format!("{first}; something of {} more images is lost too", count - 1),
        });
        turned.into_iter().chain(lost).collect()
    }
}

/// A classification task: training, validation and test images.
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
    /// Notes for the user about how the task was read, such as files left out or images rotated; one sentence each.
    pub notes: Vec<String>,
}

/// Bytes of decoded images that a training set may keep; it is read once per epoch.
const KEPT_TRAIN: usize = 1 << 30;

/// Bytes of decoded images that a validation set may keep; it is read once per epoch and is small.
const KEPT_VALID: usize = 256 << 20;

/// Bytes of decoded images that a test set may keep; it is read once per run, ahead of the model, and may be large.
const KEPT_TEST: usize = 32 << 20;

impl Task {
    /// The same task, with images decoded by `decoder`.
    pub fn with_decoder(mut self, decoder: Decoder) -> Self {
        for part in [&mut self.train, &mut self.valid, &mut self.test] {
            part.decoder = decoder;
        }
        self
    }

    /// The same task, refusing images with more than `max_pixels` pixels.
    pub fn with_max_pixels(mut self, max_pixels: u64) -> Self {
        for part in [&mut self.train, &mut self.valid, &mut self.test] {
            part.decoder.max_pixels = max_pixels;
        }
        self
    }

    /// Checks that the images' files exist, without reading them.
    ///
    /// # Errors
    /// A file that is missing.
    pub fn check(&self) -> Result<(), DataError> {
        let parts = [&self.train, &self.valid, &self.test];
        parts
            .iter()
            .flat_map(|part| &part.sources)
            .try_for_each(ImageSource::check)
    }

    /// Number of test images that are also training images, which makes the test score meaningless.
    pub fn trained_and_tested(&self) -> usize {
        let trained: HashSet<_> = self.train.sources.iter().filter_map(ImageSource::path).collect();
        let tested = self.test.sources.iter().filter_map(ImageSource::path);
        tested.filter(|path| trained.contains(path)).count()
    }

    /// Decodes and keeps images of the three sets within fixed limits (1 GiB, 256 MiB and 32 MiB); further images are
    /// read again each time. Shows a progress bar, and stops once `go_on` returns false.
    ///
    /// # Errors
    /// An image that is missing or damaged; an interruption.
    pub fn keep(mut self, go_on: &dyn Fn() -> bool) -> Result<Self, DataError> {
        let total = self.train.len() + self.valid.len() + self.test.len();
        let bar = crate::progress::bar(total, format!("{}: reading images", self.name));
        let noticed = self.train.keep(KEPT_TRAIN, &bar, go_on)?;
        let noticed = noticed.and(self.valid.keep(KEPT_VALID, &bar, go_on)?);
        let noticed = noticed.and(self.test.keep(KEPT_TEST, &bar, go_on)?);
        bar.finish_and_clear();
        self.notes.extend(noticed.notes());
        Ok(self)
    }
}
