//! Outputs of timm and transformers on tiny random models (tests/fixtures/make.py), and what must not load.

use std::path::{Path, PathBuf};

use backbones::load_vit;
use burn::tensor::{Device, Tensor, TensorData, Tolerance};
use wegeft::AdapterConfig;
use wegeft::methods::reft::{Positions, ReftConfig};
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
    // Images of other sizes than the checkpoint's: a larger grid and a smaller one.
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

fn random_pixels(device: &Device) -> Tensor<4> {
    Tensor::random([2, 3, 32, 32], burn::tensor::Distribution::Default, device)
}

/// Equal but for rounding: 2e-5 of the greatest value.
fn close(ours: Tensor<2>, theirs: &Tensor<2>) {
    let [off, greatest] = [ours - theirs.clone(), theirs.clone()].map(|x| x.abs().max().into_scalar::<f32>());
    assert!(greatest > 1e-3 && off < 2e-5 * greatest, "{off:e} of {greatest:e}");
}

#[test]
fn tokens_after_some_blocks_lead_to_the_same_features() {
    let device = Device::flex();
    for name in ["dinov2", "dinov3", "timm_distilled", "siglip"] {
        let model = load_vit(&fixture(name), None, 0.0, &device).unwrap().model;
        let pixels = random_pixels(&device);
        // All blocks on all tokens.
        let depth = model.blocks.len();
        let whole = model.features_from(model.tokens(pixels.clone(), depth), depth);
        for blocks in 0..depth {
            let features = model.features_from(model.tokens(pixels.clone(), blocks), blocks);
            close(features, &whole);
        }
        close(model.features(pixels), &whole);
    }
}

#[test]
fn what_the_last_block_leaves_out_has_no_gradient_either() {
    let device = Device::flex().autodiff();
    for name in ["dinov2", "dinov3", "timm_distilled"] {
        let model = load_vit(&fixture(name), None, 0.0, &device).unwrap().model;
        let depth = model.blocks.len();
        let pixels = random_pixels(&device);
        let gradients = |all: bool| {
            let pixels = pixels.clone().require_grad();
            let blocks = if all { depth } else { 0 };
            let features = model.features_from(model.tokens(pixels.clone(), blocks), blocks);
            let weights = features.clone().detach().cos();
            let grads = (features * weights).sum().backward();
            let last = model.blocks[depth - 1].attn.qkv.weight.val();
            [
                pixels.grad(&grads).unwrap().reshape([2, -1]),
                last.grad(&grads).unwrap(),
            ]
        };
        for (ours, theirs) in gradients(false).into_iter().zip(gradients(true)) {
            close(ours, &theirs);
        }
    }
}

#[test]
fn an_adapter_that_chooses_tokens_by_place_sees_all_of_them() {
    let device = Device::flex();
    let model = load_vit(&fixture("dinov2"), None, 0.0, &device).unwrap().model;
    let depth = model.blocks.len();
    let pixels = random_pixels(&device);
    let plain = model.features(pixels.clone());
    let ends = Positions::Ends { first: 0, last: 3 };
    let config = AdapterConfig::new(ReftConfig::loreft(2).with_position(ends));
    let adapted = config.init(model).unwrap();
    let bound = adapted.bind();
    let whole = bound.features_from(bound.tokens(pixels.clone(), depth), depth);
    close(bound.features(pixels), &whole);
    assert!((whole - plain).abs().max().into_scalar::<f32>() > 1e-3);
}

#[test]
fn every_input_of_an_output_projection_is_given() {
    let device = Device::flex();
    let model = load_vit(&fixture("dinov3"), None, 0.0, &device).unwrap().model;
    let inputs = model.projection_inputs(random_pixels(&device));
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
        r#"{"model_type": "dinov2", "image_size": 32, "patch_size": 8, "num_attention_heads": 7}"#,
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
