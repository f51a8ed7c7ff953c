//! Adapter folders: adapter_config.json of every method, adapter_model.safetensors, classifier.json.

use std::path::Path;

use backbones::{Pretrained, load_vit};
use burn::tensor::{Device, Tensor};
use experiments::cli::settings::defaults;
use experiments::methods::{self, Adapter, Wing};
use experiments::vision::description::Description;
use experiments::vision::load::load_adapted;

use crate::harness::Reader;
use crate::models::repair;
use crate::{fixture, written};

const BACKBONE: &str = "crates/backbones/tests/fixtures/vit";

pub const READERS: &[Reader] = &[
    Reader {
        name: "adapter-config",
        seeds: || every_method(|folder| std::fs::read(folder.join("adapter_config.json")).unwrap()),
        repair: None,
        read: |folder, bytes| {
            written(folder, "adapter_config.json", bytes);
            // The tensors that belong to the method, as far as the file still names one.
            let text = String::from_utf8_lossy(bytes).into_owned();
            let own = every_method(|folder| {
                let config = std::fs::read_to_string(folder.join("adapter_config.json")).unwrap();
                let kind = config
                    .lines()
                    .find(|line| line.contains("\"peft_type\""))
                    .unwrap_or_default()
                    .to_string();
                match text.contains(kind.trim().trim_end_matches(',')) {
                    true => std::fs::read(folder.join("adapter_model.safetensors")).unwrap(),
                    false => Vec::new(),
                }
            });
            let mut tensors = own.into_iter().rfind(|tensors| !tensors.is_empty()).unwrap_or_default();
            without_checksum(&mut tensors);
            written(folder, "adapter_model.safetensors", &tensors);
            load(folder)
        },
    },
    Reader {
        name: "adapter-weights",
        seeds: || {
            every_method(|folder| std::fs::read(folder.join("adapter_model.safetensors")).unwrap())[1..4].to_vec()
        },
        repair: Some(|bytes| {
            repair(bytes);
            without_checksum(bytes);
        }),
        read: |folder, bytes| {
            if !folder.join("adapter_config.json").exists() {
                let config = every_method(|folder| std::fs::read(folder.join("adapter_config.json")).unwrap());
                written(folder, "adapter_config.json", &config[1]);
            }
            written(folder, "adapter_model.safetensors", bytes);
            load(folder)
        },
    },
    Reader {
        name: "classifier",
        seeds: || {
            let text = r#"{"backbone": null, "image_size": 32, "resize": "bilinear", "classes": ["cat", "dog"]}"#;
            vec![text.as_bytes().to_vec()]
        },
        repair: None,
        read: |folder, bytes| {
            written(folder, "classifier.json", bytes);
            let description = Description::read(folder)?.ok_or("there is none")?;
            let path = fixture(BACKBONE);
            let loaded = load_vit(&path, Some(description.image_size), 0.0, &Device::flex());
            loaded.map(drop).map_err(|e| e.to_string())
        },
    },
    Reader {
        name: "text-classifier",
        seeds: || {
            let labels = r#""id2label": {"0": "bad", "1": "good"}, "label2id": {"bad": 0, "good": 1}"#;
            let more = r#""text_field": "premise,hypothesis", "problem_type": "regression""#;
            [
                format!(r#"{{"model": null, "dtype": "f32", "max_length": 128, {labels}}}"#),
                format!(
                    r#"{{"model": "org/x", "dtype": "bf16", "max_length": 8, {more}, "id2label": {{"0": "score"}}}}"#
                ),
            ]
            .map(String::into_bytes)
            .to_vec()
        },
        repair: None,
        read: |folder, bytes| {
            written(folder, "text_classifier.json", bytes);
            let description = experiments::text::description::Description::read(folder)?.ok_or("there is none")?;
            description.labels(folder).map(drop)
        },
    },
];

/// A file without a checksum and without the settings that it was saved with is read, as those of other programs are.
fn without_checksum(bytes: &mut [u8]) {
    for (key, other) in [
        (&b"\"crc32c\""[..], &b"\"no_sum\""[..]),
        (b"\"adapter_config\"", b"\"no_such_config\""),
    ] {
        if let Some(at) = bytes.windows(key.len()).position(|window| window == key) {
            bytes[at..at + key.len()].copy_from_slice(other);
        }
    }
}

fn backbone() -> Pretrained {
    load_vit(&fixture(BACKBONE), None, 0.0, &Device::flex()).unwrap()
}

/// What `take` makes of a folder of each method, in their order; they are written once.
fn every_method(take: impl Fn(&Path) -> Vec<u8>) -> Vec<Vec<u8>> {
    static FOLDERS: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    let names: Vec<&str> = methods::names(Wing::Vision).collect();
    let all = FOLDERS.get_or_init(|| {
        let all = tempfile::tempdir().unwrap();
        let pretrained = backbone();
        let settings = Adapter {
            r: 2,
            lora_r: 2,
            ..defaults()
        };
        for name in &names {
            let Ok(config) = methods::adapter(&settings, &Default::default(), name, Wing::Vision, "") else {
                continue;
            };
            let config = methods::fitted(config, &pretrained.config);
            let model = pretrained.model.clone().with_head(2, &Device::flex());
            if let Ok(adapted) = config.init(model) {
                adapted.save(all.path().join(name)).unwrap();
            }
        }
        all
    });
    let folders = names.iter().map(|name| all.path().join(name));
    folders
        .filter(|folder| folder.is_dir())
        .map(|folder| take(&folder))
        .collect()
}

fn load(folder: &Path) -> Result<(), String> {
    let pretrained = backbone();
    let device = Device::flex();
    let [height, width] = pretrained.config.image();
    load_adapted(&pretrained, folder, &device).map(|adapted| {
        adapted.bind().forward(Tensor::ones([1, 3, height, width], &device));
    })
}
