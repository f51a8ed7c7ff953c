//! Outputs of timm and transformers on 114 small models, each with a field away from its default
//! (tests/fixtures/vision/make.py). No weights are stored: every tensor is a formula of its name, here as there.

mod formula;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use backbones::{Pretrained, load_vit_for};
use burn::tensor::{Device, Tensor, TensorData};
use formula::{tensors, values, write_weights};
use serde_json::Value;

fn case(name: &str) -> &'static Value {
    static CASES: OnceLock<Value> = OnceLock::new();
    let all = CASES.get_or_init(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vision/cases.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    });
    &all["cases"][name]
}

fn write_config(config: &Value, folder: &Path) {
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

/// A folder with the config and weights of a case.
fn folder(case: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_config(&case["config"], folder.path());
    write_weights(&tensors(case), &folder.path().join("model.safetensors"));
    folder
}

fn load(path: &Path, case: &Value) -> Pretrained {
    let size: [usize; 2] = serde_json::from_value(case["image"].clone()).unwrap();
    load_vit_for(path, Some(size), 0.0, &Device::flex()).unwrap_or_else(|error| panic!("{error}"))
}

fn pixels(case: &Value) -> Tensor<4> {
    let [height, width]: [usize; 2] = serde_json::from_value(case["image"].clone()).unwrap();
    let shape = [2, 3, height, width];
    Tensor::from_data(TensorData::new(values("pixel_values", &shape), shape), &Device::flex())
}

/// Greatest difference between `ours` and what the case expects of `key`.
fn off(ours: Tensor<2>, expected: &Value) -> f32 {
    let rows: Vec<Vec<f32>> = serde_json::from_value(expected.clone()).unwrap();
    assert_eq!(ours.dims(), [rows.len(), rows[0].len()]);
    let ours: Vec<f32> = ours.into_data().iter().collect();
    let theirs = rows.into_iter().flatten();
    ours.into_iter()
        .zip(theirs)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

fn compare(pretrained: &Pretrained, case: &Value) {
    let (features, logits) = pretrained.model.outputs(pixels(case));
    if let Some(expected) = case.get("features") {
        let off = off(features, expected);
        assert!(off < 2e-5, "features off by {off:e}");
    }
    assert_eq!(case.get("logits").is_some(), logits.is_some());
    if let Some((logits, expected)) = logits.zip(case.get("logits")) {
        let off = off(logits, expected);
        assert!(off < 2e-5, "logits off by {off:e}");
    }
}

fn agrees(name: &str) {
    let case = case(name);
    let folder = folder(case);
    compare(&load(folder.path(), case), case);
}

include!("fixtures/vision/cases.rs");

#[test]
fn prefixes_of_wrapped_models_are_taken_away() {
    for (name, prefix) in [
        ("timm_registers", "module."),
        ("timm_registers", "timm_model."),
        ("vit_head", "module."),
        ("vit_head", "model."),
        ("dinov2_model", "backbone."),
        ("clip_whole", "module.model."),
        ("timm_registers", "vit."),
        ("timm_registers", "model.vit."),
        ("timm_registers", "encoder."),
        ("timm_registers", "student.backbone._orig_mod."),
        ("vit_head", "encoder."),
        ("vit_head", "encoder.module."),
        ("dinov2_model", "state_dict.net."),
        ("clip_whole", "state_dict."),
    ] {
        let case = case(name);
        let folder = folder(case);
        let wrapped = tensors(case)
            .into_iter()
            .map(|(name, tensor)| (format!("{prefix}{name}"), tensor))
            .collect();
        write_weights(&wrapped, &folder.path().join("model.safetensors"));
        compare(&load(folder.path(), case), case);
    }
}

#[test]
fn two_models_in_one_file_and_adapters_that_are_not_merged_are_named() {
    let case = case("timm_registers");
    let folder = folder(case);
    let refused = |rename: &dyn Fn(&str) -> Vec<String>| {
        let renamed =
            |(name, tensor): (String, _)| rename(&name).into_iter().map(move |name| (name, Clone::clone(&tensor)));
        let all = tensors(case).into_iter().flat_map(renamed).collect();
        write_weights(&all, &folder.path().join("model.safetensors"));
        let loaded = load_vit_for(folder.path(), None, 0.0, &Device::flex());
        loaded.unwrap_err().to_string()
    };
    let message = refused(&|name| vec![format!("student.{name}"), format!("teacher.{name}")]);
    assert!(message.contains("'student.…' and of 'teacher.…'"), "{message}");
    let message = refused(&|name| match name.strip_suffix("qkv.weight") {
        Some(layer) => vec![
            format!("{layer}qkv.base_layer.weight"),
            format!("{layer}qkv.lora_A.weight"),
        ],
        None => vec![name.to_string()],
    });
    assert!(message.contains("merge_and_unload"), "{message}");
}

/// The same case with its weights in two shards and an index.
fn sharded(case: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_config(&case["config"], folder.path());
    let mut parts = [HashMap::new(), HashMap::new()];
    let mut map = serde_json::Map::new();
    for (index, (name, tensor)) in tensors(case).into_iter().enumerate() {
        let file = format!("model-0000{}-of-00002.safetensors", index % 2 + 1);
        map.insert(name.clone(), file.into());
        parts[index % 2].insert(name, tensor);
    }
    for (index, part) in parts.iter().enumerate() {
        let name = format!("model-0000{}-of-00002.safetensors", index + 1);
        write_weights(part, &folder.path().join(name));
    }
    let index = serde_json::json!({ "weight_map": map });
    std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    folder
}

#[test]
fn shards_are_read_and_a_missing_one_is_named() {
    let case = case("vit_head");
    let folder = sharded(case);
    compare(&load(folder.path(), case), case);
    std::fs::remove_file(folder.path().join("model-00002-of-00002.safetensors")).unwrap();
    let message = refused(folder.path());
    assert!(message.contains("model-00002-of-00002.safetensors"), "{message}");
    std::fs::write(
        folder.path().join("model.safetensors.index.json"),
        r#"{"weight_map": {}}"#,
    )
    .unwrap();
    let message = refused(folder.path());
    assert!(message.contains("index.json"), "{message}");
}

#[test]
fn a_file_in_pytorch_s_own_format_is_read_and_a_damaged_one_is_refused() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixtures.join("vit/config.json"), folder.path().join("config.json")).unwrap();
    let file = folder.path().join("pytorch_model.bin");
    std::fs::copy(fixtures.join("pickled/vit/pytorch_model.bin"), &file).unwrap();
    let device = Device::flex();
    let features = |path: &Path| {
        let model = load_vit_for(path, None, 0.0, &device).unwrap().model;
        let shape = [2, 3, 32, 32];
        let pixels = Tensor::<4>::from_data(TensorData::new(values("pixel_values", &shape), shape), &device);
        model.features(pixels).into_data()
    };
    assert_eq!(features(folder.path()), features(&fixtures.join("vit")));
    for name in ["pytorch_model.bin", "pytorch_model-00001-of-00001.bin"] {
        if name.contains("00001") {
            std::fs::remove_file(&file).unwrap();
            let index = serde_json::json!({ "weight_map": { "cls_token": name } });
            std::fs::write(folder.path().join("pytorch_model.bin.index.json"), index.to_string()).unwrap();
        }
        std::fs::write(folder.path().join(name), b"PK").unwrap();
        let message = refused(folder.path());
        assert!(message.contains(name) && message.contains("complete"), "{message}");
    }
}

