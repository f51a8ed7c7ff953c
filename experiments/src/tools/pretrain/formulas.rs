//! Images from formulas, for pretraining without any photograph: iterated function systems (as in FractalDB, Kataoka et
//! al. 2020, arXiv 2101.08515), filled radial-harmonic outlines and sums of gratings, rendered on the fly. The category
//! is the formula; position, size, angle, contrast and noise vary.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// One category.
pub enum Formula {
    /// Affine maps (a, b, c, d, e, f) of an iterated function system, and the cloud's centre and radius.
    Fractal(Vec<[f32; 6]>, [f32; 3]),
    /// Amplitudes and phases of r(θ) = 1 + Σ a_k cos(kθ + φ_k).
    Outline(Vec<(f32, f32)>),
    /// Gratings (frequencies in periods per image, weight) whose sum is sharpened into a texture.
    Texture(Vec<[f32; 3]>, f32),
}

/// `count` categories, alternating between fractals, outlines and textures.
pub fn categories(count: usize, seed: u64) -> Vec<Formula> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count)
        .map(|i| match i % 3 {
            0 => fractal(&mut rng),
            1 => outline(&mut rng),
            _ => texture(&mut rng),
        })
        .collect()
}

fn outline(rng: &mut StdRng) -> Formula {
    Formula::Outline(
        (1..6)
            .map(|k| {
                (
                    rng.random_range(0.0..0.9) / k as f32,
                    rng.random_range(0.0..std::f32::consts::TAU),
                )
            })
            .collect(),
    )
}

fn texture(rng: &mut StdRng) -> Formula {
    let waves = (0..rng.random_range(2..5))
        .map(|_| {
            let frequency = 1.5 * rng.random_range(1.0..6.0f32).powf(1.2);
            let (sin, cos) = rng.random_range(0.0..std::f32::consts::PI).sin_cos();
            [frequency * cos, frequency * sin, rng.random_range(0.4..1.0)]
        })
        .collect();
    Formula::Texture(waves, rng.random_range(0.5..4.0))
}

fn fractal(rng: &mut StdRng) -> Formula {
    loop {
        let maps: Vec<[f32; 6]> = (0..rng.random_range(2..5))
            .map(|_| std::array::from_fn(|_| rng.random_range(-1.0..1.0)))
            .collect();
        let contracts = maps.iter().all(|m| {
            // The Frobenius norm bounds the spectral norm: below 1, every map contracts.
            let norm = m[..4].iter().map(|v| v * v).sum::<f32>().sqrt();
            (0.3..0.98).contains(&norm)
        });
        if !contracts {
            continue;
        }
        let points = orbit(&maps, 2000, rng);
        let n = points.len() as f32;
        let (cx, cy) = (
            points.iter().map(|p| p.0).sum::<f32>() / n,
            points.iter().map(|p| p.1).sum::<f32>() / n,
        );
        let radius = points.iter().map(|p| (p.0 - cx).hypot(p.1 - cy)).fold(0.0, f32::max);
        let mut cells = std::collections::HashSet::new();
        for (x, y) in &points {
            cells.insert((((x - cx) / radius * 8.0) as i32, ((y - cy) / radius * 8.0) as i32));
        }
        if cells.len() > 40 {
            return Formula::Fractal(maps, [cx, cy, radius]);
        }
    }
}

fn orbit(maps: &[[f32; 6]], count: usize, rng: &mut StdRng) -> Vec<(f32, f32)> {
    let (mut x, mut y) = (0.0, 0.0);
    let mut points = Vec::with_capacity(count);
    for step in 0..count + 20 {
        let [a, b, c, d, e, f] = maps[rng.random_range(0..maps.len())];
        (x, y) = (a * x + b * y + e, c * x + d * y + f);
        if step >= 20 {
            points.push((x, y));
        }
    }
    points
}

/// Renders one grey image of `formula`: `size * size` values from 0 to 1.
pub fn render(formula: &Formula, size: usize, rng: &mut StdRng) -> Vec<f32> {
    let half = size as f32 / 2.0;
    let radius = half * rng.random_range(0.35..0.95);
    let room = half - radius;
    let (cx, cy) = (
        half + room * rng.random_range(-1.0f32..1.0),
        half + room * rng.random_range(-1.0f32..1.0),
    );
    let (sin, cos) = rng.random_range(-0.4f32..0.4).sin_cos();
    let mut mask = vec![0.0f32; size * size];
    match formula {
        Formula::Fractal(maps, [mx, my, extent]) => {
            for (x, y) in orbit(maps, 1200, rng) {
                let (u, v) = ((x - mx) / extent * radius, (y - my) / extent * radius);
                let (px, py) = (cx + cos * u - sin * v, cy + sin * u + cos * v);
                if px >= 0.0 && py >= 0.0 && px < size as f32 && py < size as f32 {
                    let cell = &mut mask[py as usize * size + px as usize];
                    *cell = (*cell + 0.5).min(1.0);
                }
            }
        }
        Formula::Outline(waves) => {
            let longest = 1.0 + waves.iter().map(|w| w.0).sum::<f32>();
            for (index, cell) in mask.iter_mut().enumerate() {
                let (dx, dy) = ((index % size) as f32 + 0.5 - cx, (index / size) as f32 + 0.5 - cy);
                let (u, v) = (cos * dx + sin * dy, cos * dy - sin * dx);
                let angle = v.atan2(u);
                let reach: f32 = 1.0
                    + waves
                        .iter()
                        .enumerate()
                        .map(|(k, (a, p))| a * ((k + 1) as f32 * angle + p).cos())
                        .sum::<f32>();
                let edge = reach / longest * 1.6 * radius;
                *cell = (edge - u.hypot(v) + 0.5).clamp(0.0, 1.0);
            }
        }
        Formula::Texture(waves, sharpness) => {
            let phases: Vec<f32> = waves
                .iter()
                .map(|_| rng.random_range(0.0..std::f32::consts::TAU))
                .collect();
            let zoom = rng.random_range(0.85..1.15) * std::f32::consts::TAU / size as f32;
            for (index, cell) in mask.iter_mut().enumerate() {
                let (x, y) = ((index % size) as f32 * zoom, (index / size) as f32 * zoom);
                let (u, v) = (cos * x + sin * y, cos * y - sin * x);
                let sum: f32 = waves
                    .iter()
                    .zip(&phases)
                    .map(|([fx, fy, weight], phase)| weight * (fx * u + fy * v + phase).sin())
                    .sum();
                *cell = 0.5 + 0.5 * (sharpness * sum).tanh();
            }
        }
    }
    let back = rng.random_range(0.0..1.0f32);
    let fore = if rng.random_bool(0.5) { 1.0 } else { 0.0 };
    let fore = if (fore - back).abs() < 0.4 { 1.0 - fore } else { fore };
    let noise = rng.random_range(0.0..0.08f32);
    let (fx, fy, phase) = (
        rng.random_range(-1.5..1.5f32),
        rng.random_range(-1.5..1.5f32),
        rng.random_range(0.0..6.3f32),
    );
    let wave = if rng.random_bool(0.5) {
        rng.random_range(0.0..0.1f32)
    } else {
        0.0
    };
    mask.iter()
        .enumerate()
        .map(|(i, m)| {
            let (x, y) = ((i % size) as f32, (i / size) as f32);
            let grating = wave * (fx * x + fy * y + phase).sin();
            (back + (fore - back) * m + grating + noise * rng.random_range(-1.0..1.0f32)).clamp(0.0, 1.0)
        })
        .collect()
}
