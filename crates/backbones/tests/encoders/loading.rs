//! Folders as they come, saving, and refusals.

use std::fs;
use std::path::Path;

use backbones::classify::{ClassifierOptions, Labels, Problem, load_classifier, load_encoder, save_classifier};
use backbones::encoder::EncoderConfig;
use backbones::lm::{Layout, LoadOptions, Precision, Quantize};
use burn::tensor::Device;
use serde_json::{Value, json};
use wegeft::storage::{Tensors, read_tensors, write_tensors};

use crate::{copy, expected, fixture, furthest, ids, load, values};

fn change_config(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(path, config.to_string()).unwrap();
}

fn change_weights(folder: &Path, change: impl FnOnce(Tensors) -> Tensors) {
    let path = folder.join("model.safetensors");
    write_tensors(&path, &change(read_tensors(&path).unwrap())).unwrap();
}

fn whole_logits(folder: &Path, name: &str) -> f32 {
    let device = Device::flex();
    let loaded = load_classifier(folder.to_str().unwrap(), &ClassifierOptions::default(), &device).unwrap();
    let expected = expected(name);
    let tokens = ids(&expected["whole_ids"], &device);
    let logits = loaded.model.forward(tokens, &Layout::dense(2, 12), None);
    furthest(&values(logits), &expected["whole_logits"].values)
}

#[test]
fn module_paths_are_the_checkpoint_s() {
    let device = Device::flex();
    for name in [
        "bert",
        "roberta",
        "distilbert",
        "electra",
        "deberta_v2",
        "modernbert_mean",
        "llama",
        "gpt2",
    ] {
        let params = wegeft::site::params(&load(name, &device).model);
        let mut ours: Vec<String> = params.iter().map(|param| param.torch_name()).collect();
        ours.sort();
        let theirs = read_tensors(&fixture(name).join("model.safetensors")).unwrap();
        assert_eq!(ours, theirs.into_keys().collect::<Vec<_>>());
    }
}

