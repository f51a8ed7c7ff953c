//! Models whose tensors are a formula of their names (fixtures/vision/make_formula.py has the same).

use std::collections::HashMap;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::Value;

/// Tensors by name: shape and bytes.
pub type Named = HashMap<String, (Vec<usize>, Vec<u8>)>;

fn crc32(text: &str) -> u32 {
    !text.bytes().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(crc & 1))
        })
    })
}

/// Pseudo-random numbers in [-1, 1), by name.
fn uniform(name: &str, count: usize) -> impl Iterator<Item = f32> {
    let seed = crc32(name);
    (0..count as u32).map(move |index| {
        let mut h = index.wrapping_mul(2_654_435_761).wrapping_add(seed);
        h ^= h >> 16;
        h = h.wrapping_mul(0x85EB_CA6B);
        h ^= h >> 13;
        h = h.wrapping_mul(0xC2B2_AE35);
        h ^= h >> 16;
        (h >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
}

/// Values of the tensor of that name.
pub fn values(name: &str, shape: &[usize]) -> Vec<f32> {
    let u = uniform(name, shape.iter().product());
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    if name == "pixel_values" {
        u.map(|u| 2.0 * u).collect()
    } else if shape.len() >= 2 && ends(&["weight"]) {
        let scale = (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt() as f32;
        u.map(|u| scale * u).collect()
    } else if ends(&["weight", "gamma", "lambda1"]) {
        u.map(|u| 1.0 + 0.3 * u).collect()
    } else {
        u.map(|u| 0.3 * u).collect()
    }
}

fn shape(value: &Value) -> Vec<usize> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Tensors of a case, by name.
pub fn tensors(case: &Value) -> Named {
    let named = case["tensors"].as_object().unwrap().iter();
    named
        .map(|(name, sides)| {
            let shape = shape(sides);
            let bytes = values(name, &shape).into_iter().flat_map(f32::to_le_bytes).collect();
            (name.clone(), (shape, bytes))
        })
        .collect()
}

/// Writes a safetensors file.
pub fn write_weights(tensors: &Named, path: &Path) {
    let views = tensors
        .iter()
        .map(|(name, (shape, bytes))| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    serialize_to_file(views, None, path).unwrap();
}
