//! Crops of three CC0 texture photographs at three magnifications (specialized): the task is to recognize material and
//! scale. Training crops are in the left 320 columns, test crops in the right 192.

use image::GrayImage;
use image::imageops::{self, FilterType};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::size::SIZE;
use crate::images::{Images, Task};
use crate::resize::Resize;

const PHOTOS: [&[u8]; 3] = [
    include_bytes!("../../sample/brick.png"),
    include_bytes!("../../sample/grass.png"),
    include_bytes!("../../sample/gravel.png"),
];
const SCALES: [u32; 3] = [1, 2, 4];
const BORDER: u32 = 320;

/// Nine classes: photograph × magnification.
pub fn task() -> Task {
    let photos: Vec<GrayImage> = PHOTOS
        .iter()
        .map(|bytes| {
            image::load_from_memory(bytes)
                .expect("the shipped photograph is a PNG")
                .to_luma8()
        })
        .collect();
    let mut train = crops(&photos, 0..BORDER, 1000, 11);
    let valid = train.split_off(800);
    let test = crops(&photos, BORDER..photos[0].width(), 600, 12);
    Task {
        name: "textures".into(),
        group: "specialized".into(),
        classes: ["brick", "grass", "gravel"]
            .iter()
            .flat_map(|photo| SCALES.iter().map(move |scale| format!("{photo} 1:{scale}")))
            .collect(),
        train,
        valid,
        test,
        notes: Vec::new(),
    }
}

fn crops(photos: &[GrayImage], columns: std::ops::Range<u32>, count: usize, seed: u64) -> Images {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut images = Images::new(SIZE, Resize::default());
    for _ in 0..count {
        let label = rng.random_range(0..PHOTOS.len() * SCALES.len());
        let side = SIZE as u32 * SCALES[label % SCALES.len()];
        let photo = &photos[label / SCALES.len()];
        let x = rng.random_range(columns.start..=columns.end - side);
        let y = rng.random_range(0..=photo.height() - side);
        let crop = imageops::crop_imm(photo, x, y, side, side).to_image();
        let crop = imageops::resize(&crop, SIZE as u32, SIZE as u32, FilterType::Triangle);
        // Brightness and contrast vary, so that brightness alone does not identify the photograph.
        let (gain, shift) = (rng.random_range(0.5..1.2), rng.random_range(-40.0..40.0));
        let grey: Vec<u8> = crop
            .as_raw()
            .iter()
            .map(|value| {
                ((f32::from(*value) - 128.0) * gain + 128.0 + shift)
                    .round()
                    .clamp(0.0, 255.0) as u8
            })
            .collect();
        images.push_grey(&grey, label);
    }
    images
}