/// Softmax over the one token of a short text is 1, whatever its score.
#[test]
fn a_weight_that_no_output_shows_must_be_a_number_too() {
    let folder = copy("bert");
    change_weights(folder.path(), |mut tensors| {
        let name = tensors
            .keys()
            .find(|name| name.ends_with("query.weight"))
            .unwrap()
            .clone();
        tensors.get_mut(&name).unwrap().values[0] = f32::NAN;
        tensors
    });
    let path = folder.path().to_str().unwrap();
    let error = load_classifier(path, &ClassifierOptions::default(), &Device::flex()).map(drop);
    let message = error.unwrap_err().to_string();
    for part in [
        "model.safetensors",
        "query.weight' has elements that are NaN or infinite",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn deberta_scales_its_scores_for_distances_that_it_does_not_look_at() {
    let of_distances = ["rel_embeddings", "pos_key_proj", "pos_query_proj"];
    let base = copy("deberta_v2");
    change_weights(base.path(), |mut tensors| {
        tensors.retain(|name, _| !of_distances.iter().any(|part| name.contains(part)));
        tensors
    });
    let logits = |folder: &Path| {
        let device = Device::flex();
        let loaded = load_classifier(folder.to_str().unwrap(), &ClassifierOptions::default(), &device).unwrap();
        let tokens = ids(&expected("deberta_v2")["whole_ids"], &device);
        values(loaded.model.forward(tokens, &Layout::dense(2, 12), None))
    };
    let with = |kinds: Value, norm: &str| {
        change_config(base.path(), |config| {
            config["relative_attention"] = json!(false);
            config["pos_att_type"] = kinds;
            config["norm_rel_ebd"] = json!(norm);
        });
        logits(base.path())
    };
    let (plain, scaled) = (with(json!([]), "none"), with(json!(["c2p", "p2c"]), "none"));
    // The files have the norm of the distances that are not looked at.
    let norm = |value: f32| wegeft::storage::Stored {
        shape: vec![16],
        values: vec![value; 16],
    };
    change_weights(base.path(), |mut tensors| {
        tensors.insert("deberta.encoder.LayerNorm.weight".into(), norm(1.0));
        tensors.insert("deberta.encoder.LayerNorm.bias".into(), norm(0.0));
        tensors
    });
    assert_eq!(with(json!(["c2p", "p2c"]), "layer_norm"), scaled);
    change_weights(base.path(), |mut tensors| {
        tensors.retain(|name, _| !name.starts_with("deberta.encoder.LayerNorm"));
        let queries = tensors.iter_mut().filter(|(name, _)| name.contains("query_proj"));
        for value in queries.flat_map(|(_, stored)| &mut stored.values) {
            *value /= 3f32.sqrt();
        }
        tensors
    });
    let by_hand = with(json!([]), "none");
    let off = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off(&scaled, &by_hand) < 1e-5 && off(&scaled, &plain) > 1e-4);
}

#[test]
fn what_is_saved_is_what_was_read() {
    let device = Device::flex();
    let dir = tempfile::tempdir().unwrap();
    for name in ["bert", "roberta", "deberta_v2", "modernbert", "gpt2", "llama"] {
        let loaded = load(name, &device);
        let folder = dir.path().join(name);
        save_classifier(&loaded.model, &loaded.config, &folder, Precision::F32).unwrap();
        let read = |folder: &Path| read_tensors(&folder.join("model.safetensors")).unwrap();
        assert_eq!(read(&folder), read(&fixture(name)));
        assert!(whole_logits(&folder, name) < 1e-5);
        let config: Value = serde_json::from_str(&fs::read_to_string(folder.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["architectures"], loaded.config["architectures"]);
        assert_eq!(Labels::from_hf(&config).as_ref(), Ok(loaded.model.labels()));
    }
}

#[test]
fn older_names_bare_models_and_other_heads() {
    // Norms as the first checkpoints spell them, a buffer, and what pretraining leaves behind.
    let dir = copy("bert");
    change_weights(dir.path(), |tensors| {
        let old = |name: String| {
            let name = name.replace("LayerNorm.weight", "LayerNorm.gamma");
            name.replace("LayerNorm.bias", "LayerNorm.beta")
        };
        let mut tensors: Tensors = tensors.into_iter().map(|(name, tensor)| (old(name), tensor)).collect();
        let stub = tensors["classifier.bias"].clone();
        for name in ["cls.predictions.bias", "bert.embeddings.position_ids"] {
            tensors.insert(name.into(), stub.clone());
        }
        tensors
    });
    assert!(whole_logits(dir.path(), "bert") < 1e-5);
    let options = ClassifierOptions::default();
    let loaded = load_classifier(dir.path().to_str().unwrap(), &options, &Device::flex()).unwrap();
    assert_eq!(loaded.unused, ["bert.embeddings.position_ids", "cls.predictions.bias"]);

    // A bare model: no prefix, no head.
    let dir = copy("bert");
    change_weights(dir.path(), |tensors| {
        let bare = tensors
            .into_iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix("bert.")?.into(), tensor)));
        bare.collect()
    });
    let device = Device::flex();
    let model = dir.path().to_str().unwrap();
    let loaded = load_classifier(model, &options, &device).unwrap();
    assert_eq!(loaded.fresh, ["classifier.weight", "classifier.bias"]);
    let encoder = load_encoder(model, &LoadOptions::default(), &device).unwrap();
    assert_eq!(encoder.unused, ["pooler.dense.bias", "pooler.dense.weight"]);
    let expected = expected("bert");
    let hidden = encoder
        .model
        .hidden(ids(&expected["whole_ids"], &device), &Layout::dense(2, 12), None);
    assert!(furthest(&values(hidden), &expected["whole_hidden"].values) < 1e-5);
}

#[test]
fn labels_of_another_task() {
    let device = Device::flex();
    let labels = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).into()).collect();
        Some(Labels::new(names, Problem::SingleLabel).unwrap())
    };
    let folder = fixture("roberta");
    let model = folder.to_str().unwrap();
    let four = ClassifierOptions {
        labels: labels(&["a", "b", "c", "d"]),
        ..ClassifierOptions::default()
    };
    let message = load_classifier(model, &four, &device).unwrap_err().to_string();
    for part in ["classifier.out_proj.weight", "[2, 16]", "4 labels", "fresh head"] {
        assert!(message.contains(part), "{message}");
    }
    let fresh = ClassifierOptions {
        fresh_head: true,
        ..four
    };
    let loaded = load_classifier(model, &fresh, &device).unwrap();
    let mut fresh_names = loaded.fresh.clone();
    fresh_names.sort();
    assert_eq!(fresh_names, ["classifier.out_proj.bias", "classifier.out_proj.weight"]);
    assert_eq!(loaded.model.labels().names().len(), 4);
    // The same number of labels: the head stays, under the new names.
    let renamed = ClassifierOptions {
        labels: labels(&["bad", "good"]),
        ..ClassifierOptions::default()
    };
    let loaded = load_classifier(model, &renamed, &device).unwrap();
    assert_eq!((loaded.fresh.len(), loaded.model.labels().id("good")), (0, Some(1)));
}

