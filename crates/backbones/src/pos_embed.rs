//! Position embeddings for another picture size: bicubic interpolation of the patch grid.

/// How the reference library of a checkpoint interpolates; the two differ when the grid shrinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resample {
    /// timm's `resample_abs_pos_embed`, and transformers' DINOv2 with registers: bicubic with antialiasing (cubic coefficient -0.5).
    Antialiased,
    /// transformers' `interpolate_pos_encoding`: plain bicubic (cubic coefficient -0.75).
    Plain,
}

/// Interpolates a `[prefix + from², d]` position embedding to `[prefix + to², d]`; the first `prefix` tokens (CLS) stay.
pub fn resize(values: &[f32], prefix: usize, from: usize, to: usize, resample: Resample) -> Vec<f32> {
    let d = values.len() / (prefix + from * from);
    let weights = axis_weights(from, to, resample);
    let (leading, grid) = values.split_at(prefix * d);
    // Rows first, then columns; the two passes are one separable filter.
    let mut rows = vec![0.0; to * from * d];
    for (out_y, row) in weights.iter().enumerate() {
        for &(y, weight) in row {
            let source = &grid[y * from * d..(y + 1) * from * d];
            let target = &mut rows[out_y * from * d..(out_y + 1) * from * d];
            add_scaled(target, source, weight);
        }
    }
    let mut out = leading.to_vec();
    out.resize((prefix + to * to) * d, 0.0);
    for y in 0..to {
        for (out_x, row) in weights.iter().enumerate() {
            for &(x, weight) in row {
                let at = (prefix + y * to + out_x) * d;
                add_scaled(
                    &mut out[at..at + d],
                    &rows[(y * from + x) * d..(y * from + x + 1) * d],
                    weight,
                );
            }
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
        for resample in [Resample::Plain, Resample::Antialiased] {
            assert_eq!(resize(&values, 1, 3, 3, resample), values);
            let constant = vec![2.5; 1 + 25];
            for to in [2, 4, 9] {
                let resized = resize(&constant, 1, 5, to, resample);
                assert_eq!(resized.len(), 1 + to * to);
                assert!(resized.iter().all(|v| (v - 2.5).abs() < 1e-5), "{to} {resized:?}");
            }
        }
    }
}
