//! A fine-tuned WeGeFT adapter, exported as LoRA, against the logits that HF PEFT computed with the export
//! (fixtures/make_exported.py): what is exported today is what PEFT loaded then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backbones::lm::{Decoder, Layout, LoadOptions, load_lm};
use burn::tensor::{Device, Int, Tensor, TensorData};
use clap::Parser;
use experiments::language::adapted::with_adapter;
use experiments::tools::adapter::{Args, adapter};
use wegeft::storage::{Stored, read_tensors};
use wegeft::{AdapterConfig, read_config};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/exported")
        .join(name)
}

fn model() -> Decoder {
    let loaded = load_lm(&folder("model"), &LoadOptions::default(), &Device::flex());
    loaded.unwrap().model
}

fn expected() -> BTreeMap<String, Stored> {
    read_tensors(&folder("expected.safetensors")).unwrap()
}

/// Greatest difference of the model's logits from the stored ones called `name`.
fn off(model: &Decoder, name: &str) -> f32 {
    let expected = expected();
    let ids: Vec<i64> = expected["input_ids"].values.iter().map(|id| *id as i64).collect();
    let shape = expected["input_ids"].shape.clone();
    let (rows, tokens) = (shape[0], shape[1]);
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &Device::flex());
    let logits = model.logits(model.hidden(ids, &Layout::dense(rows, tokens), None));
    greatest(
        &logits.into_data().iter::<f32>().collect::<Vec<_>>(),
        &expected[name].values,
    )
}

fn greatest(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let pairs = ours.iter().zip(theirs);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn adapter_export_and_merge_give_peft_s_logits() {
    assert!(off(&model(), "before") < 1e-4 && off(&model(), "logits") > 1.0);
    for name in ["wegeft", "lora"] {
        let adapted = with_adapter(model(), &folder(name)).unwrap();
        assert!(off(&adapted.bind(), "logits") < 1e-4, "{name}");
        assert!(off(&adapted.merge().unwrap(), "logits") < 1e-4, "{name}, merged");
    }
}

#[test]
fn the_export_is_the_one_that_peft_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("lora");
    let (model, wegeft) = (folder("model"), folder("wegeft"));
    let paths = [&wegeft, &model, &out].map(|path| path.to_str().unwrap());
    let args = [
        "adapter",
        "export-lora",
        paths[0],
        "--backbone",
        paths[1],
        "--out",
        paths[2],
    ];
    adapter(&Args::parse_from(args)).unwrap();
    let read = |folder: &Path| read_tensors(&folder.join("adapter_model.safetensors")).unwrap();
    let (ours, stored) = (read(&out), read(&folder("lora")));
    assert_eq!(ours.keys().collect::<Vec<_>>(), stored.keys().collect::<Vec<_>>());
    for (name, tensor) in &ours {
        assert_eq!(tensor.shape, stored[name].shape, "{name}");
        assert!(greatest(&tensor.values, &stored[name].values) < 1e-5, "{name}");
    }
    // All of the config but the model's path, which is this machine's.
    let fields = |folder: &Path| -> AdapterConfig {
        let mut config = read_config(folder).unwrap();
        config.extra.remove("base_model_name_or_path");
        config
    };
    assert_eq!(fields(&out), fields(&folder("lora")));
    let base = read_config(&out).unwrap().extra["base_model_name_or_path"].clone();
    assert_eq!(base, model.to_str().unwrap());
}