fn refused(path: &Path) -> String {
    load_vit_for(path, None, 0.0, &Device::flex()).unwrap_err().to_string()
}

/// A case with some of its config's fields changed.
fn changed(name: &str, change: impl Fn(&mut Value)) -> tempfile::TempDir {
    let mut case = case(name).clone();
    change(&mut case["config"]);
    folder(&case)
}

#[test]
fn fields_that_contradict_the_weights_are_refused_by_a_sentence() {
    let huge = 1u64 << 60;
    for (name, field, value, part) in [
        ("vit_head", "image_size", serde_json::json!(64), "image size 64"),
        ("vit_head", "image_size", serde_json::json!([16, 16]), "image size 16"),
        ("vit_head", "image_size", serde_json::json!(huge), "patches"),
        ("vit_head", "image_size", serde_json::json!("32"), "image_size"),
        ("vit_head", "image_size", serde_json::json!(0), "image size 0"),
        ("vit_head", "patch_size", serde_json::json!(16), "patch"),
        ("vit_head", "patch_size", serde_json::json!([8, 4]), "square"),
        ("vit_head", "num_hidden_layers", serde_json::json!(huge), "blocks"),
        ("vit_head", "num_hidden_layers", serde_json::json!(0), "blocks"),
        (
            "vit_head",
            "num_attention_heads",
            serde_json::json!(huge),
            "num_attention_heads",
        ),
        (
            "vit_head",
            "num_attention_heads",
            serde_json::json!(0),
            "num_attention_heads",
        ),
        ("vit_head", "hidden_size", serde_json::json!(huge), "width of a token"),
        ("vit_head", "layer_norm_eps", serde_json::json!(-1), "layer_norm_eps"),
        ("vit_head", "hidden_act", serde_json::json!("mish"), "hidden_act"),
        ("vit_head", "num_channels", serde_json::json!(4), "num_channels"),
        ("dinov2_swiglu", "use_swiglu_ffn", serde_json::json!(false), "mlp.fc1"),
        ("dinov3_model", "image_size", serde_json::json!(huge), "patches"),
        (
            "dinov3_model",
            "num_attention_heads",
            serde_json::json!(24),
            "multiple of 4",
        ),
        (
            "timm_registers",
            "architecture",
            serde_json::json!("vit_base_patch16_xp_224"),
            "ParallelScalingBlock",
        ),
        (
            "timm_registers",
            "architecture",
            serde_json::json!("vit_relpos_base_patch16_224"),
            "vision_transformer_relpos",
        ),
        (
            "timm_registers",
            "architecture",
            serde_json::json!("vit_nobody_knows"),
            "num_heads",
        ),
        (
            "timm_registers",
            "architecture",
            serde_json::json!("resnet50"),
            "resnet50",
        ),
    ] {
        let folder = match (name, field, &value) {
            // Without arguments that say the head count.
            (_, "architecture", value) => changed(name, |config| {
                config[field] = value.clone();
                config["model_args"].as_object_mut().unwrap().remove("num_heads");
            }),
            _ => changed(name, |config| config[field] = value.clone()),
        };
        let message = load_vit_for(folder.path(), None, 0.0, &Device::flex());
        let message = message
            .map(|_| format!("{name} with {field} {value} was read"))
            .unwrap_or_else(|e| e.to_string());
        assert!(message.contains(part), "{field} {value}: {message}");
    }
}

