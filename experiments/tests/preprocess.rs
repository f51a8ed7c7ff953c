//! What transformers' image processors and timm's transforms make of images (tests/fixtures/preprocess/make.py), by the same
//! files.

use std::path::Path;

use backbones::{Preprocessing, VitConfig};
use burn::tensor::{Device, Tensor, TensorData};
use experiments::vision::steps::steps;
use image::RgbImage;
use serde_json::Value;
use wegeft::storage::read_tensors;

/// Gradients, edges and noise.
fn image(height: u32, width: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([0, 1, 2].map(|c: u32| {
            let mut h = y.wrapping_mul(73_856_093) ^ x.wrapping_mul(19_349_663) ^ c.wrapping_mul(83_492_791);
            h ^= h >> 16;
            h = h.wrapping_mul(0x85EB_CA6B);
            h ^= h >> 13;
            let noise = (h >> 8) % 64;
            let ramp = (x * 3 + y * 5 * (c + 1)) % 128;
            let edge = ((x / 7 + y / 5) % 2) * 64;
            (noise + ramp + edge) as u8
        }))
    })
}

fn fixtures() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/preprocess"))
}

fn agrees(name: &str) {
    let text = std::fs::read_to_string(fixtures().join("cases.json")).unwrap();
    let cases: Value = serde_json::from_str(&text).unwrap();
    let case = &cases["cases"][name];
    let folder = tempfile::tempdir().unwrap();
    for (file, content) in case["files"].as_object().unwrap() {
        std::fs::write(folder.path().join(file), content.to_string()).unwrap();
    }
    let preprocessing = Preprocessing::read(folder.path()).unwrap().unwrap();
    let [height, width]: [u32; 2] = serde_json::from_value(case["image"].clone()).unwrap();
    let expected: [usize; 2] = serde_json::from_value(case["size"].clone()).unwrap();
    let (pixels, size) = steps(&preprocessing).apply(&image(height, width)).unwrap();
    assert_eq!(size, expected);
    let theirs = read_tensors(&fixtures().join("pixels.safetensors")).unwrap()[name]
        .values
        .clone();
    let area = size[0] * size[1];
    let normalization = preprocessing.normalization;
    let ours: Vec<f32> = pixels
        .iter()
        .enumerate()
        .map(|(at, value)| (value / 255.0 - normalization.mean[at / area]) / normalization.std[at / area])
        .collect();
    // In units of a byte.
    let bytes = |at: usize| 255.0 * normalization.std[at / area] * (ours[at] - theirs[at]).abs();
    let greatest = (0..ours.len()).map(bytes).fold(0.0, f32::max);
    assert!(greatest <= 1.01, "off by {greatest} of 255");
    // Pillow's bytes are ours exactly; torchvision rounds some in another way.
    let differ = (0..ours.len()).filter(|at| bytes(*at) > 0.01).count();
    let most = match case["pillow"].as_bool() {
        Some(true) => 0,
        _ => ours.len() / 50,
    };
    assert!(differ <= most, "{differ} of {} differ", ours.len());
    features_agree(ours, theirs, size);
}

/// Features of a small model: rounding one byte the other way now and then must not show.
fn features_agree(ours: Vec<f32>, theirs: Vec<f32>, size: [usize; 2]) {
    let device = Device::flex();
    device.seed(3);
    let patches = size.map(|side| side / 4 * 4);
    let model = VitConfig::new(4, 4, 24, 1, 2).with_image(patches).init(&device);
    let features = |values: Vec<f32>| {
        let greatest = values.iter().fold(1.0, |most: f32, value| most.max(value.abs()));
        let pixels = Tensor::<4>::from_data(TensorData::new(values, [1, 3, size[0], size[1]]), &device);
        // Raw bytes and such: in the range that a model reads.
        let pixels = pixels.slice([0..1, 0..3, 0..patches[0], 0..patches[1]]) / (greatest / 2.0).max(1.0);
        model.features(pixels)
    };
    let off = (features(ours) - features(theirs)).abs().max().into_scalar::<f32>();
    assert!(off < 1e-3, "features off by {off}");
}

include!("fixtures/preprocess/cases.rs");

#[test]
fn what_is_not_implemented_is_refused_by_field() {
    for (content, part) in [
        (
            r#"{"image_processor_type": "PoolFormerImageProcessor"}"#,
            "PoolFormerImageProcessor",
        ),
        (r#"{"do_pad": true}"#, "do_pad"),
        (r#"{"do_resize": "yes"}"#, "do_resize"),
        (r#"{"size": {"longest": 3}}"#, "size"),
        (r#"{"size": {"height": 1099511627776, "width": 8}}"#, "size"),
        (r#"{"size": 0}"#, "size"),
        (r#"{"do_center_crop": true, "crop_size": "x"}"#, "crop_size"),
        (r#"{"do_center_crop": true}"#, "crop_size"),
        (r#"{"resample": 9}"#, "resampling"),
        (r#"{"image_mean": [0.5]}"#, "image_mean"),
        (r#"{"image_std": [0.5, 0.0, 0.5]}"#, "image_std"),
        (r#"{"rescale_factor": -1}"#, "rescale_factor"),
        ("{", "not JSON"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), r#"{"model_type": "vit"}"#).unwrap();
        std::fs::write(folder.path().join("preprocessor_config.json"), content).unwrap();
        let message = Preprocessing::read(folder.path()).unwrap_err().to_string();
        assert!(
            message.contains("preprocessor_config.json") && message.contains(part),
            "{content}: {message}"
        );
    }
}

#[test]
fn an_image_that_would_become_enormous_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("config.json"),
        r#"{"model_type": "clip_vision_model"}"#,
    )
    .unwrap();
    std::fs::write(folder.path().join("preprocessor_config.json"), "{}").unwrap();
    let clip = steps(&Preprocessing::read(folder.path()).unwrap().unwrap());
    let message = clip.apply(&RgbImage::new(1, 20_000)).unwrap_err();
    assert!(message.contains("crop it before"), "{message}");
    assert!(clip.apply(&RgbImage::new(0, 0)).is_err());
}
