//! Resizes an image of any size to the square that a model reads.

use std::str::FromStr;

use image::RgbImage;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use resample::{Filter, resample};
use serde::{Deserialize, Serialize};

use crate::decode::MAX_PIXELS;

/// How an image becomes `size` × `size`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// The whole image, ignoring its aspect ratio; bilinear without antialiasing, values not rounded: VTAB-1k in the
    /// paper's released code.
    #[default]
    Bilinear,
    /// The whole image, ignoring its aspect ratio; bilinear, antialiased.
    BilinearAntialias,
    /// The whole image, ignoring its aspect ratio; bicubic, antialiased.
    Bicubic,
    /// The whole image, ignoring its aspect ratio; Lanczos with 3 lobes, antialiased.
    Lanczos,
    /// The shorter side to 8/7 of `size` (256 for 224; bilinear, antialiased), then the central square; in training a
    /// random square, mirrored with probability 1/2: FGVC in the paper's released code.
    Crop,
    /// As specified in the backbone's own files ([`crate::steps`]).
    Model,
}

/// Maximum side length of a model's input, pixels; more must be a mistake.
const MAX_SIDE: u32 = 8192;

impl Resize {
    /// Names, in the order of the variants.
    pub const NAMES: [&str; 6] = ["bilinear", "bilinear-antialias", "bicubic", "lanczos", "crop", "model"];

    /// The reason why [`Resize::Model`] is not possible.
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
    /// `image` as `[3, size, size]`, values 0 to 255, row-major. `random` is the seed of a training crop; the other
    /// variants are not random and ignore it.
    ///
    /// # Errors
    /// An image without pixels.
    pub fn apply(self, image: &RgbImage, size: usize, random: Option<u64>) -> Result<Vec<f32>, String> {
        let side = u32::try_from(size)
            .ok()
            .filter(|side| (1..=MAX_SIDE).contains(side))
            .ok_or_else(|| format!("image size {size} is out of range; it must be 1 to {MAX_SIDE}"))?;
        if image.width() == 0 || image.height() == 0 {
            return Err("the image has no pixels".into());
        }
        match self {
            Self::Bilinear if image.dimensions() == (side, side) => Ok(planes(image)),
            Self::Bilinear => Ok(unrounded(image, side)),
            Self::BilinearAntialias => Ok(planes(&resample(image, [side; 2], Filter::Bilinear))),
            Self::Bicubic => Ok(planes(&resample(image, [side; 2], Filter::Bicubic))),
            Self::Lanczos => Ok(planes(&resample(image, [side; 2], Filter::Lanczos))),
            Self::Crop => crop(image, side, random),
            Self::Model => Err(Self::no_steps()),
        }
    }
}

/// An image as planes `[3, height, width]` with values from 0 to 255.
pub fn planes(image: &RgbImage) -> Vec<f32> {
    let area = image.width() as usize * image.height() as usize;
    let mut values = vec![0.0; 3 * area];
    for (index, pixel) in image.as_raw().chunks_exact(3).enumerate() {
        for channel in 0..3 {
            values[channel * area + index] = f32::from(pixel[channel]);
        }
    }
    values
}

/// Bilinear interpolation between the two nearest rows and columns, not rounded, directly from the bytes, so that a
/// large image is not copied to floats. Each axis is summed in f64 and rounded to f32, columns first, as in
/// fast_image_resize's interpolation of floats: the results are bit-identical.
fn unrounded(image: &RgbImage, side: u32) -> Vec<f32> {
    let (columns, rows) = (taps(image.width(), side), taps(image.height(), side));
    let (stride, side) = (3 * image.width() as usize, side as usize);
    let row = |y: usize, out: &mut Vec<[f32; 3]>| {
        let bytes = &image.as_raw()[y * stride..(y + 1) * stride];
        out.clear();
        out.extend(columns.iter().map(|tap| {
            std::array::from_fn(|channel| {
                let value = |x: usize| f64::from(bytes[3 * x + channel]);
                (value(tap.first) * tap.weights[0] + value(tap.second) * tap.weights[1]) as f32
            })
        }));
    };
    // Source rows that already have the width of the target; neighbouring target rows share them when an image is
    // enlarged.
    let mut resized: [(Option<usize>, Vec<[f32; 3]>); 2] = Default::default();
    let mut values = vec![0.0; 3 * side * side];
    for (y, tap) in rows.iter().enumerate() {
        if resized[0].0 != Some(tap.first) {
            resized.swap(0, 1);
        }
        for (slot, source) in resized.iter_mut().zip([tap.first, tap.second]) {
            if slot.0 != Some(source) {
                row(source, &mut slot.1);
                slot.0 = Some(source);
            }
        }
        for (x, (first, second)) in resized[0].1.iter().zip(&resized[1].1).enumerate() {
            for channel in 0..3 {
                let value = |pixel: &[f32; 3]| f64::from(pixel[channel]);
                values[channel * side * side + y * side + x] =
                    (value(first) * tap.weights[0] + value(second) * tap.weights[1]) as f32;
            }
        }
    }
    values
}

