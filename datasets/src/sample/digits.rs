//! The UCI handwritten digits (natural): see sample/SOURCES.md.

use super::size::SIZE;
use crate::images::{Images, Task};
use crate::resize::Resize;

const RECORDS: &[u8] = include_bytes!("../../sample/digits.bin");
const SIDE: usize = 8;

/// The first 800 digits are for training, the next 200 for validation, the other 797 for testing.
pub fn task() -> Task {
    let mut train = Images::new(SIZE, Resize::default());
    for record in RECORDS.chunks_exact(SIDE * SIDE + 1) {
        let (pixels, label) = record.split_at(SIDE * SIDE);
        train.push_grey(&enlarged(pixels), usize::from(label[0]));
    }
    let mut valid = train.split_off(800);
    let test = valid.split_off(200);
    Task {
        name: "digits".into(),
        group: "natural".into(),
        classes: (0..10).map(|digit| digit.to_string()).collect(),
        train,
        valid,
        test,
        notes: Vec::new(),
    }
}

/// Enlarges 8 × 8 values from 0 to 16 to 32 × 32 bytes, bilinearly.
fn enlarged(pixels: &[u8]) -> Vec<u8> {
    let at = |x: usize, y: usize| f32::from(pixels[y.min(SIDE - 1) * SIDE + x.min(SIDE - 1)]);
    let place = |i: usize| ((i as f32 + 0.5) * SIDE as f32 / SIZE as f32 - 0.5).max(0.0);
    let mut out = Vec::with_capacity(SIZE * SIZE);
    for y in 0..SIZE {
        for x in 0..SIZE {
            let (fx, fy) = (place(x), place(y));
            let (x0, y0) = (fx as usize, fy as usize);
            let (wx, wy) = (fx - x0 as f32, fy - y0 as f32);
            let top = at(x0, y0) * (1.0 - wx) + at(x0 + 1, y0) * wx;
            let bottom = at(x0, y0 + 1) * (1.0 - wx) + at(x0 + 1, y0 + 1) * wx;
            out.push(((top * (1.0 - wy) + bottom * wy) * 255.0 / 16.0).round() as u8);
        }
    }
    out
}