#[test]
fn arguments_of_timm_that_make_another_model_are_refused_by_name() {
    for (field, value) in [
        ("attn_layer", serde_json::json!("diff")),
        ("scale_attn_norm", serde_json::json!(true)),
        ("norm_layer", serde_json::json!("rmsnorm")),
        ("in_chans", serde_json::json!(1)),
        ("global_pool", serde_json::json!("prr")),
        ("use_naflex", serde_json::json!(true)),
        ("embed_dim", serde_json::json!(96)),
    ] {
        let folder = changed("timm_registers", |config| config["model_args"][field] = value.clone());
        let message = refused(folder.path());
        assert!(
            message.contains(field) || field == "embed_dim" && message.contains("width"),
            "{message}"
        );
    }
    // The head count of an architecture is not taken for weights of another width.
    let folder = changed("timm_registers", |config| {
        for field in ["embed_dim", "num_heads"] {
            config["model_args"].as_object_mut().unwrap().remove(field);
        }
    });
    let message = refused(folder.path());
    assert!(message.contains("192") && message.contains("48"), "{message}");
}

#[test]
fn misshapen_tensors_are_refused_and_never_panic() {
    let names: Vec<&String> = case("deit_teacher")["tensors"].as_object().unwrap().keys().collect();
    let timm = case("timm_deit_distilled_narrow");
    let of_timm = timm["tensors"]
        .as_object()
        .unwrap()
        .keys()
        .map(|name| ("timm_deit_distilled_narrow", name));
    let of_siglip = case("siglip_whole")["tensors"].as_object().unwrap().keys();
    let of_siglip = of_siglip
        .filter(|name| name.contains("vision"))
        .map(|name| ("siglip_whole", name));
    let all = names
        .into_iter()
        .map(|name| ("deit_teacher", name))
        .chain(of_timm)
        .chain(of_siglip);
    for (case_name, name) in all {
        let case = case(case_name);
        for sides in [
            vec![],
            vec![1],
            vec![7],
            vec![2, 3],
            vec![0],
            vec![1, 5, 48],
            vec![1, 18, 9],
            vec![48, 3, 8, 4],
        ] {
            let mut tensors = tensors(case);
            let bytes = values(name, &sides).into_iter().flat_map(f32::to_le_bytes).collect();
            tensors.insert(name.clone(), (sides.clone(), bytes));
            let folder = tempfile::tempdir().unwrap();
            write_config(&case["config"], folder.path());
            write_weights(&tensors, &folder.path().join("model.safetensors"));
            let read = load_vit_for(folder.path(), None, 0.0, &Device::flex());
            assert!(read.is_err(), "{case_name}: '{name}' of shape {sides:?} was read");
        }
        let mut tensors = tensors(case);
        tensors.remove(name);
        let folder = tempfile::tempdir().unwrap();
        write_config(&case["config"], folder.path());
        write_weights(&tensors, &folder.path().join("model.safetensors"));
        let _ = load_vit_for(folder.path(), None, 0.0, &Device::flex());
    }
}

