//! Outputs of timm and transformers on tiny random models (tests/fixtures/make.py), and what must not load.

use std::path::{Path, PathBuf};

use backbones::load_vit;
use burn::tensor::{Device, Tensor, TensorData, Tolerance};
use wegeft::storage::{Stored, read_tensors};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn tensor<const D: usize>(stored: &Stored, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(stored.values.clone(), stored.shape.clone()), device)
}

fn agrees(name: &str) {
    let device = Device::flex();
    let model = load_vit(&fixture(name), None, 0.0, &device).unwrap().model;
    let expected = read_tensors(&fixture(name).join("expected.safetensors")).unwrap();
    let pixels: Tensor<4> = tensor(&expected["pixel_values"], &device);
    let close = |ours: Tensor<2>, name: &str| {
        let theirs: Tensor<2> = tensor(&expected[name], &device);
        ours.into_data()
            .assert_approx_eq::<f32>(&theirs.into_data(), Tolerance::absolute(2e-5));
    };
    close(model.features(pixels.clone()), "features");
    if expected.contains_key("logits") {
        assert!(model.head.is_some());
        close(model.forward(pixels), "logits");
    }
    // Pictures of other sizes than the checkpoint's: a larger grid and a smaller one.
    for (size, pixels) in expected
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("pixels_")?, value)))
    {
        let model = load_vit(&fixture(name), size.parse().ok(), 0.0, &device).unwrap().model;
        let ours = model.features(tensor(pixels, &device));
        close(ours, &format!("features_{size}"));
    }
}

#[test]
fn timm() {
    agrees("timm");
}

#[test]
fn timm_mean_pooled_with_fc_norm() {
    agrees("timm_avg");
}

#[test]
fn hugging_face_vit() {
    agrees("vit");
}

#[test]
fn dinov2() {
    agrees("dinov2");
}

#[test]
fn deit_s_distillation_token() {
    agrees("deit");
    agrees("timm_distilled");
}

#[test]
fn registers() {
    agrees("dinov2_registers");
    agrees("timm_registers");
}

#[test]
fn dinov3() {
    agrees("dinov3");
}

#[test]
fn clip_s_vision_tower_of_a_whole_checkpoint() {
    agrees("clip");
}

#[test]
fn siglip_s_vision_tower() {
    agrees("siglip");
}

#[test]
fn tokens_after_some_blocks_lead_to_the_same_features() {
    let device = Device::flex();
    let model = load_vit(&fixture("dinov3"), None, 0.0, &device).unwrap().model;
    let pixels = Tensor::<4>::random([2, 3, 32, 32], burn::tensor::Distribution::Default, &device);
    let whole = model.features(pixels.clone()).into_data();
    for blocks in 0..=2 {
        let features = model.features_from(model.tokens(pixels.clone(), blocks), blocks);
        assert_eq!(features.into_data(), whole);
    }
    let inputs = model.projection_inputs(pixels);
    assert_eq!((inputs.len(), inputs[0].dims()), (2, [2, 1 + 2 + 16, 24]));
}

#[test]
fn what_is_not_implemented_is_refused_by_field() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(
        fixture("dinov2").join("model.safetensors"),
        dir.path().join("model.safetensors"),
    )
    .unwrap();
    let refused = |config: &str, parts: &[&str]| {
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        let message = load_vit(dir.path(), None, 0.0, &Device::flex())
            .unwrap_err()
            .to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    refused(r#"{"model_type": "swin"}"#, &["config.json", "swin"]);
    refused(
        r#"{"model_type": "dinov2", "use_swiglu_ffn": true}"#,
        &["use_swiglu_ffn"],
    );
    refused(
        r#"{"model_type": "dinov2", "num_attention_heads": 7}"#,
        &["num_attention_heads", "7"],
    );
    refused("{", &["not JSON"]);
}

#[test]
fn the_published_count_of_vit_b_16() {
    let device = Device::flex();
    let model = backbones::VitConfig::base_patch16().init(&device);
    let adapter = wegeft::AdapterConfig::wegeft(16)
        .with_target_modules(["attn.proj"])
        .init(model)
        .unwrap();
    let summary = adapter.summary();
    assert_eq!((summary.adapter_params, summary.frozen_params), (24_576, 85_798_656));
    assert_eq!(format!("{:.3}", summary.percent()), "0.029");
}