#[test]
fn half_precision_and_quantized_weights() {
    let device = Device::flex();
    let expected = expected("bert");
    let size = expected["whole_logits"]
        .values
        .iter()
        .fold(0.0f32, |size, value| size.max(value.abs()));
    let off = |weights: LoadOptions| {
        let options = ClassifierOptions {
            weights,
            ..ClassifierOptions::default()
        };
        let model = load_classifier(fixture("bert").to_str().unwrap(), &options, &device);
        let tokens = ids(&expected["whole_ids"], &device);
        let logits = model.map(|loaded| loaded.model.forward(tokens, &Layout::dense(2, 12), None));
        logits.map(|logits| furthest(&values(logits), &expected["whole_logits"].values) / size)
    };
    let with = |precision| LoadOptions {
        precision,
        quantize: None,
    };
    let bf16 = off(with(Precision::Bf16)).unwrap();
    let f16 = off(with(Precision::F16)).unwrap();
    assert!(bf16 > 0.0 && bf16 < 0.05 && f16 > 0.0 && f16 < 0.01, "{bf16} {f16}");
    let int8 = LoadOptions {
        quantize: Some(Quantize::Int8),
        ..LoadOptions::default()
    };
    let message = off(int8).unwrap_err().to_string();
    assert!(message.contains("blocks of 32"), "{message}");
}

fn refused(name: &str, change: impl FnOnce(&mut Value), parts: &[&str]) {
    let dir = copy(name);
    change_config(dir.path(), change);
    let options = ClassifierOptions::default();
    let message = load_classifier(dir.path().to_str().unwrap(), &options, &Device::flex());
    let message = message.unwrap_err().to_string();
    for part in parts {
        assert!(message.contains(part), "'{part}' not in: {message}");
    }
}

#[test]
fn what_is_not_implemented_is_refused_by_field() {
    for (name, field, value, parts) in [
        (
            "bert",
            "model_type",
            json!("big_bird"),
            &["'model_type' is \"big_bird\"", "modernbert", "llama"][..],
        ),
        ("bert", "is_decoder", json!(true), &["'is_decoder' is true"]),
        (
            "bert",
            "position_embedding_type",
            json!("relative_key"),
            &["'relative_key'", "absolute"],
        ),
        (
            "bert",
            "hidden_act",
            json!("swash"),
            &["'hidden_act' is 'swash'", "gelu_new"],
        ),
        ("bert", "hidden_size", json!("wide"), &["'hidden_size' is \"wide\""]),
        ("bert", "hidden_dropout_prob", json!(1.0), &["dropout is 1"]),
        (
            "bert",
            "num_attention_heads",
            json!(3),
            &["'num_attention_heads' is 3", "16"],
        ),
        ("bert", "num_attention_heads", json!(0), &["'num_attention_heads' is 0"]),
        (
            "bert",
            "quantization_config",
            json!({"bits": 4}),
            &["quantization_config"],
        ),
        (
            "bert",
            "problem_type",
            json!("ranking"),
            &["'problem_type'", "regression"],
        ),
        ("deberta_v3", "pos_att_type", json!("p2p"), &["'p2p'", "c2p and p2c"]),
        (
            "deberta_v3",
            "position_buckets",
            json!(100),
            &["'position_buckets' is 100"],
        ),
        (
            "deberta_v2",
            "conv_kernel_size",
            json!(4),
            &["'conv_kernel_size' is 4", "odd"],
        ),
        (
            "deberta_v2",
            "pooler_hidden_size",
            json!(8),
            &["'pooler_hidden_size' is 8"],
        ),
        (
            "modernbert",
            "classifier_pooling",
            json!("max"),
            &["'max'", "cls and mean"],
        ),
        (
            "modernbert",
            "layer_types",
            json!(["full_attention"]),
            &["'layer_types' has 1", "4 layers"],
        ),
    ] {
        refused(name, |config| config[field] = value, parts);
    }
}

