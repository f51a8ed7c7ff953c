//! Resizing and cropping as specified in the files of a pretrained model, with the same pixels as Pillow.

use fast_image_resize as fir;
use fir::images::TypedImage;
use fir::pixels::F32x3;
use fir::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use resample::resample;
use serde::{Deserialize, Serialize};

use crate::resize::{Resize, planes};

pub use resample::Filter;

/// Maximum side length of a resized image, pixels: an image with one row would otherwise get millions of columns.
const LONGEST: usize = 1 << 16;
/// Maximum pixels of a resized image.
const MOST_PIXELS: usize = 1 << 28;

/// Target size of a resize.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// To `[height, width]`, ignoring the aspect ratio.
    Exact([usize; 2]),
    /// The shorter side to this many pixels; the longer one is rounded down.
    ShortestEdge(usize),
    /// The shorter side to this many pixels, or the longer one to its limit if it would exceed it.
    EdgeLimits {
        /// The shorter side.
        shortest: usize,
        /// Limit of the longer side.
        longest: usize,
    },
    /// The largest size that fits into `[height, width]`, keeping the aspect ratio, with sides rounded down.
    Within([usize; 2]),
    /// The smallest size that covers `[height, width]`, keeping the aspect ratio, with sides rounded.
    Covering([usize; 2]),
    /// The largest size that fits into `[height, width]`, keeping the aspect ratio, with sides rounded.
    Fitting([usize; 2]),
}

/// A crop around the centre; areas outside the image are filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crop {
    /// Height and width, pixels.
    pub size: [usize; 2],
    /// Fill colour, 0 to 255.
    pub fill: [u8; 3],
    /// Round half-pixel offsets to even; otherwise round down.
    pub to_even: bool,
}

/// Steps for an image: resizing, then cropping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// Resizing, if any.
    pub resize: Option<Target>,
    /// Its filter.
    pub filter: Filter,
    /// Whether pixels are rounded to bytes after resizing.
    pub rounded: bool,
    /// Cropping, if any.
    pub crop: Option<Crop>,
}

impl Steps {
    /// `image` as `[3, height, width]`, values 0 to 255, with its height and width.
    ///
    /// # Errors
    /// An image without pixels, or one so narrow that its resized size would be enormous.
    pub fn apply(&self, image: &RgbImage) -> Result<(Vec<f32>, [usize; 2]), String> {
        let from = [image.height() as usize, image.width() as usize];
        if from.contains(&0) {
            return Err("the image has no pixels".into());
        }
        let to = self.resize.map_or(from, |target| target.sides(from));
        let area = to[0].saturating_mul(to[1]);
        if area == 0 || area > MOST_PIXELS || to.iter().any(|side| *side > LONGEST) {
            return Err(format!(
                "an image of {} x {} px would be resized to {} x {}; crop it before",
                from[0], from[1], to[0], to[1]
            ));
        }
        let values = match to == from {
            true => planes(image),
            false if self.rounded || self.filter == Filter::Nearest => {
                planes(&resample(image, to.map(|side| side as u32), self.filter))
            }
            false => floats(image, to, self.filter)?,
        };
        Ok(match self.crop {
            Some(crop) => (crop.apply(&values, to), crop.size),
            None => (values, to),
        })
    }
}

impl Steps {
    /// [`Steps::apply`] for a model that reads images of `size`, `[height, width]`.
    ///
    /// # Errors
    /// The same; also an image that ends up with another size.
    pub fn to_size(&self, image: &RgbImage, size: [usize; 2]) -> Result<Vec<f32>, String> {
        match self.apply(image)? {
            (values, found) if found == size => Ok(values),
            (_, [height, width]) => Err(format!(
                "prepared as the model's files say the image has {height} x {width} px, and the model reads {} x {}; choose \
                 another --resize",
                size[0], size[1]
            )),
        }
    }
}

/// [`Resize::apply`], with the `steps` of [`Resize::Model`].
///
/// # Errors
/// The same; also missing steps, or steps that lead to another size.
pub fn prepare(
    resize: Resize,
    steps: Option<Steps>,
    image: &RgbImage,
    size: usize,
    random: Option<u64>,
) -> Result<Vec<f32>, String> {
    match resize {
        Resize::Model => steps.ok_or_else(Resize::no_steps)?.to_size(image, [size; 2]),
        other => other.apply(image, size, random),
    }
}

