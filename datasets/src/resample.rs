//! Antialiased resizing of bytes with the same result as Pillow 13, bit for bit: separable filters whose weights are rounded
//! to 22 binary places, one axis after the other, each rounded to bytes.

use image::RgbImage;
use serde::{Deserialize, Serialize};

/// The filter of a resize, antialiased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// Triangle.
    Bilinear,
    /// Keys' cubic with coefficient -0.5.
    Bicubic,
    /// Lanczos with 3 lobes.
    Lanczos,
    /// Box.
    Box,
    /// Hamming.
    Hamming,
}

/// Binary places of the weights.
const PLACES: u32 = 22;

/// `image` resized to `[height, width]`, each at least 1. An axis that keeps its length is not filtered.
pub fn resample(image: &RgbImage, [height, width]: [u32; 2], filter: Filter) -> RgbImage {
    if filter == Filter::Nearest {
        return nearest(image, [height, width]);
    }
    let across = |image: &RgbImage| match image.width() == width {
        true => None,
        false => Some(rows(image, &taps(image.width(), width, filter))),
    };
    let down = |image: &RgbImage| match image.height() == height {
        true => None,
        false => Some(columns(image, &taps(image.height(), height, filter))),
    };
    // Pillow begins with the height if it loses more than twice what the width loses (up to version 12 never).
    let lost = |from: u32, to: u32| i64::from(from) - i64::from(to);
    let by_height = lost(image.height(), height);
    let height_first = by_height > 0 && by_height > 2 * lost(image.width(), width);
    let first = if height_first { down(image) } else { across(image) };
    let between = first.as_ref().unwrap_or(image);
    let second = if height_first { across(between) } else { down(between) };
    second.or(first).unwrap_or_else(|| image.clone())
}

/// What one position of the target is made of.
struct Taps {
    /// The first position of the source.
    first: usize,
    /// The weight of each, in units of 2^-22.
    weights: Vec<i32>,
}

fn taps(source: u32, target: u32, filter: Filter) -> Vec<Taps> {
    let scale = f64::from(source) / f64::from(target);
    let stretch = scale.max(1.0);
    let reach = filter.support() * stretch;
    let inverse = 1.0 / stretch;
    let tap = |place: u32| {
        let center = (f64::from(place) + 0.5) * scale;
        let first = (center - reach + 0.5).max(0.0) as u32;
        let end = ((center + reach + 0.5) as u32).min(source);
        let weights = (first..end).map(|x| filter.weight((f64::from(x) - center + 0.5) * inverse));
        let weights: Vec<f64> = weights.collect();
        let sum: f64 = weights.iter().sum();
        let weight = |weight: f64| {
            let weight = if sum == 0.0 { weight } else { weight / sum };
            (weight * f64::from(1 << PLACES)).round() as i32
        };
        Taps {
            first: first as usize,
            weights: weights.into_iter().map(weight).collect(),
        }
    };
    (0..target).map(tap).collect()
}

impl Filter {
    /// Half its width, pixels.
    fn support(self) -> f64 {
        match self {
            Self::Nearest | Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let sinc = |x: f64| match x == 0.0 {
            true => 1.0,
            false => (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI),
        };
        let away = x.abs();
        match self {
            Self::Nearest | Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - away).max(0.0),
            Self::Hamming if away >= 1.0 => 0.0,
            Self::Hamming => {
                // Pillow's constants are floats of 32 bits.
                let window = f64::from(0.54_f32) + f64::from(0.46_f32) * (away * std::f64::consts::PI).cos();
                sinc(away) * window
            }
            Self::Bicubic if away < 1.0 => (1.5 * away - 2.5) * away * away + 1.0,
            Self::Bicubic if away < 2.0 => -0.5 * (((away - 5.0) * away + 8.0) * away - 4.0),
            Self::Bicubic => 0.0,
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }
}

/// A sum of bytes times weights as a byte.
fn byte(sum: i32) -> u8 {
    ((sum + (1 << (PLACES - 1))) >> PLACES).clamp(0, 255) as u8
}

/// Filters along each row.
fn rows(image: &RgbImage, taps: &[Taps]) -> RgbImage {
    let stride = 3 * image.width() as usize;
    let mut bytes = Vec::with_capacity(3 * taps.len() * image.height() as usize);
    for row in image.as_raw().chunks_exact(stride) {
        for tap in taps {
            let pixels = row[3 * tap.first..].chunks_exact(3);
            let mut sums = [0_i32; 3];
            for (pixel, weight) in pixels.zip(&tap.weights) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            bytes.extend(sums.map(byte));
        }
    }
    of_bytes(taps.len() as u32, image.height(), bytes)
}

/// Filters along each column.
fn columns(image: &RgbImage, taps: &[Taps]) -> RgbImage {
    let stride = 3 * image.width() as usize;
    let mut bytes = Vec::with_capacity(stride * taps.len());
    let mut sums = vec![0_i32; stride];
    for tap in taps {
        sums.fill(0);
        let rows = image.as_raw()[stride * tap.first..].chunks_exact(stride);
        for (row, weight) in rows.zip(&tap.weights) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*value) * weight;
            }
        }
        bytes.extend(sums.iter().map(|sum| byte(*sum)));
    }
    of_bytes(image.width(), taps.len() as u32, bytes)
}

fn nearest(image: &RgbImage, [height, width]: [u32; 2]) -> RgbImage {
    // Added up as Pillow does it: where a centre falls between two pixels, rounding decides.
    let places = |source: u32, target: u32| {
        let step = f64::from(source) / f64::from(target);
        let places = std::iter::successors(Some(step * 0.5), move |place| Some(place + step));
        places
            .take(target as usize)
            .map(move |place| (place as u32).min(source - 1))
            .collect::<Vec<u32>>()
    };
    let (across, down) = (places(image.width(), width), places(image.height(), height));
    RgbImage::from_fn(width, height, |x, y| {
        *image.get_pixel(across[x as usize], down[y as usize])
    })
}

fn of_bytes(width: u32, height: u32, bytes: Vec<u8>) -> RgbImage {
    RgbImage::from_raw(width, height, bytes).expect("three bytes per pixel")
}
