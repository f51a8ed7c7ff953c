//! Logits of transformers' and timm's vision models with adapters of Hugging Face PEFT
//! (tests/fixtures/vision/make_adapters.py): their names are put under ours, and query, key and value into one.

mod formula;

use std::path::Path;

use backbones::{Pretrained, Translated, Vit, load_vit_for};
use burn::tensor::{Device, Tensor, TensorData};
use formula::{tensors, values, write_weights};
use serde_json::Value;
use wegeft::methods::wegeft::WegeftConfig;
use wegeft::storage::{CONFIG_FILE, WEIGHTS_FILE, read_tensors};
use wegeft::{Adapted, AdapterFiles};

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

fn adapted(name: &str) -> Adapted<Vit> {
    let translated = translated(name, |_| {}).unwrap().unwrap();
    let adapted = translated.files.attach(translated.model).unwrap();
    assert!(adapted.warnings().is_empty(), "{:?}", adapted.warnings());
    adapted
}

/// The model's folder, the case, the model, and the adapter exported as LoRA in PEFT's layout.
fn as_lora(name: &str) -> (tempfile::TempDir, Value, Pretrained, AdapterFiles) {
    let (folder, _, case) = opened(name);
    let pretrained = load_vit_for(folder.path(), None, 0.0, &Device::flex()).unwrap();
    let adapted = adapted(name);
    let files = adapted.lora_files().unwrap();
    let layout = &pretrained.layout;
    let files = layout.lora_for_peft(files, adapted.backbone(), &pretrained.config);
    (folder, case, pretrained, files.unwrap())
}

fn agrees(name: &str) {
    gives_the_logits(name, &adapted(name));
}

fn logits(name: &str, adapted: &Adapted<Vit>) -> Vec<f32> {
    let (_, base, _) = opened(name);
    let size: [usize; 2] = serde_json::from_value(base["image"].clone()).unwrap();
    let shape = [2, 3, size[0], size[1]];
    let pixels = TensorData::new(values("pixel_values", &shape), shape);
    let pixels = Tensor::<4>::from_data(pixels, &Device::flex());
    adapted.bind().forward(pixels).into_data().iter().collect()
}