/// The two source positions for one target position.
struct Tap {
    first: usize,
    second: usize,
    weights: [f64; 2],
}

/// The taps of `target` positions over `source` positions.
fn taps(source: u32, target: u32) -> Vec<Tap> {
    let scale = f64::from(source) / f64::from(target);
    let tap = |place: u32| {
        let center = (f64::from(place) + 0.5) * scale;
        let lowest = (center - 1.0).floor().max(0.0) as u32;
        let end = (center + 1.0).ceil().min(f64::from(source)) as u32;
        let weight = |x: u32| (1.0 - (f64::from(x) - (center - 0.5)).abs()).max(0.0);
        // One of the three positions in reach has no weight.
        let first = (lowest..end).find(|x| weight(*x) > 0.0).unwrap_or(lowest);
        let second = (first + 1).min(end - 1);
        let weights = match second == first {
            true => [weight(first), 0.0],
            false => [weight(first), weight(second)],
        };
        let sum = weights[0] + weights[1];
        Tap {
            first: first as usize,
            second: second as usize,
            weights: weights.map(|weight| weight / sum),
        }
    };
    (0..target).map(tap).collect()
}

/// FGVC's pipeline; the longer side is rounded down and the centre rounded to even, as in torchvision.
fn crop(image: &RgbImage, side: u32, random: Option<u64>) -> Result<Vec<f32>, String> {
    let (width, height) = image.dimensions();
    let (shorter, longer) = (width.min(height), width.max(height));
    let short = (side * 8).div_ceil(7);
    let long = u64::from(short) * u64::from(longer) / u64::from(shorter);
    if long * u64::from(short) > MAX_PIXELS {
        return Err(format!(
            "the image has {width} x {height} pixels: with its shorter side at {short} its longer one would be {long}; it is \
             too narrow to crop a square from"
        ));
    }
    let long = long as u32;
    let (width, height) = if width <= height { (short, long) } else { (long, short) };
    let resized = resample(image, [height, width], Filter::Bilinear);
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

#[cfg(test)]
mod tests {
    use fast_image_resize as fir;
    use fir::images::TypedImage;
    use fir::pixels::F32x3;
    use fir::{FilterType, ResizeAlg, ResizeOptions, Resizer};

    use super::*;

    /// The same resize by fast_image_resize, from a copy in floats.
    fn reference(image: &RgbImage, side: u32) -> Vec<f32> {
        let pixels = image.as_raw().chunks_exact(3);
        let pixels = pixels.map(|p| F32x3::new([p[0], p[1], p[2]].map(f32::from))).collect();
        let source = TypedImage::from_pixels(image.width(), image.height(), pixels).unwrap();
        let mut target = TypedImage::<F32x3>::new(side, side);
        let nearest_two = ResizeOptions::new().resize_alg(ResizeAlg::Interpolation(FilterType::Bilinear));
        Resizer::new().resize_typed(&source, &mut target, &nearest_two).unwrap();
        let pixels = target.pixels();
        (0..3)
            .flat_map(|channel| pixels.iter().map(move |pixel| pixel.0[channel]))
            .collect()
    }

    #[test]
    fn bilinear_is_the_interpolation_of_floats_bit_for_bit() {
        let mut rng = StdRng::seed_from_u64(5);
        for _ in 0..60 {
            let (width, height) = (rng.random_range(1..90), rng.random_range(1..90));
            let side = rng.random_range(1..70);
            let image = RgbImage::from_fn(width, height, |_, _| image::Rgb(rng.random()));
            let found = unrounded(&image, side);
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(
                bits(&found),
                bits(&reference(&image, side)),
                "{width} x {height} to {side}"
            );
        }
    }

    #[test]
    fn sizes_and_shapes_that_take_too_much_memory_are_refused() {
        let image = RgbImage::new(1, 60_000);
        for size in [0, 100_000, usize::MAX] {
            assert!(
                Resize::Bilinear
                    .apply(&image, size, None)
                    .unwrap_err()
                    .contains("out of range")
            );
        }
        assert!(
            Resize::Crop
                .apply(&image, 224, None)
                .unwrap_err()
                .contains("too narrow")
        );
        assert_eq!(Resize::Bilinear.apply(&image, 224, None).unwrap().len(), 3 * 224 * 224);
    }
}
