//! RandAugment (Cubuk et al. 2019, arXiv 1909.13719): a few of fourteen operations, all at one magnitude, with the
//! ranges of torchvision's implementation.

use image::{Rgb, RgbImage, imageops};
use rand::Rng;
use rand::rngs::StdRng;

/// Greatest magnitude.
pub const MOST: f64 = 30.0;

/// How many operations, and how strong.
pub struct RandAugment {
    /// Operations per image.
    pub operations: usize,
    /// 0 to [`MOST`].
    pub magnitude: f64,
}

impl RandAugment {
    /// `image` after the operations.
    pub fn image(&self, mut image: RgbImage, rng: &mut StdRng) -> RgbImage {
        for _ in 0..self.operations {
            let operation = rng.random_range(0..14);
            let sign = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
            image = apply(operation, &image, self.magnitude / MOST, sign);
        }
        image
    }
}

/// Applies operation number `operation` at `strength` 0 to 1; `sign` is for operations with a direction.
fn apply(operation: usize, image: &RgbImage, strength: f64, sign: f64) -> RgbImage {
    let (width, height) = (f64::from(image.width()), f64::from(image.height()));
    let signed = sign * strength;
    let factor = (1.0 + 0.9 * signed) as f32;
    match operation {
        0 => image.clone(),
        1 => warped(image, [1.0, 0.3 * signed, 0.0, 0.0, 1.0, 0.0]),
        2 => warped(image, [1.0, 0.0, 0.0, 0.3 * signed, 1.0, 0.0]),
        3 => warped(image, [1.0, 0.0, 150.0 / 331.0 * width * signed, 0.0, 1.0, 0.0]),
        4 => warped(image, [1.0, 0.0, 0.0, 0.0, 1.0, 150.0 / 331.0 * height * signed]),
        5 => {
            let (sin, cos) = (30.0 * signed).to_radians().sin_cos();
            warped(image, [cos, sin, 0.0, -sin, cos, 0.0])
        }
        6 => blended(image, factor, |_| [0.0; 3]),
        7 => blended(image, factor, |pixel| [luma(pixel); 3]),
        8 => {
            let mean = image.pixels().map(luma).sum::<f32>() / (width * height) as f32;
            blended(image, factor, |_| [mean.round(); 3])
        }
        9 => sharpened(image, factor),
        10 => {
            // From 8 bits down to 4.
            let kept = 8 - (4.0 * strength).round() as u32;
            mapped(image, |_, byte| byte & !((1u16 << (8 - kept)) - 1) as u8)
        }
        11 => {
            let threshold = 255.0 * (1.0 - strength);
            mapped(
                image,
                |_, byte| if f64::from(byte) >= threshold { 255 - byte } else { byte },
            )
        }
        12 => stretched(image),
        _ => equalized(image),
    }
}

/// The image whose pixel (x, y), from the centre, is that of `image` at (a x + b y + c, d x + e y + f); black outside.
fn warped(image: &RgbImage, [a, b, c, d, e, f]: [f64; 6]) -> RgbImage {
    let (width, height) = image.dimensions();
    let (cx, cy) = (f64::from(width) / 2.0, f64::from(height) / 2.0);
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (f64::from(x) + 0.5 - cx, f64::from(y) + 0.5 - cy);
        let from = ((a * x + b * y + c + cx).floor(), (d * x + e * y + f + cy).floor());
        let inside = (0.0..f64::from(width)).contains(&from.0) && (0.0..f64::from(height)).contains(&from.1);
        match inside {
            true => *image.get_pixel(from.0 as u32, from.1 as u32),
            false => Rgb([0; 3]),
        }
    })
}

fn luma(pixel: &Rgb<u8>) -> f32 {
    0.299 * f32::from(pixel[0]) + 0.587 * f32::from(pixel[1]) + 0.114 * f32::from(pixel[2])
}

/// `factor` of the image and `1 - factor` of `other`.
fn blended(image: &RgbImage, factor: f32, other: impl Fn(&Rgb<u8>) -> [f32; 3]) -> RgbImage {
    let mut made = image.clone();
    for pixel in made.pixels_mut() {
        let other = other(pixel);
        for channel in 0..3 {
            let value = factor * f32::from(pixel[channel]) + (1.0 - factor) * other[channel];
            pixel[channel] = value.clamp(0.0, 255.0) as u8;
        }
    }
    made
}

