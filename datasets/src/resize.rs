//! How a picture of any size becomes the square a model reads.

use std::str::FromStr;

use fast_image_resize as fir;
use fir::images::{TypedImage, TypedImageRef};
use fir::pixels::{F32x3, U8x3};
use fir::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// What happens to a picture on its way to `size` × `size`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// The whole picture, aspect ignored; bilinear without antialiasing, values not rounded: VTAB-1k in the
    /// paper's released code.
    #[default]
    Bilinear,
    /// The whole picture, aspect ignored; bilinear, antialiased.
    BilinearAntialias,
    /// The whole picture, aspect ignored; bicubic, antialiased.
    Bicubic,
    /// The whole picture, aspect ignored; Lanczos of 3 lobes, antialiased.
    Lanczos,
    /// The shorter side to 8/7 of `size` (256 for 224; bilinear, antialiased), then the central square; in training a
    /// random square, mirrored every other time: FGVC in the paper's released code.
    Crop,
    /// As the backbone's own files say ([`crate::steps`]).
    Model,
}

impl Resize {
    /// Names, in the order of the variants.
    pub const NAMES: [&str; 6] = ["bilinear", "bilinear-antialias", "bicubic", "lanczos", "crop", "model"];

    /// Why [`Resize::Model`] cannot be done.
    pub fn no_steps() -> String {
        "the backbone's files do not say how images are prepared; choose another --resize".into()
    }
}

impl FromStr for Resize {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "bilinear" => Ok(Self::Bilinear),
            "bilinear-antialias" => Ok(Self::BilinearAntialias),
            "bicubic" => Ok(Self::Bicubic),
            "lanczos" => Ok(Self::Lanczos),
            "crop" => Ok(Self::Crop),
            "model" => Ok(Self::Model),
            _ => Err(format!("resize '{name}' is unknown; choose {}", Self::NAMES.join(", "))),
        }
    }
}

impl Resize {
    /// `picture` as `[3, size, size]`, values 0 to 255, row-major. `random` is the seed of a training crop; the other
    /// variants have nothing random and ignore it.
    ///
    /// # Errors
    /// A picture without pixels.
    pub fn apply(self, picture: &RgbImage, size: usize, random: Option<u64>) -> Result<Vec<f32>, String> {
        let side = size as u32;
        match self {
            Self::Bilinear if picture.dimensions() == (side, side) => Ok(planes(picture)),
            Self::Bilinear => unrounded(picture, side),
            Self::BilinearAntialias => Ok(planes(&antialiased(picture, side, side, FilterType::Bilinear)?)),
            Self::Bicubic => Ok(planes(&antialiased(picture, side, side, FilterType::CatmullRom)?)),
            Self::Lanczos => Ok(planes(&antialiased(picture, side, side, FilterType::Lanczos3)?)),
            Self::Crop => crop(picture, side, random),
            Self::Model => Err(Self::no_steps()),
        }
    }
}

/// A picture as planes `[3, height, width]` of 0 to 255.
pub fn planes(picture: &RgbImage) -> Vec<f32> {
    let area = picture.width() as usize * picture.height() as usize;
    let mut values = vec![0.0; 3 * area];
    for (index, pixel) in picture.as_raw().chunks_exact(3).enumerate() {
        for channel in 0..3 {
            values[channel * area + index] = f32::from(pixel[channel]);
        }
    }
    values
}

/// Bilinear between the two nearest rows and columns, in floats from end to end.
fn unrounded(picture: &RgbImage, side: u32) -> Result<Vec<f32>, String> {
    let pixels = picture
        .as_raw()
        .chunks_exact(3)
        .map(|p| F32x3::new([p[0], p[1], p[2]].map(f32::from)))
        .collect();
    let source = TypedImage::from_pixels(picture.width(), picture.height(), pixels).map_err(|e| e.to_string())?;
    let mut target = TypedImage::<F32x3>::new(side, side);
    let nearest_two = ResizeOptions::new().resize_alg(ResizeAlg::Interpolation(FilterType::Bilinear));
    Resizer::new()
        .resize_typed(&source, &mut target, &nearest_two)
        .map_err(|e| e.to_string())?;
    let area = (side * side) as usize;
    let mut values = vec![0.0; 3 * area];
    for (index, pixel) in target.pixels().iter().enumerate() {
        for channel in 0..3 {
            values[channel * area + index] = pixel.0[channel];
        }
    }
    Ok(values)
}

/// Antialiased resizing on bytes, as Pillow does it.
fn antialiased(picture: &RgbImage, width: u32, height: u32, filter: FilterType) -> Result<RgbImage, String> {
    let source = TypedImageRef::<U8x3>::from_buffer(picture.width(), picture.height(), picture.as_raw())
        .map_err(|e| e.to_string())?;
    let mut bytes = vec![0; 3 * width as usize * height as usize];
    let mut target = TypedImage::<U8x3>::from_buffer(width, height, &mut bytes).map_err(|e| e.to_string())?;
    Resizer::new()
        .resize_typed(
            &source,
            &mut target,
            &ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)),
        )
        .map_err(|e| e.to_string())?;
    drop(target);
    RgbImage::from_raw(width, height, bytes).ok_or_else(|| "resizing gave no picture".to_string())
}

/// FGVC's pipeline; the longer side is rounded down and the centre rounded to even, as torchvision does.
fn crop(picture: &RgbImage, side: u32, random: Option<u64>) -> Result<Vec<f32>, String> {
    let (width, height) = picture.dimensions();
    let (shorter, longer) = (width.min(height), width.max(height));
    if shorter == 0 {
        return Err("the picture has no pixels".into());
    }
    let short = (side * 8).div_ceil(7);
    let long = (u64::from(short) * u64::from(longer) / u64::from(shorter)) as u32;
    let (width, height) = if width <= height { (short, long) } else { (long, short) };
    let resized = antialiased(picture, width, height, FilterType::Bilinear)?;
    let (spare_x, spare_y) = (width - side, height - side);
    let half = |spare: u32| (f64::from(spare) / 2.0).round_ties_even() as u32;
    let (x, y, mirror) = match random {
        None => (half(spare_x), half(spare_y), false),
        Some(seed) => {
            let mut rng = StdRng::seed_from_u64(seed);
            (
                rng.random_range(0..=spare_x),
                rng.random_range(0..=spare_y),
                rng.random(),
            )
        }
    };
    let mut square = image::imageops::crop_imm(&resized, x, y, side, side).to_image();
    if mirror {
        image::imageops::flip_horizontal_in_place(&mut square);
    }
    Ok(planes(&square))
}