/// Sizes that would take all memory, or overflow, are held against the weights first.
#[test]
fn sizes_are_held_against_the_weights_first() {
    let huge = u64::MAX / 3;
    for (name, field, value, parts) in [
        (
            "bert",
            "num_hidden_layers",
            huge,
            &["'num_hidden_layers'", "at most"][..],
        ),
        ("bert", "num_hidden_layers", 1, &["unexpected 'bert.encoder.layer.1"]),
        ("bert", "vocab_size", huge, &["'vocab_size'", "at most"]),
        (
            "bert",
            "vocab_size",
            33,
            &["'vocab_size' is 33", "word_embeddings", "[32, 16]"],
        ),
        ("bert", "hidden_size", 32, &["'hidden_size' is 32", "[32, 16]"]),
        (
            "bert",
            "intermediate_size",
            200_000_000,
            &["'intermediate_size'", "[24, 16]"],
        ),
        (
            "roberta",
            "max_position_embeddings",
            200_000_000,
            &["'max_position_embeddings'", "[20, 16]"],
        ),
        ("roberta", "pad_token_id", 200_000_000, &["pad_token_id"]),
        (
            "deberta_v2",
            "max_relative_positions",
            200_000_000,
            &["max_relative_positions", "[18, 16]"],
        ),
        ("modernbert", "num_hidden_layers", 5, &["layer_types"]),
        (
            "modernbert_mean",
            "num_hidden_layers",
            200_000_000,
            &["'num_hidden_layers'", "4 layers"],
        ),
        ("electra", "embedding_size", 16, &["'embedding_size' is 16", "[32, 8]"]),
        ("llama", "num_hidden_layers", huge, &["'num_hidden_layers'", "2 layers"]),
        ("llama", "vocab_size", 33, &["'vocab_size' is 33", "32 rows"]),
        ("gpt2", "n_layer", huge, &["'n_layer'", "2 layers"]),
        (
            "bert",
            "num_hidden_layers",
            200_000_000,
            &["'num_hidden_layers'", "2 layers"],
        ),
        ("distilbert", "n_layers", 3, &["'n_layers' is 3", "2 layers"]),
    ] {
        refused(name, |config| config[field] = value.into(), parts);
    }
}

#[test]
fn damaged_files_are_refused_in_one_sentence() {
    let options = ClassifierOptions::default();
    let says = |folder: &Path, parts: &[&str]| {
        let message = load_classifier(folder.to_str().unwrap(), &options, &Device::flex()).unwrap_err();
        let message = message.to_string();
        assert!(
            parts.iter().all(|part| message.contains(part)),
            "{parts:?} not in: {message}"
        );
    };
    says(Path::new("/nowhere/at/all"), &["/nowhere/at/all"]);
    let dir = copy("electra");
    change_weights(dir.path(), |mut tensors| {
        tensors.remove("electra.embeddings_project.weight");
        let stub = tensors["classifier.out_proj.bias"].clone();
        tensors.insert("electra.encoder.extra".into(), stub);
        tensors
    });
    says(dir.path(), &["missing 'electra.embeddings_project.weight' [16, 8]"]);
    let dir = copy("electra");
    change_weights(dir.path(), |mut tensors| {
        let stub = tensors["classifier.out_proj.bias"].clone();
        tensors.insert("electra.encoder.extra".into(), stub);
        tensors
    });
    says(dir.path(), &["unexpected 'electra.encoder.extra'"]);
    let weights = dir.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 7]).unwrap();
    says(dir.path(), &["model.safetensors", "not a complete safetensors file"]);
    fs::remove_file(dir.path().join("config.json")).unwrap();
    says(dir.path(), &["config.json"]);
}

/// The fields of published config.json files, and the parameters that they give without a head.
#[test]
fn published_configs_give_published_parameter_counts() {
    for (config, count) in [
        (
            json!({"model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12,
            "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu", "position_embedding_type": "absolute",
            "gradient_checkpointing": false, "layer_norm_eps": 1e-12, "use_cache": true}),
            108_891_648usize,
        ),
        (
            json!({"model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1,
            "layer_norm_eps": 1e-5, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}),
            124_055_040,
        ),
        (
            json!({"model_type": "distilbert", "vocab_size": 30522, "dim": 768, "n_layers": 6, "n_heads": 12,
            "hidden_dim": 3072, "sinusoidal_pos_embds": false, "tie_weights_": true}),
            66_362_880,
        ),
        (
            json!({"model_type": "electra", "embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4,
            "intermediate_size": 1024, "num_hidden_layers": 12, "vocab_size": 30522, "summary_type": "first"}),
            13_483_008,
        ),
        (
            json!({"model_type": "deberta-v2", "attention_probs_dropout_prob": 0.1, "hidden_size": 768,
            "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12, "vocab_size": 128100,
            "type_vocab_size": 0, "max_relative_positions": -1, "position_buckets": 256, "norm_rel_ebd": "layer_norm",
            "share_att_key": true, "pos_att_type": "p2c|c2p", "position_biased_input": false, "relative_attention": true,
            "layer_norm_eps": 1e-7}),
            183_831_552,
        ),
        (
            json!({"model_type": "modernbert", "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0,
            "local_attention": 128, "local_rope_theta": 10000.0, "position_embedding_type": "absolute",
            "reference_compile": true, "vocab_size": 50368}),
            149_014_272,
        ),
    ] {
        // Weights are made on first use: nothing of these sizes is ever in memory.
        let kind = config["model_type"].clone();
        let config = EncoderConfig::from_hf(&config).unwrap_or_else(|error| panic!("{kind}: {error}"));
        let params = wegeft::site::params(&config.init(&Device::flex()));
        assert_eq!(params.iter().map(|param| param.len()).sum::<usize>(), count, "{kind}");
    }
}
