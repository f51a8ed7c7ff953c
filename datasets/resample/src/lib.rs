//! Antialiased resizing of bytes with the same result as Pillow 13, bit for bit: separable filters whose weights are rounded
//! to 22 binary places, one axis after the other, each rounded to bytes.
//!
//! A weight is split into two halves of 16 bits, whose products the compiler puts into vector registers on any machine:
//! no x86-64 without AVX multiplies 32 bits in them. The sums are exact, so their order does not matter.

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

/// Weights that are multiplied at once.
const LANES: usize = 8;

/// Bits of the lower half of a weight.
const LOW: u32 = 11;

/// What one position of the target is made of.
struct Taps {
    /// The first position of the source.
    first: usize,
    /// Number of positions.
    count: usize,
    /// The weights in units of 2^-22, divided by 2^11, rounded down; zeros fill the last block.
    high: Vec<[i16; LANES]>,
    /// What remains of them.
    low: Vec<[i16; LANES]>,
}

impl Taps {
    fn new(first: usize, weights: &[i32]) -> Self {
        let blocks = weights.len().div_ceil(LANES);
        let (mut high, mut low) = (vec![[0; LANES]; blocks], vec![[0; LANES]; blocks]);
        for (index, weight) in weights.iter().enumerate() {
            high[index / LANES][index % LANES] = (weight >> LOW) as i16;
            low[index / LANES][index % LANES] = (weight & ((1 << LOW) - 1)) as i16;
        }
        Self {
            first,
            count: weights.len(),
            high,
            low,
        }
    }

    /// The weighted sum of the bytes of `plane`, which is longer than the source by [`LANES`].
    #[inline]
    fn sum(&self, plane: &[i16]) -> i32 {
        // A sum per lane: the compiler keeps each of the two in registers.
        let (mut high, mut low) = ([0_i32; LANES], [0_i32; LANES]);
        let blocks = plane[self.first..].as_chunks::<LANES>().0;
        for ((values, of_high), of_low) in blocks.iter().zip(&self.high).zip(&self.low) {
            for lane in 0..LANES {
                high[lane] += i32::from(values[lane]) * i32::from(of_high[lane]);
            }
            for lane in 0..LANES {
                low[lane] += i32::from(values[lane]) * i32::from(of_low[lane]);
            }
        }
        let (high, low) = (high.iter().sum::<i32>(), low.iter().sum::<i32>());
        (high << LOW) + low
    }
}

fn taps(source: u32, target: u32, filter: Filter) -> Vec<Taps> {
    weights(source, target, filter)
        .into_iter()
        .map(|(first, weights)| Taps::new(first, &weights))
        .collect()
}

/// For each position of the target the first position of the source, and the weights from there in units of 2^-22.
fn weights(source: u32, target: u32, filter: Filter) -> Vec<(usize, Vec<i32>)> {
    let scale = f64::from(source) / f64::from(target);
    let stretch = scale.max(1.0);
    let reach = filter.support() * stretch;
    let inverse = 1.0 / stretch;
    let of_place = |place: u32| {
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
        (first as usize, weights.into_iter().map(weight).collect())
    };
    (0..target).map(of_place).collect()
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
#[inline]
fn byte(sum: i32) -> u8 {
    ((sum + (1 << (PLACES - 1))) >> PLACES).clamp(0, 255) as u8
}

/// Filters along each row.
fn rows(image: &RgbImage, taps: &[Taps]) -> RgbImage {
    let width = image.width() as usize;
    let mut planes: [Vec<i16>; 3] = std::array::from_fn(|_| vec![0; width + LANES]);
    let mut bytes = Vec::with_capacity(3 * taps.len() * image.height() as usize);
    for row in image.as_raw().chunks_exact(3 * width) {
        let [red, green, blue] = &mut planes;
        let of_pixels = red.iter_mut().zip(green).zip(blue);
        for (((red, green), blue), pixel) in of_pixels.zip(row.as_chunks::<3>().0) {
            [*red, *green, *blue] = pixel.map(i16::from);
        }
        for tap in taps {
            bytes.extend([&planes[0], &planes[1], &planes[2]].map(|plane| byte(tap.sum(plane))));
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
        let (high, low) = (tap.high.as_flattened(), tap.low.as_flattened());
        for ((row, high), low) in rows.zip(high).zip(low).take(tap.count) {
            let (high, low) = (i32::from(*high), i32::from(*low));
            for (sum, value) in sums.iter_mut().zip(row) {
                let value = i32::from(*value);
                *sum += ((value * high) << LOW) + value * low;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: each axis as a plain sum.
    fn plain(image: &RgbImage, [height, width]: [u32; 2], filter: Filter) -> RgbImage {
        let rounded = |sum: i64| ((sum + (1 << (PLACES - 1))) >> PLACES).clamp(0, 255) as u8;
        let of_row = weights(image.width(), width, filter);
        let narrow = RgbImage::from_fn(width, image.height(), |x, y| {
            let (first, weights) = &of_row[x as usize];
            image::Rgb([0, 1, 2].map(|channel| {
                let value =
                    |(place, weight): (u32, &i32)| i64::from(image.get_pixel(place, y)[channel]) * i64::from(*weight);
                rounded((*first as u32..).zip(weights).map(value).sum())
            }))
        });
        let of_column = weights(image.height(), height, filter);
        RgbImage::from_fn(width, height, |x, y| {
            let (first, weights) = &of_column[y as usize];
            image::Rgb([0, 1, 2].map(|channel| {
                let value =
                    |(place, weight): (u32, &i32)| i64::from(narrow.get_pixel(x, place)[channel]) * i64::from(*weight);
                rounded((*first as u32..).zip(weights).map(value).sum())
            }))
        })
    }

    #[test]
    fn halves_of_weights_add_up_to_plain_sums() {
        let filters = [
            Filter::Bilinear,
            Filter::Bicubic,
            Filter::Lanczos,
            Filter::Box,
            Filter::Hamming,
        ];
        let sizes = [(1, 1), (2, 3), (7, 5), (8, 8), (9, 17), (31, 64), (100, 41)];
        for (seed, (from, to)) in (1_u32..).zip(sizes.iter().flat_map(|from| sizes.map(|to| (*from, to)))) {
            // Black and white beside noise: filters with negative weights go beyond 0 and 255.
            let image = RgbImage::from_fn(from.0, from.1, |x, y| {
                let mixed = (x + 1).wrapping_mul(2_654_435_761) ^ (y + seed).wrapping_mul(2_246_822_519);
                let noise = (mixed ^ (mixed >> 15)).wrapping_mul(3_266_489_917);
                image::Rgb([
                    (noise >> 24) as u8,
                    if noise & 64 == 0 { 0 } else { 255 },
                    (noise >> 8) as u8,
                ])
            });
            let (height, width) = (to.1, to.0);
            let lost = |from: u32, to: u32| i64::from(from) - i64::from(to);
            if lost(from.1, height) > 0 && lost(from.1, height) > 2 * lost(from.0, width)
                || from.0 == width
                || from.1 == height
            {
                continue; // the other order, or one axis
            }
            for filter in filters {
                assert_eq!(
                    resample(&image, [height, width], filter),
                    plain(&image, [height, width], filter),
                    "{from:?} to {to:?}, {filter:?}"
                );
            }
        }
    }
}
