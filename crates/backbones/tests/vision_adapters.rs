//! Logits of transformers' vision models with adapters of Hugging Face PEFT (tests/fixtures/vision/make_adapters.py): their
//! names are put under ours, and query, key and value into one.

mod formula;

use std::path::Path;

use backbones::{Translated, load_vit_for};
use burn::tensor::{Device, Tensor, TensorData};
use formula::{tensors, values, write_weights};
use serde_json::Value;
use wegeft::storage::{CONFIG_FILE, WEIGHTS_FILE, read_tensors};

fn cases(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/vision")
        .join(file);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A folder of the base model, and the case.
fn opened(name: &str) -> (tempfile::TempDir, Value, Value) {
    let case = cases("adapters.json")["cases"][name].clone();
    let base = cases("cases.json")["cases"][case["base"].as_str().unwrap()].clone();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), base["config"].to_string()).unwrap();
    write_weights(&tensors(&base), &folder.path().join("model.safetensors"));
    (folder, base, case)
}

fn translated(name: &str, change: impl Fn(&mut Value)) -> Result<Option<Translated>, String> {
    let (folder, _, mut case) = opened(name);
    change(&mut case["config"]);
    let device = Device::flex();
    let pretrained = load_vit_for(folder.path(), None, 0.0, &device).unwrap();
    let path = folder.path().join(WEIGHTS_FILE);
    write_weights(&tensors(&case), &path);
    let config = case["config"].as_object().unwrap();
    pretrained.translate_adapter(config, &read_tensors(&path).unwrap(), &device)
}

fn agrees(name: &str) {
    let (_, base, case) = opened(name);
    let device = Device::flex();
    let translated = translated(name, |_| {}).unwrap().unwrap();
    let adapted = translated.files.attach(translated.model).unwrap();
    let size: [usize; 2] = serde_json::from_value(base["image"].clone()).unwrap();
    let shape = [2, 3, size[0], size[1]];
    let pixels = Tensor::<4>::from_data(TensorData::new(values("pixel_values", &shape), shape), &device);
    let ours: Vec<f32> = adapted.bind().forward(pixels).into_data().iter().collect();
    let theirs: Vec<Vec<f32>> = serde_json::from_value(case["logits"].clone()).unwrap();
    let theirs: Vec<f32> = theirs.into_iter().flatten().collect();
    assert_eq!(ours.len(), theirs.len());
    let greatest = theirs.iter().fold(1.0f32, |most, value| most.max(value.abs()));
    let off = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 3e-5 * greatest, "logits off by {off:e} of {greatest}");
}

include!("fixtures/vision/adapters.rs");

#[test]
fn names_of_ours_are_left_as_they_are() {
    let (folder, ..) = opened("vit_query_value");
    let device = Device::flex();
    let pretrained = load_vit_for(folder.path(), None, 0.0, &device).unwrap();
    let adapted = wegeft::AdapterConfig::lora(2)
        .with_target_modules(["attn.qkv"])
        .with_modules_to_save(["head"])
        .init(pretrained.model.clone())
        .unwrap();
    adapted.save(folder.path()).unwrap();
    let weights = read_tensors(&folder.path().join(WEIGHTS_FILE)).unwrap();
    let config = std::fs::read_to_string(folder.path().join(CONFIG_FILE)).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert!(
        pretrained
            .translate_adapter(config.as_object().unwrap(), &weights, &device)
            .unwrap()
            .is_none()
    );
}

#[test]
fn an_alpha_pattern_with_a_regular_expression_is_refused_by_name() {
    let error = translated("vit_patterns", |config| {
        config["alpha_pattern"] = serde_json::json!({ "layers.[01].*": 4 });
    });
    let message = error.unwrap_err();
    assert!(
        message.contains("alpha_pattern") && message.contains("layers.[01].*"),
        "{message}"
    );
}
