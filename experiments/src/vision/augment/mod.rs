//! Data augmentation for users' own data; off by default and in the paper's presets.

mod mix;
mod operations;

use image::{RgbImage, imageops};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub use mix::Mix;
use operations::RandAugment;

/// What happens to training images.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Augment {
    /// Smallest fraction of an image's area that a random crop keeps, in (0, 1]; no crop if absent.
    pub crop_scale: Option<f64>,
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// RandAugment: operations per image; 0 for none.
    pub operations: usize,
    /// RandAugment: magnitude, 0 to 30.
    pub magnitude: f64,
    /// Mixing within a batch.
    pub mix: Mix,
}

impl Augment {
    /// True if it changes nothing.
    pub fn is_off(&self) -> bool {
        self.crop_scale.is_none() && self.flip == 0.0 && self.operations == 0 && self.mix.is_off()
    }

    /// A training image from `image`: `size` × `size`, with random choices from `seed`.
    pub fn image(&self, image: &RgbImage, size: u32, seed: u64) -> RgbImage {
        let mut rng = StdRng::seed_from_u64(seed);
        let (width, height) = image.dimensions();
        let (x, y, w, h) = match self.crop_scale {
            Some(scale) => crop(width, height, scale, &mut rng),
            None => (0, 0, width, height),
        };
        let part = imageops::crop_imm(image, x, y, w, h).to_image();
        let mut made = match (w, h) == (size, size) {
            true => part,
            false => imageops::resize(&part, size, size, imageops::FilterType::Triangle),
        };
        if self.flip > 0.0 && rng.random_bool(self.flip) {
            imageops::flip_horizontal_in_place(&mut made);
        }
        if self.operations > 0 {
            made = RandAugment {
                operations: self.operations,
                magnitude: self.magnitude,
            }
            .image(made, &mut rng);
        }
        made
    }
}

/// A random rectangle of `scale` to 1 of the area and of aspect 3/4 to 4/3 (Inception's crop, arXiv 1409.4842, as
/// torchvision's RandomResizedCrop): x, y, width, height. The whole image if ten rectangles do not fit.
fn crop(width: u32, height: u32, scale: f64, rng: &mut StdRng) -> (u32, u32, u32, u32) {
    let area = f64::from(width) * f64::from(height);
    let (low, high) = ((3.0f64 / 4.0).ln(), (4.0f64 / 3.0).ln());
    for _ in 0..10 {
        let wanted = area * rng.random_range(scale..=1.0);
        let aspect = rng.random_range(low..=high).exp();
        let w = (wanted * aspect).sqrt().round() as u32;
        let h = (wanted / aspect).sqrt().round() as u32;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            return (rng.random_range(0..=width - w), rng.random_range(0..=height - h), w, h);
        }
    }
    (0, 0, width, height)
}

/// The seed for image `index` in an epoch with seed `epoch`.
pub fn image_seed(epoch: u64, index: usize) -> u64 {
    // The odd constant spreads neighbouring indices over all seeds, so that no two epochs share draws.
    epoch.rotate_left(32) ^ (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([(4 * x) as u8, (4 * y) as u8, 128]))
    }

    #[test]
    fn the_seed_decides_and_off_is_off() {
        let augment = Augment {
            crop_scale: Some(0.3),
            flip: 0.5,
            operations: 2,
            magnitude: 9.0,
            mix: Mix::default(),
        };
        let image = gradient(40, 30);
        let made = |seed| augment.image(&image, 24, seed);
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
        assert_eq!(made(1).dimensions(), (24, 24));
        let square = gradient(24, 24);
        assert!(Augment::default().is_off());
        assert_eq!(Augment::default().image(&square, 24, 1), square);
    }

    #[test]
    fn crops_keep_their_share_and_stay_inside() {
        let mut rng = StdRng::seed_from_u64(3);
        for _ in 0..200 {
            let (x, y, w, h) = crop(50, 40, 0.2, &mut rng);
            assert!(x + w <= 50 && y + h <= 40);
            assert!(f64::from(w * h) > 0.9 * 0.2 * 2000.0, "{w} {h}");
        }
        // An image so narrow that no rectangle of that aspect fits stays whole.
        assert_eq!(crop(200, 2, 0.9, &mut rng), (0, 0, 200, 2));
    }

    #[test]
    fn a_sure_flip_mirrors() {
        let flip = Augment {
            flip: 1.0,
            ..Augment::default()
        };
        let image = gradient(8, 8);
        assert_eq!(flip.image(&image, 8, 0), imageops::flip_horizontal(&image));
    }
}
