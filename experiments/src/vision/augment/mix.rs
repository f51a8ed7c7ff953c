//! Mixup (Zhang et al. 2017, arXiv 1710.09412) and CutMix (Yun et al. 2019, arXiv 1905.04899): the images and labels of
//! a batch are mixed with those of the reversed batch. Also label smoothing.

use burn::tensor::{Int, Tensor};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Beta, Distribution};

/// Settings of mixing. If both are on, one of the two is chosen at random for each batch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Mix {
    /// Alpha of mixup's Beta(alpha, alpha); 0 for none.
    pub mixup: f64,
    /// Alpha of CutMix's Beta(alpha, alpha); 0 for none.
    pub cutmix: f64,
    /// Fraction of each label that is spread over all classes.
    pub label_smoothing: f64,
}

impl Mix {
    /// True if labels stay unchanged.
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }

    /// True if images are mixed with others.
    pub fn mixes(&self) -> bool {
        self.mixup > 0.0 || self.cutmix > 0.0
    }

    /// Mixes `pixels` `[batch, 3, h, w]`, and turns `labels` `[batch]` into probabilities of `classes`,
    /// `[batch, classes]`.
    pub fn batch(
        &self,
        pixels: Tensor<4>,
        labels: &Tensor<1, Int>,
        classes: usize,
        seed: u64,
    ) -> (Tensor<4>, Tensor<2>) {
        let others = (pixels.clone().flip([0]), labels.clone().flip([0]));
        self.share(pixels, labels, others, classes, seed)
    }

    /// As [`Mix::batch`] for some images of a batch, with what the reversed batch has in their places.
    pub fn share(
        &self,
        pixels: Tensor<4>,
        labels: &Tensor<1, Int>,
        (others, other_labels): (Tensor<4>, Tensor<1, Int>),
        classes: usize,
        seed: u64,
    ) -> (Tensor<4>, Tensor<2>) {
        let mut rng = StdRng::seed_from_u64(seed);
        let hard = |labels: &Tensor<1, Int>| -> Tensor<2> { labels.clone().one_hot::<2>(classes).float() };
        let cut = self.cutmix > 0.0 && (self.mixup == 0.0 || rng.random_bool(0.5));
        let alpha = if cut { self.cutmix } else { self.mixup };
        let (pixels, kept) = match Beta::new(alpha, alpha) {
            Ok(beta) if alpha > 0.0 => {
                let kept = beta.sample(&mut rng);
                if cut {
                    cut_in(pixels, others, kept, &mut rng)
                } else {
                    (blended(pixels, others, kept), kept)
                }
            }
            _ => (pixels, 1.0),
        };
        let shares = match kept < 1.0 {
            true => hard(labels).mul_scalar(kept) + hard(&other_labels).mul_scalar(1.0 - kept),
            false => hard(labels),
        };
        let spread = self.label_smoothing;
        (
            pixels,
            shares.mul_scalar(1.0 - spread).add_scalar(spread / classes as f64),
        )
    }
}

fn blended(pixels: Tensor<4>, others: Tensor<4>, kept: f64) -> Tensor<4> {
    pixels.mul_scalar(kept) + others.mul_scalar(1.0 - kept)
}

/// Replaces a rectangle of `1 - kept` of the area; what lies outside of the image is cut off, and the share that is
/// really kept is returned.
fn cut_in(pixels: Tensor<4>, others: Tensor<4>, kept: f64, rng: &mut StdRng) -> (Tensor<4>, f64) {
    let [batch, channels, height, width] = pixels.dims();
    let side = (1.0 - kept).sqrt();
    let extent = |length: usize, rng: &mut StdRng| {
        let half = (side * length as f64 / 2.0) as usize;
        let centre = rng.random_range(0..length);
        (centre.saturating_sub(half), (centre + half).min(length))
    };
    let ((top, bottom), (left, right)) = (extent(height, rng), extent(width, rng));
    if top == bottom || left == right {
        return (pixels, 1.0);
    }
    let area = [0..batch, 0..channels, top..bottom, left..right];
    let other = others.slice(area.clone());
    let share = ((bottom - top) * (right - left)) as f64 / (height * width) as f64;
    (pixels.slice_assign(area, other), 1.0 - share)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn mixed(mix: Mix, seed: u64) -> (Vec<f32>, Vec<f32>) {
        let device = Device::flex();
        let black = Tensor::<4>::zeros([1, 3, 8, 8], &device);
        let pixels = Tensor::cat(vec![black.clone(), black.ones_like()], 0);
        let labels = Tensor::<1, Int>::from_ints([0, 2], &device);
        let (pixels, shares) = mix.batch(pixels, &labels, 3, seed);
        (pixels.into_data().iter().collect(), shares.into_data().iter().collect())
    }

    #[test]
    fn labels_are_mixed_as_the_images_are() {
        for (mixup, cutmix) in [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)] {
            for seed in 0..20 {
                let mix = Mix {
                    mixup,
                    cutmix,
                    label_smoothing: 0.0,
                };
                let (pixels, shares) = mixed(mix, seed);
                // The first image was black, so its mean is the fraction of the other one.
                let other = pixels[..192].iter().sum::<f32>() / 192.0;
                assert!((shares[2] - other).abs() < 1e-4, "{seed}: {shares:?} {other}");
                assert!((shares[0] + shares[2] - 1.0).abs() < 1e-5 && shares[1] == 0.0);
            }
        }
    }

    #[test]
    fn smoothing_alone_leaves_the_images() {
        let mix = Mix {
            label_smoothing: 0.3,
            ..Mix::default()
        };
        let (pixels, shares) = mixed(mix, 0);
        assert!(pixels[..192].iter().all(|value| *value == 0.0));
        assert!((shares[0] - 0.8).abs() < 1e-6 && (shares[1] - 0.1).abs() < 1e-6);
    }
}
