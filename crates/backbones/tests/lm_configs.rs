//! Logits of transformers for config.json files of every family, each with some field away from its default
//! (tests/fixtures/lm_configs/make.py).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use backbones::lm::{Layout, LoadOptions, load_lm};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::Value;
use wegeft::storage::{Stored, Tensors, read_tensors, write_tensors};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/lm_configs")
        .join(name)
}

static CASES: LazyLock<Value> = LazyLock::new(|| {
    let text = std::fs::read_to_string(fixture("cases.json")).unwrap();
    serde_json::from_str(&text).unwrap()
});
static EXPECTED: LazyLock<BTreeMap<String, Stored>> =
    LazyLock::new(|| read_tensors(&fixture("expected.safetensors")).unwrap());

/// zlib's CRC-32.
fn crc32(text: &str) -> u32 {
    let step = |mut crc: u32, byte: u8| {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
        crc
    };
    !text.bytes().fold(!0, step)
}

/// The numbers that make.py makes of a tensor's name.
fn weight(name: &str, shape: Vec<usize>) -> Stored {
    let mut state = crc32(name);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0 - 0.5
    };
    let count = shape.iter().product();
    let center = if name.ends_with("bias") { 0.0 } else { 1.0 };
    let value = |raw: f32| if shape.len() == 1 { raw * 0.5 + center } else { raw };
    let values = (0..count).map(|_| value(next())).collect();
    Stored { shape, values }
}

fn agrees(name: &str) {
    let case = &CASES[name];
    let shape = |json: &Value| -> Vec<usize> { serde_json::from_value(json.clone()).unwrap() };
    let shapes = case["shapes"].as_object().unwrap().iter();
    let tensors: Tensors = shapes
        .map(|(name, json)| (name.clone(), weight(name, shape(json))))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), case["config"].to_string()).unwrap();
    write_tensors(&dir.path().join("model.safetensors"), &tensors).unwrap();
    let device = Device::flex();
    let model = load_lm(dir.path(), &LoadOptions::default(), &device).unwrap().model;
    let ids = &EXPECTED["ids"];
    let numbers: Vec<i64> = ids.values.iter().map(|id| *id as i64).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(numbers, ids.shape.clone()), &device);
    let [rows, tokens] = ids.dims();
    let logits = model.logits(model.hidden(ids, &Layout::dense(rows, tokens), None));
    let ours: Vec<f32> = logits.into_data().iter().collect();
    let theirs = &EXPECTED[name].values;
    assert_eq!(ours.len(), theirs.len());
    let furthest = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(furthest < 1e-4, "{furthest}");
}

macro_rules! cases {
    ($($name:ident,)*) => {
        $(#[test]
        fn $name() {
            agrees(stringify!($name));
        })*
    };
}

include!("fixtures/lm_configs/names.rs");