fn gives_the_logits(name: &str, adapted: &Adapted<Vit>) {
    let (_, _, case) = opened(name);
    let ours = logits(name, adapted);
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

/// They are matched with transformers' names of the modules.
#[test]
fn patterns_may_be_regular_expressions() {
    let with = |ranks: Value, alphas: Value| {
        translated("vit_patterns", |config| {
            config["rank_pattern"] = ranks.clone();
            config["alpha_pattern"] = alphas.clone();
        })
    };
    let ranks = serde_json::json!({r"mlp\.fc2": 1, r".*\.q_(proj|x)": 2});
    let alphas = serde_json::json!({r"^vit\.layers\.\d+\.attention\.v_proj": 2, "(?!q).*k_proj": 7});
    let translated = with(ranks, alphas).unwrap().unwrap();
    gives_the_logits("vit_patterns", &translated.files.attach(translated.model).unwrap());
    let refused = with(serde_json::json!({"q_proj": 1.5}), serde_json::json!({}));
    assert!(refused.unwrap_err().contains("rank_pattern"));
}

/// Of timm's distilled model PEFT's `head` is one of two; one that was trained here reads the mean of both tokens.
#[test]
fn a_head_of_ours_on_a_distilled_model_stays_one_head() {
    let ours = |config: &mut Value| {
        config.as_object_mut().unwrap().remove("auto_mapping");
    };
    assert!(translated("timm_distilled_one_head", ours).unwrap().is_none());
    assert!(translated("timm_distilled_two_heads", ours).unwrap().is_some());
}

#[test]
fn a_merged_deit_without_a_teacher_keeps_its_class() {
    let (folder, _, case) = opened("deit_query_value");
    let pretrained = load_vit_for(folder.path(), None, 0.0, &Device::flex()).unwrap();
    let merged = adapted("deit_query_value").merge().unwrap();
    let exported = pretrained.layout.export(&merged, &pretrained.config, &[]).unwrap();
    assert_eq!(
        exported.config["architectures"],
        serde_json::json!(["DeiTForImageClassification"])
    );
    let head = &exported.tensors["classifier.weight"];
    let key = "base_model.model.classifier.weight";
    let shape: Vec<usize> = serde_json::from_value(case["tensors"][key].clone()).unwrap();
    assert_eq!(head.shape, shape);
    assert_eq!(head.values, values(key, &shape));
    let others = ["cls_classifier.", "distillation_classifier."];
    assert!(
        !exported
            .tensors
            .keys()
            .any(|name| others.iter().any(|other| name.starts_with(other)))
    );
    // A model with two heads keeps them.
    let (folder, ..) = opened("deit_teacher");
    let pretrained = load_vit_for(folder.path(), None, 0.0, &Device::flex()).unwrap();
    let merged = adapted("deit_teacher").merge().unwrap();
    let exported = pretrained.layout.export(&merged, &pretrained.config, &[]).unwrap();
    assert!(exported.tensors.contains_key("distillation_classifier.weight"));
}

/// LoRA for PEFT has the names that PEFT's own adapter has, and gives the same logits when it is read again.
#[test]
fn an_exported_lora_has_the_names_of_transformers_class() {
    for name in [
        "vit_query_value",
        "vit_all_linear",
        "vit_pissa",
        "deit_query_value",
        "deit_teacher",
        "dinov2_swiglu_all_linear",
        "clip_query_value",
        "siglip_query_value",
    ] {
        let (folder, case, pretrained, files) = as_lora(name);
        let theirs: Vec<&String> = case["tensors"].as_object().unwrap().keys().collect();
        let mut ours: Vec<&String> = files.tensors().keys().collect();
        ours.retain(|key| !theirs.contains(key));
        assert!(ours.is_empty(), "{name}: {ours:?}");
        assert_eq!(files.tensors().len(), theirs.len(), "{name}");
        assert_eq!(
            files.fields()["base_model_name_or_path"],
            folder.path().canonicalize().unwrap().display().to_string()
        );
        let again = pretrained.translate_adapter(files.fields(), files.tensors(), &Device::flex());
        let again = again.unwrap().unwrap();
        gives_the_logits(name, &again.files.attach(again.model).unwrap());
    }
}

/// timm's distilled model has two heads, which are one here.
#[test]
fn an_exported_lora_has_both_heads_of_a_distilled_model_of_timm() {
    for name in ["timm_distilled_one_head", "timm_distilled_two_heads"] {
        let (_folder, _, pretrained, files) = as_lora(name);
        for head in ["head", "head_dist"] {
            let weight = &files.tensors()[&format!("base_model.model.{head}.weight")];
            assert_eq!(weight.shape[1], pretrained.config.d_model, "{name}: {head}");
            let saved = files.fields()["modules_to_save"].as_array().unwrap();
            assert!(saved.iter().any(|module| *module == head), "{name}: {saved:?}");
        }
        let again = pretrained.translate_adapter(files.fields(), files.tensors(), &Device::flex());
        let again = again.unwrap().unwrap();
        gives_the_logits(name, &again.files.attach(again.model).unwrap());
    }
}

/// The head of a converted adapter keeps the name that says what it reads.
#[test]
fn a_converted_adapter_has_the_head_of_the_class() {
    for name in [
        "vit_query_value",
        "deit_query_value",
        "deit_teacher",
        "clip_query_value",
        "siglip_query_value",
        "timm_distilled_two_heads",
    ] {
        let (folder, ..) = opened(name);
        let device = Device::flex();
        let pretrained = load_vit_for(folder.path(), None, 0.0, &device).unwrap();
        let (nearest, _) = adapted(name).nearest_wegeft(&WegeftConfig::new(2)).unwrap();
        let layout = &pretrained.layout;
        let files = layout.with_head_of_class(nearest.files(), nearest.backbone(), &pretrained.config);
        let again = pretrained.translate_adapter(files.fields(), files.tensors(), &device);
        let again = again.unwrap().unwrap();
        let again = again.files.attach(again.model).unwrap();
        assert!(again.warnings().is_empty(), "{name}: {:?}", again.warnings());
        let (before, after) = (logits(name, &nearest), logits(name, &again));
        assert_eq!(before.len(), after.len(), "{name}");
        let off = before
            .iter()
            .zip(&after)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(off < 1e-5, "{name}: logits off by {off:e}");
    }
}

#[test]
fn a_lora_that_no_class_of_transformers_can_have_is_not_exported() {
    let (folder, ..) = opened("clip_query_value");
    let device = Device::flex();
    let pretrained = load_vit_for(folder.path(), None, 0.0, &device).unwrap();
    let adapted = wegeft::AdapterConfig::lora(2)
        .with_target_modules(["attn.qkv"])
        .with_modules_to_save(["head"])
        .init(pretrained.model.clone().with_head(3, &device))
        .unwrap();
    let files = adapted.lora_files().unwrap();
    let refused = pretrained
        .layout
        .lora_for_peft(files, adapted.backbone(), &pretrained.config);
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("'head'") && message.contains("merge"), "{message}");
}
