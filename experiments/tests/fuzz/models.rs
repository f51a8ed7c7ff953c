//! Checkpoints: safetensors, the index of shards, config.json of every family, preprocessor_config.json.

use std::path::Path;

use backbones::classify::{ClassifierOptions, load_classifier};
use backbones::lm::{Layout, LoadOptions, load_lm};
use backbones::load_vit;
use burn::tensor::{Device, Int, Tensor};

use crate::harness::Reader;
use crate::{beside, bytes_of, fixture, written};

const LMS: [&str; 9] = [
    "llama",
    "llama_dynamic",
    "gemma2",
    "gemma3",
    "gpt2",
    "phi3_long",
    "qwen3",
    "smollm3",
    "mistral",
];
const ENCODERS: [&str; 6] = ["bert", "deberta_v3", "modernbert", "distilbert", "electra", "roberta"];
const VITS: [&str; 8] = [
    "vit",
    "timm",
    "deit",
    "dinov2",
    "dinov2_registers",
    "dinov3",
    "clip",
    "siglip",
];

/// Folder of the fixtures of the crate `backbones`.
const FIXTURES: &str = "crates/backbones/tests/fixtures";

pub const READERS: &[Reader] = &[
    Reader {
        name: "safetensors",
        seeds: || {
            let adapter = "crates/backbones/tests/fixtures/encoder/train/lora/adapter_model.safetensors";
            vec![
                bytes_of("experiments/tests/fixtures/lm/model/model.safetensors"),
                bytes_of(adapter),
            ]
        },
        repair: Some(repair),
        read: |folder, bytes| {
            let path = written(folder, "a.safetensors", bytes);
            wegeft::storage::read_tensors(&path)
                .map(drop)
                .map_err(|e| e.to_string())
        },
    },
    Reader {
        name: "vit-weights",
        seeds: || vec![bytes_of("crates/backbones/tests/fixtures/vit/model.safetensors")],
        repair: Some(repair),
        read: |folder, bytes| vit(folder, "vit", "model.safetensors", bytes),
    },
    vit_config::<0>("vit-config-vit"),
    vit_config::<1>("vit-config-timm"),
    vit_config::<2>("vit-config-deit"),
    vit_config::<3>("vit-config-dinov2"),
    vit_config::<4>("vit-config-registers"),
    vit_config::<5>("vit-config-dinov3"),
    vit_config::<6>("vit-config-clip"),
    vit_config::<7>("vit-config-siglip"),
    Reader {
        name: "preprocessor-config",
        seeds: || {
            let texts = [
                r#"{"do_resize": true, "size": {"height": 32, "width": 32}, "resample": 3, "do_rescale": true,
                 "rescale_factor": 0.00392156862745098, "do_normalize": true, "image_mean": [0.5, 0.5, 0.5],
                 "image_std": [0.5, 0.5, 0.5], "do_center_crop": true, "crop_size": {"height": 32, "width": 32}}"#,
                r#"{"size": {"shortest_edge": 36}, "crop_size": 32, "crop_pct": 0.9, "image_mean": [0.1, 0.2, 0.3]}"#,
            ];
            texts.map(|text| text.as_bytes().to_vec()).to_vec()
        },
        repair: None,
        read: |folder, bytes| vit(folder, "vit", "preprocessor_config.json", bytes),
    },
    Reader {
        name: "processor-config",
        seeds: || {
            let own = r#"{"do_resize": true, "size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5], "image_processor_type": "ViTImageProcessor"}"#;
            vec![format!(r#"{{"image_processor": {own}, "processor_class": "x"}}"#).into_bytes()]
        },
        repair: None,
        read: |folder, bytes| vit(folder, "vit", "processor_config.json", bytes),
    },
    Reader {
        name: "lm-weights",
        seeds: || vec![bytes_of("crates/backbones/tests/fixtures/lm/llama/model.safetensors")],
        repair: Some(repair),
        read: |folder, bytes| lm(folder, "llama", "model.safetensors", bytes),
    },
    Reader {
        name: "lm-index",
        seeds: || {
            vec![bytes_of(
                "crates/backbones/tests/fixtures/lm/llama3/model.safetensors.index.json",
            )]
        },
        repair: None,
        read: |folder, bytes| lm(folder, "llama3", "model.safetensors.index.json", bytes),
    },
    lm_config::<0>("lm-config-llama"),
    lm_config::<1>("lm-config-dynamic"),
    lm_config::<2>("lm-config-gemma2"),
    lm_config::<3>("lm-config-gemma3"),
    lm_config::<4>("lm-config-gpt2"),
    lm_config::<5>("lm-config-phi3"),
    lm_config::<6>("lm-config-qwen3"),
    lm_config::<7>("lm-config-smollm3"),
    lm_config::<8>("lm-config-mistral"),
    Reader {
        name: "generation-config",
        seeds: || {
            let text = r#"{"bos_token_id": 1, "eos_token_id": [2, 3], "do_sample": true, "temperature": 0.6, "top_p": 0.9,
                "top_k": 50, "num_beams": 2, "max_new_tokens": 20, "repetition_penalty": 1.1, "pad_token_id": 0}"#;
            vec![text.as_bytes().to_vec()]
        },
        repair: None,
        read: |folder, bytes| lm(folder, "llama", "generation_config.json", bytes),
    },
    encoder_config::<0>("encoder-config-bert"),
    encoder_config::<1>("encoder-config-deberta"),
    encoder_config::<2>("encoder-config-modern"),
    encoder_config::<3>("encoder-config-distil"),
    encoder_config::<4>("encoder-config-electra"),
    encoder_config::<5>("encoder-config-roberta"),
];

