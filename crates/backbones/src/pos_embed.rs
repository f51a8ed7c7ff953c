//! Position embeddings for another image size: interpolation of the patch grid.

use serde::Deserialize;

/// How the reference library of a checkpoint interpolates; the two differ when the grid shrinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resample {
    /// timm's `resample_abs_pos_embed`, and transformers' DINOv2 with registers: bicubic with antialiasing (cubic coefficient -0.5).
    Antialiased,
    /// transformers' `interpolate_pos_encoding`: plain bicubic (cubic coefficient -0.75).
    Plain,
    /// timm's FlexiViT: plain bilinear.
    Bilinear,
    /// timm's RADIO: plain bilinear, corner on corner.
    BilinearAligned,
}

/// Interpolates a `[prefix + rows·columns, d]` position embedding from a grid of `from` `[rows, columns]` to one of `to`;
/// the first `prefix` tokens (CLS) stay.
pub fn resize(values: &[f32], prefix: usize, from: [usize; 2], to: [usize; 2], resample: Resample) -> Vec<f32> {
    let d = values.len() / (prefix + from[0] * from[1]);
    let [vertical, horizontal] = [0, 1].map(|axis| axis_weights(from[axis], to[axis], resample));
    let (leading, grid) = values.split_at(prefix * d);
    // Rows first, then columns; the two passes are one separable filter.
    let row = from[1] * d;
    let mut rows = vec![0.0; to[0] * row];
    for (target, weights) in rows.chunks_exact_mut(row).zip(&vertical) {
        for &(y, weight) in weights {
            add_scaled(target, &grid[y * row..(y + 1) * row], weight);
        }
    }
    let mut out = leading.to_vec();
    out.resize((prefix + to[0] * to[1]) * d, 0.0);
    let places = out[prefix * d..].chunks_exact_mut(d);
    let sources = (0..to[0]).flat_map(|y| horizontal.iter().map(move |weights| (y, weights)));
    for (target, (y, weights)) in places.zip(sources) {
        for &(x, weight) in weights {
            let at = y * row + x * d;
            add_scaled(target, &rows[at..at + d], weight);
        }
    }
    out
}

fn add_scaled(target: &mut [f32], source: &[f32], weight: f64) {
    for (out, value) in target.iter_mut().zip(source) {
        *out += value * weight as f32;
    }
}

/// For each of `to` places, the source places and their weights, which sum to 1. Pixel centres are at
/// `i + 0.5` (PyTorch's `align_corners=False`).
fn axis_weights(from: usize, to: usize, resample: Resample) -> Vec<Vec<(usize, f64)>> {
    let scale = from as f64 / to as f64;
    (0..to)
        .map(|i| {
            let centre = (i as f64 + 0.5) * scale;
            match resample {
                Resample::Bilinear => two_nearest(centre - 0.5, from),
                Resample::BilinearAligned => two_nearest(i as f64 * (from - 1) as f64 / (to.max(2) - 1) as f64, from),
                Resample::Plain => {
                    let first = (centre - 0.5).floor();
                    (-1..=2)
                        .map(|step| {
                            let place = first + f64::from(step);
                            let weight = cubic(centre - 0.5 - place, -0.75);
                            (place.clamp(0.0, from as f64 - 1.0) as usize, weight)
                        })
                        .collect()
                }
                Resample::Antialiased => {
                    let stretch = scale.max(1.0);
                    let start = (centre - 2.0 * stretch + 0.5).max(0.0) as usize;
                    let end = ((centre + 2.0 * stretch + 0.5) as usize).min(from);
                    let raw: Vec<f64> = (start..end)
                        .map(|place| cubic((place as f64 + 0.5 - centre) / stretch, -0.5))
                        .collect();
                    let total: f64 = raw.iter().sum();
                    (start..end).zip(raw).map(|(place, w)| (place, w / total)).collect()
                }
            }
        })
        .collect()
}

/// The two places of `places` that are nearest to `at`, and their weights.
fn two_nearest(at: f64, places: usize) -> Vec<(usize, f64)> {
    let at = at.clamp(0.0, places as f64 - 1.0);
    let first = at.floor();
    let next = (first as usize + 1).min(places - 1);
    vec![(first as usize, 1.0 - (at - first)), (next, at - first)]
}

/// Keys' cubic convolution kernel with coefficient `a`.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_size_changes_nothing_and_a_constant_stays_constant() {
        let values: Vec<f32> = (0..10).map(|i| i as f32).collect();
        let all = [
            Resample::Plain,
            Resample::Antialiased,
            Resample::Bilinear,
            Resample::BilinearAligned,
        ];
        for resample in all {
            assert_eq!(resize(&values, 1, [3, 3], [3, 3], resample), values);
            let constant = vec![2.5; 1 + 25];
            for to in [[2, 2], [4, 4], [9, 9], [3, 8]] {
                let resized = resize(&constant, 1, [5, 5], to, resample);
                assert_eq!(resized.len(), 1 + to[0] * to[1]);
                assert!(resized.iter().all(|v| (v - 2.5).abs() < 1e-5), "{to:?} {resized:?}");
            }
        }
    }
}