impl Target {
    /// Height and width after resizing an image of `[height, width]`.
    fn sides(self, [height, width]: [usize; 2]) -> [usize; 2] {
        let (shorter, longer) = (height.min(width), height.max(width));
        let by_edges = |short: usize, long: usize| match width <= height {
            true => [long, short],
            false => [short, long],
        };
        // As in the Python references: first the product, then a float division, then rounding down.
        let of = |product: usize, by: usize| (product as f64 / by as f64) as usize;
        match self {
            Self::Exact(size) => size,
            Self::ShortestEdge(edge) => by_edges(edge, of(edge.saturating_mul(longer), shorter)),
            Self::EdgeLimits { shortest, longest } => {
                if longer as f64 / shorter as f64 * shortest as f64 <= longest as f64 {
                    return by_edges(shortest, of(shortest.saturating_mul(longer), shorter));
                }
                let raw = longest as f64 * shorter as f64 / longer as f64;
                let short = raw.round_ties_even() as usize;
                match short == shorter {
                    true => [height, width],
                    false => by_edges(short, (raw * longer as f64 / shorter as f64) as usize),
                }
            }
            Self::Within([most_height, most_width]) => {
                let scale = (most_height as f64 / height as f64).min(most_width as f64 / width as f64);
                [height, width].map(|side| (side as f64 * scale) as usize)
            }
            Self::Covering(size) | Self::Fitting(size) => {
                let ratios = [height as f64 / size[0] as f64, width as f64 / size[1] as f64];
                let ratio = match self {
                    Self::Covering(_) => ratios[0].min(ratios[1]),
                    _ => ratios[0].max(ratios[1]),
                };
                [height, width].map(|side| (side as f64 / ratio).round_ties_even() as usize)
            }
        }
    }
}

impl Crop {
    /// The crop of planes `[3, height, width]`.
    fn apply(self, values: &[f32], from: [usize; 2]) -> Vec<f32> {
        let [top, left] = [0, 1].map(|axis| self.offset(from[axis], self.size[axis]));
        let [height, width] = self.size;
        let mut out = Vec::with_capacity(3 * height * width);
        for (channel, fill) in self.fill.into_iter().enumerate() {
            let plane = &values[channel * from[0] * from[1]..(channel + 1) * from[0] * from[1]];
            for y in 0..height {
                let row = usize::try_from(top + y as isize)
                    .ok()
                    .filter(|row| *row < from[0])
                    .map(|row| &plane[row * from[1]..(row + 1) * from[1]]);
                out.extend((0..width).map(|x| {
                    let column = usize::try_from(left + x as isize).ok();
                    let pixel = row.zip(column).and_then(|(row, column)| row.get(column));
                    pixel.copied().unwrap_or(f32::from(fill))
                }));
            }
        }
        out
    }

    /// Where a crop of `to` begins in `from`; negative if it is filled.
    fn offset(self, from: usize, to: usize) -> isize {
        if to > from {
            return -(((to - from) / 2) as isize);
        }
        let spare = from - to;
        match self.to_even {
            true => (spare as f64 / 2.0).round_ties_even() as isize,
            false => (spare / 2) as isize,
        }
    }
}

fn options(filter: Filter) -> ResizeOptions {
    let convolution = |filter| ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    match filter {
        Filter::Nearest => ResizeOptions::new().resize_alg(ResizeAlg::Nearest),
        Filter::Bilinear => convolution(FilterType::Bilinear),
        Filter::Bicubic => convolution(FilterType::CatmullRom),
        Filter::Lanczos => convolution(FilterType::Lanczos3),
        Filter::Box => convolution(FilterType::Box),
        Filter::Hamming => convolution(FilterType::Hamming),
    }
}

/// Resizes in floats, as planes.
fn floats(image: &RgbImage, [height, width]: [usize; 2], filter: Filter) -> Result<Vec<f32>, String> {
    let mut target = TypedImage::<F32x3>::new(width as u32, height as u32);
    Resizer::new()
        .resize_typed(&float_pixels(image)?, &mut target, &options(filter))
        .map_err(|e| e.to_string())?;
    let pixels = target.pixels();
    Ok((0..3)
        .flat_map(|channel| pixels.iter().map(move |pixel| pixel.0[channel]))
        .collect())
}

fn float_pixels(image: &RgbImage) -> Result<TypedImage<'static, F32x3>, String> {
    let pixels = image.as_raw().chunks_exact(3);
    let pixels = pixels.map(|p| F32x3::new([p[0], p[1], p[2]].map(f32::from))).collect();
    TypedImage::from_pixels(image.width(), image.height(), pixels).map_err(|e| e.to_string())
}