const fn vit_config<const F: usize>(name: &'static str) -> Reader {
    Reader {
        name,
        seeds: || vec![bytes_of(&format!("{FIXTURES}/{}/config.json", VITS[F]))],
        repair: None,
        read: |folder, bytes| vit(folder, VITS[F], "config.json", bytes),
    }
}

const fn lm_config<const F: usize>(name: &'static str) -> Reader {
    Reader {
        name,
        seeds: || vec![bytes_of(&format!("{FIXTURES}/lm/{}/config.json", LMS[F]))],
        repair: None,
        read: |folder, bytes| lm(folder, LMS[F], "config.json", bytes),
    }
}

const fn encoder_config<const F: usize>(name: &'static str) -> Reader {
    Reader {
        name,
        seeds: || vec![bytes_of(&format!("{FIXTURES}/encoder/{}/config.json", ENCODERS[F]))],
        repair: None,
        read: |folder, bytes| encoder(folder, ENCODERS[F], bytes),
    }
}

/// Writes `bytes` as `name` beside the other files of a fixture.
fn complete(folder: &Path, from: &str, name: &str, bytes: &[u8]) {
    beside_others(folder, from, &[name]);
    written(folder, name, bytes);
}

/// The files of a fixture but those `without`.
pub fn beside_others(folder: &Path, from: &str, without: &[&str]) {
    for entry in std::fs::read_dir(fixture(from)).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let is_wanted = !without.contains(&name.as_str()) && name != "expected.safetensors";
        if is_wanted && entry.path().is_file() {
            beside(folder, &name, &format!("{from}/{name}"));
        }
    }
}

/// Loads and, where the file has not made it large, runs it once.
fn vit(folder: &Path, family: &str, name: &str, bytes: &[u8]) -> Result<(), String> {
    complete(folder, &format!("{FIXTURES}/{family}"), name, bytes);
    let device = Device::flex();
    let loaded = load_vit(folder, None, 0.0, &device).map_err(|e| e.to_string())?;
    let [height, width] = loaded.config.image();
    if height.max(width) <= 64 {
        loaded.model.forward(Tensor::ones([1, 3, height, width], &device));
    }
    Ok(())
}

fn lm(folder: &Path, family: &str, name: &str, bytes: &[u8]) -> Result<(), String> {
    complete(folder, &format!("{FIXTURES}/lm/{family}"), name, bytes);
    let device = Device::flex();
    let loaded = load_lm(folder, &LoadOptions::default(), &device).map_err(|e| e.to_string())?;
    let _ = loaded.generation.check(true);
    let ids = Tensor::<2, Int>::zeros([1, 4], &device);
    let hidden = loaded.model.hidden(ids, &Layout::dense(1, 4), None);
    loaded.model.logits(hidden);
    Ok(())
}

fn encoder(folder: &Path, family: &str, bytes: &[u8]) -> Result<(), String> {
    complete(folder, &format!("{FIXTURES}/encoder/{family}"), "config.json", bytes);
    let options = ClassifierOptions::default();
    let loaded = load_classifier(folder.to_str().unwrap(), &options, &Device::flex());
    loaded.map(drop).map_err(|e| e.to_string())
}

/// The length of a safetensors file's header.
pub fn repair(bytes: &mut [u8]) {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for at in 8..bytes.len() {
        match bytes[at] {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' if !quoted => depth += 1,
            b'}' if !quoted && depth <= 1 => {
                let length = (at + 1 - 8) as u64;
                bytes[..8].copy_from_slice(&length.to_le_bytes());
                return;
            }
            b'}' if !quoted => depth -= 1,
            _ => {}
        }
    }
}
