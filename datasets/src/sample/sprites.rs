//! dSprites-style images (structured): one white shape with its position and orientation, and VTAB's label rules (16
//! classes each: x index / 2 of 32, orientation index / 2.5 of 40). Unlike in dSprites, no shape has rotational
//! symmetry, so every orientation can be recognized.

use rand::rngs::StdRng;
use rand::{SeedableRng, seq::index};

use super::size::SIZE;
use crate::images::{Images, Task};
use crate::resize::Resize;

const SHAPES: usize = 3;
const SCALES: usize = 6;
const ORIENTATIONS: usize = 40;
const PLACES: usize = 32;

/// The label to predict for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// Horizontal position.
    Location,
    /// Angle.
    Orientation,
}

/// 800 + 200 + 1,000 different factor combinations, drawn without replacement.
pub fn task(label: Label) -> Task {
    let (name, seed, what) = match label {
        Label::Location => ("sprites-location", 21, "x"),
        Label::Orientation => ("sprites-orientation", 22, "angle"),
    };
    let mut rng = StdRng::seed_from_u64(seed);
    let combinations = SHAPES * SCALES * ORIENTATIONS * PLACES * PLACES;
    let mut train = Images::new(SIZE, Resize::default());
    for combination in index::sample(&mut rng, combinations, 2000) {
        let sprite = Sprite::new(combination);
        let class = match label {
            Label::Location => sprite.x / 2,
            Label::Orientation => sprite.orientation * 2 / 5,
        };
        train.push_grey(&sprite.render(), class);
    }
    let mut valid = train.split_off(800);
    let test = valid.split_off(200);
    Task {
        name: name.into(),
        group: "structured".into(),
        classes: (0..16).map(|class| format!("{what} {class}/16")).collect(),
        train,
        valid,
        test,
        notes: Vec::new(),
    }
}

struct Sprite {
    shape: usize,
    scale: usize,
    orientation: usize,
    x: usize,
    y: usize,
}

impl Sprite {
    fn new(combination: usize) -> Self {
        let (rest, x) = (combination / PLACES, combination % PLACES);
        let (rest, y) = (rest / PLACES, rest % PLACES);
        let (rest, orientation) = (rest / ORIENTATIONS, rest % ORIENTATIONS);
        Self {
            shape: rest / SCALES,
            scale: rest % SCALES,
            orientation,
            x,
            y,
        }
    }

    /// 32 × 32 bytes, each the mean of 4 × 4 samples.
    fn render(&self) -> Vec<u8> {
        const SAMPLES: usize = 4;
        let radius = 4.0 + 0.6 * self.scale as f32;
        // The centre stays at least one radius away from the border.
        let place = |i: usize| 8.0 + 16.0 * i as f32 / (PLACES - 1) as f32;
        let (cx, cy) = (place(self.x), place(self.y));
        let (sin, cos) = (std::f32::consts::TAU * self.orientation as f32 / ORIENTATIONS as f32).sin_cos();
        let mut grey = Vec::with_capacity(SIZE * SIZE);
        for row in 0..SIZE {
            for column in 0..SIZE {
                let mut hits = 0;
                for sample in 0..SAMPLES * SAMPLES {
                    let step = |i: usize| (i as f32 + 0.5) / SAMPLES as f32;
                    let dx = column as f32 + step(sample % SAMPLES) - cx;
                    let dy = row as f32 + step(sample / SAMPLES) - cy;
                    let (u, v) = ((cos * dx + sin * dy) / radius, (cos * dy - sin * dx) / radius);
                    hits += usize::from(inside(self.shape, u, v));
                }
                grey.push((hits * 255 / (SAMPLES * SAMPLES)) as u8);
            }
        }
        grey
    }
}

/// Whether (u, v) lies in the shape of radius about 1: a heart, a wedge, a drop.
fn inside(shape: usize, u: f32, v: f32) -> bool {
    match shape {
        0 => {
            let (x, y) = (1.2 * v, -1.2 * u + 0.1);
            let body = x * x + y * y - 0.8;
            body * body * body - x * x * y * y * y < 0.0
        }
        1 => u > -0.8 && u < 1.1 && v.abs() < 0.7 * (1.1 - u) / 1.9,
        _ => {
            let round = (u + 0.35).powi(2) + v * v < 0.36;
            round || (u > -0.35 && u < 1.1 && v.abs() < 0.6 * (1.1 - u) / 1.45)
        }
    }
}