#[test]
fn image_sizes_that_are_asked_for_are_checked_before_anything_is_built() {
    let folder = folder(case("vit_head"));
    for size in [
        [0, 0],
        [12, 32],
        [100_000, 100_000],
        [usize::MAX - 7, 8],
        [1 << 62, 1 << 62],
    ] {
        let error = load_vit_for(folder.path(), Some(size), 0.0, &Device::flex()).unwrap_err();
        assert!(error.to_string().contains("image_size"), "{error}");
    }
    let larger = load_vit_for(folder.path(), Some([64, 16]), 0.0, &Device::flex()).unwrap();
    assert_eq!(larger.config.grid(), [8, 2]);
}

/// Writes what [`backbones::import::Layout::export`] gives.
fn write_export(
    pretrained: &Pretrained,
    model: &backbones::Vit,
    labels: &[String],
    folder: &Path,
) -> Result<(), String> {
    let exported = pretrained.layout.export(model, &pretrained.config, labels);
    let exported = exported.map_err(|error| error.to_string())?;
    std::fs::create_dir_all(folder).unwrap();
    write_config(&exported.config, folder);
    wegeft::storage::write_tensors(&folder.join("model.safetensors"), &exported.tensors).unwrap();
    Ok(())
}

fn names() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vision/cases.json");
    let cases: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    cases["cases"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn what_transformers_does_not_load_of_an_export_is_said() {
    for (name, part) in [
        ("vit", None),
        ("dinov3", Some("no class of DINOv3 with a head")),
        ("clip", Some("in timm's layout")),
        ("siglip", Some("in timm's layout")),
        ("timm", None),
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        let pretrained = load_vit_for(&folder, None, 0.0, &Device::flex()).unwrap();
        let headed = pretrained.model.clone().with_head(3, &Device::flex());
        let note = pretrained.layout.export(&headed, &pretrained.config, &[]).unwrap().note;
        match (part, &note) {
            (Some(part), Some(note)) => assert!(note.contains(part), "{name}: {note}"),
            (part, note) => assert!(part.is_none() && note.is_none(), "{name}: {note:?}"),
        }
    }
}

/// Exports every case, unchanged and with a new head, and reads it again. With VISION_EXPORTS set to a folder it writes them
/// there: fixtures/vision/check_exports.py loads them with timm and transformers.
#[test]
fn an_exported_model_is_the_model() {
    let kept = std::env::var_os("VISION_EXPORTS").map(PathBuf::from);
    let labels: Vec<String> = ["cat", "dog", "bird"].map(String::from).to_vec();
    for name in names() {
        let case = case(&name);
        let source = folder(case);
        let pretrained = load(source.path(), case);
        let device = Device::flex();
        device.seed(1);
        let headed = pretrained.model.clone().with_head(3, &device);
        for (kind, model, labels) in [("same", &pretrained.model, &[][..]), ("head", &headed, &labels[..])] {
            let target = tempfile::tempdir().unwrap();
            let target = match &kept {
                Some(folder) => folder.join(format!("{name}-{kind}")),
                None => target.path().to_path_buf(),
            };
            if let Err(message) = write_export(&pretrained, model, labels, &target) {
                // CLIP and SigLIP with such a head become models of timm, whose norms have no such epsilon.
                assert!(
                    message.contains("no architecture of timm has norms of epsilon 0.01"),
                    "{message}"
                );
                assert!(
                    name.ends_with("_vision_eps") && kind == "head",
                    "{name} {kind}: {message}"
                );
                continue;
            }
            let again =
                load_vit_for(&target, None, 0.0, &device).unwrap_or_else(|error| panic!("{name} {kind}: {error}"));
            assert_eq!(again.config.image(), pretrained.config.image(), "{name} {kind}");
            if kind == "head" {
                assert_eq!(again.labels, labels, "{name}");
            }
            assert_eq!(again.model.head.is_some(), model.head.is_some(), "{name} {kind}");
            let pixels = pixels(case);
            let (ours, theirs) = (again.model.forward(pixels.clone()), model.forward(pixels.clone()));
            if kept.is_some() {
                let stored = |tensor: Tensor<2>| wegeft::storage::Stored {
                    shape: tensor.dims().to_vec(),
                    values: tensor.into_data().iter().collect(),
                };
                let outputs = [("output".to_string(), stored(theirs.clone()))].into();
                wegeft::storage::write_tensors(&target.join("expected.safetensors"), &outputs).unwrap();
            }
            let off = (ours - theirs).abs().max().into_scalar::<f32>();
            assert!(off < 1e-5, "{name} {kind}: off by {off:e}");
        }
    }
}