/// Blends away from or towards the image smoothed with 1 1 1 / 1 5 1 / 1 1 1; the border pixels stay unchanged.
fn sharpened(image: &RgbImage, factor: f32) -> RgbImage {
    let (width, height) = image.dimensions();
    if width < 3 || height < 3 {
        return image.clone();
    }
    let kernel = [1.0, 1.0, 1.0, 1.0, 5.0, 1.0, 1.0, 1.0, 1.0].map(|weight: f32| weight / 13.0);
    let smooth = imageops::filter3x3(image, &kernel);
    RgbImage::from_fn(width, height, |x, y| {
        let sharp = *image.get_pixel(x, y);
        if x == 0 || y == 0 || x == width - 1 || y == height - 1 {
            return sharp;
        }
        let smooth = smooth.get_pixel(x, y);
        let mix = |c: usize| factor * f32::from(sharp[c]) + (1.0 - factor) * f32::from(smooth[c]);
        Rgb(std::array::from_fn(|channel| mix(channel).clamp(0.0, 255.0) as u8))
    })
}

fn mapped(image: &RgbImage, map: impl Fn(usize, u8) -> u8) -> RgbImage {
    let mut made = image.clone();
    for pixel in made.pixels_mut() {
        for channel in 0..3 {
            pixel[channel] = map(channel, pixel[channel]);
        }
    }
    made
}

/// AutoContrast: maps each channel's smallest value to 0 and its largest to 255.
fn stretched(image: &RgbImage) -> RgbImage {
    let extent: [(u8, u8); 3] = std::array::from_fn(|channel| {
        let bytes = || image.pixels().map(|pixel| pixel[channel]);
        (bytes().min().unwrap_or(0), bytes().max().unwrap_or(0))
    });
    mapped(image, |channel, byte| {
        let (low, high) = extent[channel];
        if high == low {
            return byte;
        }
        (255.0 * f32::from(byte - low) / f32::from(high - low)) as u8
    })
}

/// Equalize: equalizes the histogram of each channel.
fn equalized(image: &RgbImage) -> RgbImage {
    let tables: [[u8; 256]; 3] = std::array::from_fn(|channel| {
        let mut counts = [0usize; 256];
        image
            .pixels()
            .for_each(|pixel| counts[usize::from(pixel[channel])] += 1);
        let last = counts.iter().rev().find(|count| **count > 0).copied().unwrap_or(0);
        let step = (counts.iter().sum::<usize>() - last) / 255;
        let mut below = step / 2;
        std::array::from_fn(|value| match step {
            0 => value as u8,
            _ => {
                let place = (below / step).min(255) as u8;
                below += counts[value];
                place
            }
        })
    });
    mapped(image, |channel, byte| tables[channel][usize::from(byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise() -> RgbImage {
        RgbImage::from_fn(32, 24, |x, y| {
            Rgb([(37 * x + 11 * y) as u8, (91 * x + 3 * y + 40) as u8, (x * y / 8) as u8])
        })
    }

    #[test]
    fn every_operation_but_the_first_changes_a_image_and_strength_0_changes_little() {
        let image = noise();
        for operation in 1..14 {
            assert_ne!(apply(operation, &image, 0.8, 1.0), image, "{operation}");
        }
        for operation in 0..10 {
            assert_eq!(apply(operation, &image, 0.0, 1.0), image, "{operation}");
        }
        assert_eq!(apply(10, &image, 0.0, 1.0), image);
    }

    #[test]
    fn a_shift_moves_pixels_and_leaves_black() {
        let image = noise();
        let shifted = warped(&image, [1.0, 0.0, 4.0, 0.0, 1.0, 0.0]);
        assert_eq!(shifted.get_pixel(0, 3), image.get_pixel(4, 3));
        assert_eq!(shifted.get_pixel(31, 3), &Rgb([0; 3]));
    }

    #[test]
    fn contrast_of_a_narrow_channel_is_stretched() {
        let image = RgbImage::from_fn(4, 1, |x, _| Rgb([100 + x as u8, 7, 7]));
        let made = stretched(&image);
        assert_eq!((made.get_pixel(0, 0)[0], made.get_pixel(3, 0)[0]), (0, 255));
        assert_eq!(made.get_pixel(2, 0)[1], 7);
    }
}
