//! Logits of transformers on tiny random decoders of every family (tests/fixtures/lm/make.py), and what must not load.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backbones::lm::adapter::for_adapter;
use backbones::lm::{Cache, Decoder, DecoderConfig, Layout, LoadOptions, Precision, Quantize, Side, load_lm, save_lm};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use serde_json::{Value, json};
use wegeft::storage::{Stored, read_tensors, write_tensors};

const SHORT: usize = 5;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/lm")
        .join(name)
}

fn load(name: &str) -> (Decoder, BTreeMap<String, Stored>) {
    let folder = fixture(name);
    let loaded = load_lm(&folder, &LoadOptions::default(), &Device::flex()).unwrap();
    let tokens = loaded.generation;
    assert_eq!((tokens.bos, tokens.eos, tokens.pad), (Some(1), vec![2], Some(0)));
    (
        loaded.model,
        read_tensors(&folder.join("expected.safetensors")).unwrap(),
    )
}

fn ids(stored: &Stored) -> Tensor<2, Int> {
    let values: Vec<i64> = stored.values.iter().map(|id| *id as i64).collect();
    Tensor::from_data(TensorData::new(values, stored.shape.clone()), &Device::flex())
}

fn values(logits: Tensor<3>) -> Vec<f32> {
    logits.into_data().convert::<f32>().iter().collect()
}

/// Largest difference, at tokens that are no padding.
fn difference(ours: &[f32], theirs: &Stored, layout: &Layout) -> f32 {
    let vocab = theirs.shape[2];
    assert_eq!(ours.len(), theirs.values.len());
    assert!(ours.iter().all(|value| value.is_finite()));
    let rows = ours
        .chunks_exact(vocab)
        .zip(theirs.values.chunks_exact(vocab))
        .zip(layout.real());
    rows.filter(|(_, real)| *real)
        .flat_map(|((ours, theirs), _)| ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()))
        .fold(0.0, f32::max)
}

/// Logits of `ids`, the first `start` columns at once, then one at a time, from a cache that is read in blocks.
fn with_cache(model: &Decoder, ids: Tensor<2, Int>, start: usize, lengths: &[usize], block: usize) -> Vec<f32> {
    let [rows, tokens] = ids.dims();
    let mut cache = Cache::in_blocks(model.config().layers.len(), 4, block);
    let mut parts = Vec::new();
    let first = Layout::padded(lengths, start, Side::Left);
    parts.push(model.hidden(ids.clone().narrow(1, 0, start), &first, Some(&mut cache)));
    for column in start..tokens {
        let step = Layout::dense(rows, 1);
        parts.push(model.hidden(ids.clone().narrow(1, column, 1), &step, Some(&mut cache)));
    }
    assert_eq!(cache.tokens(), tokens);
    values(model.logits(Tensor::cat(parts, 1)))
}

fn agrees(name: &str) {
    let (model, expected) = load(name);
    let tokens = expected["ids"].shape[1];
    let layouts = [
        ("", Layout::dense(2, tokens)),
        ("left_", Layout::padded(&[tokens, SHORT], tokens, Side::Left)),
        ("right_", Layout::padded(&[tokens, SHORT], tokens, Side::Right)),
        ("long_", Layout::dense(1, expected["long_ids"].shape[1])),
    ];
    for (kind, layout) in &layouts {
        let ours = model.logits(model.hidden(ids(&expected[&format!("{kind}ids")]), layout, None));
        let furthest = difference(&values(ours), &expected[&format!("{kind}logits")], layout);
        assert!(furthest < 1e-4, "{name} {kind}: {furthest}");
    }
    for block in [1, 5] {
        for start in [1, 6] {
            let ours = with_cache(&model, ids(&expected["ids"]), start, &[start, start], block);
            let furthest = difference(&ours, &expected["kept_logits"], &layouts[0].1);
            assert!(
                furthest < 1e-4,
                "{name} with a cache from {start} on, {block}: {furthest}"
            );
        }
        let ours = with_cache(&model, ids(&expected["left_ids"]), 6, &[6, 2], block);
        let furthest = difference(&ours, &expected["left_logits"], &layouts[1].1);
        assert!(furthest < 1e-4, "{name} with a cache and padding, {block}: {furthest}");
    }
}

#[test]
fn llama() {
    agrees("llama");
    agrees("llama_bias");
}

#[test]
fn llama_3_in_shards_and_dynamic_scaling() {
    agrees("llama3");
    agrees("llama_dynamic");
}

#[test]
fn mistral() {
    agrees("mistral");
}

#[test]
fn qwen() {
    agrees("qwen2");
    agrees("qwen3");
}

#[test]
fn smollm3() {
    agrees("smollm3");
}

#[test]
fn gemma() {
    agrees("gemma2");
    agrees("gemma3");
}

#[test]
fn phi3() {
    agrees("phi3");
    agrees("phi3_long");
}

#[test]
fn gpt2() {
    agrees("gpt2");
}

/// The fields of published config.json files that our reading depends on, with some that it must not stumble over.
fn published(name: &str) -> Value {
    let llama2 = json!({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008,
        "max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
        "pretraining_tp": 1, "rms_norm_eps": 1e-5, "rope_scaling": null, "tie_word_embeddings": false,
        "torch_dtype": "float16", "transformers_version": "4.31.0.dev0", "use_cache": true, "vocab_size": 32000});
    let changes = match name {
        "Llama-2-7B" => json!({}),
        "Llama-3-8B" => json!({"intermediate_size": 14336, "num_key_value_heads": 8, "rope_theta": 500000.0,
            "vocab_size": 128256, "attention_bias": false, "attention_dropout": 0.0}),
        "Llama-3.2-1B" => json!({"head_dim": 64, "hidden_size": 2048, "intermediate_size": 8192, "mlp_bias": false,
            "num_hidden_layers": 16, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": true,
            "rope_theta": 500000.0, "eos_token_id": [128001, 128008], "rope_scaling": {"factor": 32.0,
                "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
                "rope_type": "llama3"}}),
        "Mistral-7B" => json!({"model_type": "mistral", "intermediate_size": 14336, "num_key_value_heads": 8,
            "sliding_window": 4096, "rope_theta": 10000.0}),
        "Qwen2.5-0.5B" => json!({"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
            "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2, "vocab_size": 151936,
            "tie_word_embeddings": true, "use_sliding_window": false, "sliding_window": 32768, "max_window_layers": 24,
            "use_mrope": false, "rope_theta": 1000000.0}),
        "Qwen3-0.6B" => json!({"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "head_dim": 128,
            "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "vocab_size": 151936,
            "tie_word_embeddings": true, "use_sliding_window": false, "sliding_window": null, "max_window_layers": 28}),
        "SmolLM2-135M" => json!({"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9,
            "num_hidden_layers": 30, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": true,
            "is_llama_config": true, "rope_interleaved": false, "rope_theta": 100000}),
        "Gemma-2-2B" => {
            json!({"model_type": "gemma2", "attn_logit_softcapping": 50.0, "cache_implementation": "hybrid",
            "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
            "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "intermediate_size": 9216,
            "num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4, "query_pre_attn_scalar": 256,
            "rope_theta": 10000.0, "sliding_window": 4096, "vocab_size": 256000, "tie_word_embeddings": null})
        }
        "Gemma-3-1B" => {
            json!({"model_type": "gemma3_text", "hidden_act": null, "hidden_activation": "gelu_pytorch_tanh",
            "head_dim": 256, "hidden_size": 1152, "intermediate_size": 6912, "num_attention_heads": 4,
            "num_hidden_layers": 26, "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "sliding_window": 512,
            "rope_local_base_freq": 10000, "rope_theta": 1000000, "sliding_window_pattern": 6, "vocab_size": 262144,
            "tie_word_embeddings": null})
        }
        "Phi-3-mini" => {
            json!({"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "vocab_size": 32064,
            "auto_map": {"AutoConfig": "x"}, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "attention_bias": false,
            "original_max_position_embeddings": 4096, "sliding_window": 2047, "pretraining_tp": null})
        }
        _ => json!({"model_type": "gpt2"}),
    };
    let mut config = llama2;
    for (field, value) in changes.as_object().unwrap() {
        config[field] = value.clone();
    }
    match name {
        "GPT-2" => json!({"model_type": "gpt2", "activation_function": "gelu_new", "attn_pdrop": 0.1, "n_ctx": 1024,
            "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "summary_type": "cls_index",
            "task_specific_params": {"text-generation": {"do_sample": true}}, "vocab_size": 50257}),
        _ => config,
    }
}

#[test]
fn published_configs_give_published_parameter_counts() {
    for (name, count) in [
        ("Llama-2-7B", 6_738_415_616usize),
        ("Llama-3-8B", 8_030_261_248),
        ("Llama-3.2-1B", 1_235_814_400),
        ("Mistral-7B", 7_241_732_096),
        ("Qwen2.5-0.5B", 494_032_768),
        ("Qwen3-0.6B", 596_049_920),
        ("SmolLM2-135M", 134_515_008),
        ("Gemma-2-2B", 2_614_341_888),
        ("Gemma-3-1B", 999_885_952),
        ("Phi-3-mini", 3_821_079_552),
        ("GPT-2", 124_439_808),
    ] {
        // Weights are made on first use: nothing of these sizes is ever in memory.
        let config = DecoderConfig::from_hf(&published(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let params = wegeft::site::params(&config.init(&Device::flex()));
        assert_eq!(params.iter().map(|param| param.len()).sum::<usize>(), count, "{name}");
    }
}

#[test]
fn packed_documents_do_not_see_each_other() {
    let (model, expected) = load("gemma3");
    let both = ids(&expected["ids"]).reshape([1, 18]);
    let packed = Layout::packed(&[vec![9, 9]], 18);
    let ours = values(model.logits(model.hidden(both, &packed, None)));
    assert!(
        difference(
            &ours,
            &Stored {
                shape: vec![1, 18, 32],
                values: expected["logits"].values.clone()
            },
            &packed
        ) < 1e-4
    );
}

#[test]
fn rows_of_a_cache_can_be_chosen() {
    let (model, expected) = load("qwen3");
    let all = ids(&expected["ids"]);
    let mut cache = Cache::new(2, 16);
    model.hidden(all.clone().narrow(1, 0, 8), &Layout::dense(2, 8), Some(&mut cache));
    cache.select(&[1, 1, 0]);
    let last = all.narrow(1, 8, 1);
    let last = Tensor::cat(
        vec![
            last.clone().narrow(0, 1, 1),
            last.clone().narrow(0, 1, 1),
            last.narrow(0, 0, 1),
        ],
        0,
    );
    let ours = values(model.logits(model.hidden(last, &Layout::dense(3, 1), Some(&mut cache))));
    let theirs = &expected["logits"].values;
    for (row, from) in [(0, 17), (1, 17), (2, 8)] {
        let pairs = ours[row * 32..][..32].iter().zip(&theirs[from * 32..][..32]);
        assert!(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) < 1e-4, "{row}");
    }
}

#[test]
fn module_names_are_the_checkpoint_s() {
    let (model, _) = load("llama");
    let paths: Vec<String> = wegeft::site::params(&model)
        .into_iter()
        .map(|param| param.path)
        .collect();
    assert!(
        paths.contains(&"model.layers.1.self_attn.q_proj.weight".to_string()),
        "{paths:?}"
    );
    let adapter = wegeft::AdapterConfig::wegeft(4)
        .with_target_modules(["q_proj", "v_proj", "up_proj"])
        .init(model)
        .unwrap();
    assert_eq!(adapter.bank().groups().len(), 3);
}

#[test]
fn half_precision_and_quantized_weights() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"model_type": "llama", "vocab_size": 32, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.2});
    let device = Device::flex();
    device.seed(1);
    let model = DecoderConfig::from_hf(&config).unwrap().init(&device);
    save_lm(&model, &config, dir.path(), Precision::F32).unwrap();
    let tokens = Tensor::<1, Int>::arange(0..8, &device).reshape([1, 8]);
    let logits = |model: &Decoder| values(model.logits(model.hidden(tokens.clone(), &Layout::dense(1, 8), None)));
    let exact = logits(&model);
    let size = exact.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let off = |options: LoadOptions| {
        let loaded = load_lm(dir.path(), &options, &device).unwrap().model;
        let pairs = logits(&loaded).into_iter().zip(exact.clone());
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / size
    };
    let options = |precision, quantize| LoadOptions { precision, quantize };
    assert_eq!(off(LoadOptions::default()), 0.0);
    let found = [
        off(options(Precision::Bf16, None)),
        off(options(Precision::F16, None)),
        off(options(Precision::F32, Some(Quantize::Int8))),
        off(options(Precision::F32, Some(Quantize::Int4))),
    ];
    for (found, limit) in found.into_iter().zip([0.03, 0.005, 0.03, 0.6]) {
        assert!(found > 0.0 && found < limit, "{found} {limit}");
    }
}

/// As on GPUs; weights that are trained are f32 there too.
#[test]
fn activations_may_be_of_another_type_than_the_weights() {
    for name in ["llama", "gemma2", "gpt2", "phi3", "qwen3"] {
        let (model, expected) = load(name);
        let tokens = ids(&expected["ids"]);
        let layout = Layout::dense(2, tokens.dims()[1]);
        let logits = &expected["logits"];
        let largest = logits
            .values
            .iter()
            .fold(0.0f32, |largest, value| largest.max(value.abs()));
        for (dtype, bound) in [(DType::F16, 0.02), (DType::BF16, 0.15)] {
            let model = model.clone().with_activations(dtype);
            let hidden = model.hidden(tokens.clone(), &layout, None);
            assert_eq!(hidden.dtype(), dtype);
            let off = difference(&values(model.logits(hidden)), logits, &layout) / largest;
            assert!(off > 0.0 && off < bound, "{name} {dtype:?}: {off}");
        }
    }
}

#[test]
fn weights_that_are_not_numbers_are_not_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"model_type": "llama", "vocab_size": 32, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 2});
    let model = DecoderConfig::from_hf(&config).unwrap().init(&Device::flex());
    save_lm(&model, &config, dir.path(), Precision::F32).unwrap();
    let file = dir.path().join("model.safetensors");
    let whole = read_tensors(&file).unwrap();
    let name = "model.layers.0.mlp.up_proj.weight";
    // The last is too large for f16.
    for (value, precision) in [
        (f32::NAN, Precision::F32),
        (f32::NEG_INFINITY, Precision::F32),
        (1e6, Precision::F16),
    ] {
        let mut tensors = whole.clone();
        tensors.get_mut(name).unwrap().values[3] = value;
        write_tensors(&file, &tensors).unwrap();
        for quantize in [Some(Quantize::Int8), None] {
            let options = LoadOptions { precision, quantize };
            refused(
                dir.path(),
                &options,
                &["model.safetensors", name, "NaN or infinite", "load it as f32"],
            );
        }
    }
    // The row of a word that nobody uses may hold anything.
    let mut tensors = whole.clone();
    tensors.get_mut("model.embed_tokens.weight").unwrap().values[3] = f32::NAN;
    write_tensors(&file, &tensors).unwrap();
    assert!(load_lm(dir.path(), &LoadOptions::default(), &Device::flex()).is_ok());
}

#[test]
fn every_family_is_written_as_it_was_read() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["gemma2", "phi3", "gpt2"] {
        let (model, _) = load(name);
        let text = std::fs::read_to_string(fixture(name).join("config.json")).unwrap();
        save_lm(
            &model,
            &serde_json::from_str(&text).unwrap(),
            dir.path(),
            Precision::F32,
        )
        .unwrap();
        let ours = read_tensors(&dir.path().join("model.safetensors")).unwrap();
        assert_eq!(ours, read_tensors(&fixture(name).join("model.safetensors")).unwrap());
        // As readable as any other file.
        let permissions = |file: &str| std::fs::metadata(dir.path().join(file)).unwrap().permissions();
        assert_eq!(permissions("model.safetensors"), permissions("config.json"));
    }
}

#[test]
fn quantized_weights_carry_an_adapter_s_gradient() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"model_type": "qwen3", "vocab_size": 32, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16, "initializer_range": 0.2});
    let device = Device::flex().autodiff();
    save_lm(
        &DecoderConfig::from_hf(&config).unwrap().init(&device),
        &config,
        dir.path(),
        Precision::F32,
    )
    .unwrap();
    let options = LoadOptions {
        quantize: Some(Quantize::Int8),
        ..LoadOptions::default()
    };
    let model = load_lm(dir.path(), &options, &device).unwrap().model;
    let adapted = wegeft::AdapterConfig::lora(2)
        .with_target_modules(["q_proj", "down_proj"])
        .init(model)
        .unwrap();
    let tokens = Tensor::<1, Int>::arange(0..8, &device).reshape([1, 8]);
    let bound = adapted.bind();
    let grads = bound
        .logits(bound.hidden(tokens, &Layout::dense(1, 8), None))
        .square()
        .mean()
        .backward();
    let gradient = adapted.bank().factors[0]
        .matrix("b")
        .grad(&grads)
        .unwrap()
        .abs()
        .sum()
        .into_scalar::<f32>();
    assert!(gradient > 0.0);
}

#[test]
fn the_text_part_of_gemma_3_with_images() {
    let dir = copy("gemma3");
    let path = dir.path().join("config.json");
    let text: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let whole = json!({"model_type": "gemma3", "text_config": text, "vision_config": {"image_size": 896},
        "bos_token_id": 1, "eos_token_id": [2, 9], "pad_token_id": 0});
    std::fs::write(&path, whole.to_string()).unwrap();
    let plain = read_tensors(&fixture("gemma3").join("model.safetensors")).unwrap();
    let expected = read_tensors(&fixture("gemma3").join("expected.safetensors")).unwrap();
    for prefix in ["language_model.model.", "model.language_model."] {
        let renamed = plain
            .iter()
            .map(|(name, tensor)| (name.replacen("model.", prefix, 1), tensor.clone()));
        let mut tensors: wegeft::storage::Tensors = renamed.collect();
        let stub = Stored {
            shape: vec![1],
            values: vec![0.0],
        };
        tensors.insert("vision_tower.post_layernorm.weight".into(), stub);
        wegeft::storage::write_tensors(&dir.path().join("model.safetensors"), &tensors).unwrap();
        let loaded = load_lm(dir.path(), &LoadOptions::default(), &Device::flex()).unwrap();
        assert_eq!(loaded.generation.eos, [2, 9]);
        let layout = Layout::dense(2, 9);
        let ours = values(
            loaded
                .model
                .logits(loaded.model.hidden(ids(&expected["ids"]), &layout, None)),
        );
        assert!(difference(&ours, &expected["logits"], &layout) < 1e-4);
    }
}

fn copy(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap().flatten() {
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

fn refused(folder: &Path, options: &LoadOptions, parts: &[&str]) {
    let message = load_lm(folder, options, &Device::flex()).unwrap_err().to_string();
    assert!(
        parts.iter().all(|part| message.contains(part)),
        "{parts:?} not in: {message}"
    );
}

#[test]
fn bad_folders_are_refused_in_one_sentence() {
    let plain = LoadOptions::default();
    let dir = copy("llama3");
    std::fs::remove_file(dir.path().join("model-00002-of-00003.safetensors")).unwrap();
    refused(
        dir.path(),
        &plain,
        &["model-00002-of-00003.safetensors", "missing", "fetch it again"],
    );
    let dir = copy("llama");
    let weights = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 10]).unwrap();
    refused(
        dir.path(),
        &plain,
        &["model.safetensors", "not a complete safetensors file"],
    );
    std::fs::write(&weights, b"abc").unwrap();
    refused(dir.path(), &plain, &["not a complete safetensors file"]);
    std::fs::remove_file(&weights).unwrap();
    refused(dir.path(), &plain, &["model.safetensors", "cannot read"]);
    std::fs::remove_file(dir.path().join("config.json")).unwrap();
    refused(dir.path(), &plain, &["config.json", "cannot read"]);
    let int8 = LoadOptions {
        quantize: Some(Quantize::Int8),
        ..plain
    };
    refused(&fixture("llama"), &int8, &["down_proj", "blocks of 32", "--quantize"]);
}

#[test]
fn what_is_not_implemented_is_refused_by_field() {
    let change = |name: &str, field: &str, value: Value, parts: &[&str]| {
        let dir = with_config(name, |config| config[field] = value);
        refused(dir.path(), &LoadOptions::default(), parts);
    };
    change(
        "llama",
        "model_type",
        json!("mamba"),
        &["config.json", "'model_type' is 'mamba'", "llama"],
    );
    change(
        "llama",
        "quantization_config",
        json!({"bits": 4}),
        &["quantization_config"],
    );
    change(
        "llama",
        "hidden_act",
        json!("xielu"),
        &["'hidden_act' is 'xielu'", "silu"],
    );
    change(
        "llama",
        "rope_scaling",
        json!({"type": "odd"}),
        &["'rope_type' is 'odd'", "yarn"],
    );
    change(
        "llama",
        "num_key_value_heads",
        json!(3),
        &["num_key_value_heads", "3", "4"],
    );
    change(
        "llama",
        "hidden_size",
        json!("wide"),
        &["'hidden_size' is \"wide\"", "whole number"],
    );
    change(
        "llama",
        "vocab_size",
        json!(40),
        &["'vocab_size' is 40", "embed_tokens", "32 rows"],
    );
    change(
        "llama",
        "intermediate_size",
        json!(20),
        &["up_proj", "expected [20, 16]"],
    );
    change("llama", "num_hidden_layers", json!(1), &["unexpected 'model.layers.1"]);
    change("llama", "num_hidden_layers", json!(3), &["missing 'model.layers.2"]);
    change(
        "gemma3",
        "use_bidirectional_attention",
        json!(true),
        &["use_bidirectional_attention"],
    );
    for name in ["llama", "gemma2", "phi3", "gpt2"] {
        change(name, "is_causal", json!(false), &["'is_causal' is false", "true"]);
    }
    change(
        "gemma3",
        "layer_types",
        json!(["full_attention"]),
        &["layer_types", "3 layers"],
    );
    change(
        "phi3",
        "rope_scaling",
        json!({"type": "linear", "factor": 2.0}),
        &["'linear'", "longrope"],
    );
    change(
        "llama",
        "rope_scaling",
        json!({"type": "linear", "factor": 0}),
        &["'factor' is 0"],
    );
    change(
        "llama",
        "rope_parameters",
        json!({"full_attention": {}}),
        &["rope_parameters", "each type of layer"],
    );
}

#[test]
fn sizes_that_no_file_can_fill_are_refused_before_anything_is_built() {
    for field in [
        "num_hidden_layers",
        "head_dim",
        "num_attention_heads",
        "num_key_value_heads",
        "intermediate_size",
        "hidden_size",
        "vocab_size",
    ] {
        for size in [1u64 << 40, 1 << 63, u64::MAX] {
            let dir = with_config("llama", |config| config[field] = json!(size));
            refused(
                dir.path(),
                &LoadOptions::default(),
                &["config.json", field, "expected at most"],
            );
        }
        let dir = with_config("llama", |config| config[field] = json!(1 << 27));
        refused(dir.path(), &LoadOptions::default(), &[]);
    }
    let dir = with_config("llama", |config| config["num_hidden_layers"] = json!(9_999));
    refused(
        dir.path(),
        &LoadOptions::default(),
        &["'num_hidden_layers' is 9999", "tensors"],
    );
    for field in ["n_embd", "n_head", "n_inner", "n_positions", "n_layer"] {
        let dir = with_config("gpt2", |config| config[field] = json!(1u64 << 62));
        refused(
            dir.path(),
            &LoadOptions::default(),
            &["config.json", "expected at most"],
        );
    }
    // More positions than any text has are not wrong.
    let dir = with_config("llama", |config| config["max_position_embeddings"] = json!(1e30));
    assert!(load_lm(dir.path(), &LoadOptions::default(), &Device::flex()).is_ok());
}

#[test]
fn an_index_names_files_of_its_folder() {
    let index = |map: Value, parts: &[&str]| {
        let dir = copy("llama3");
        let path = dir.path().join("model.safetensors.index.json");
        std::fs::write(path, json!({ "weight_map": map }).to_string()).unwrap();
        refused(dir.path(), &LoadOptions::default(), parts);
    };
    index(json!({}), &["index.json", "'weight_map'", "fetch it again"]);
    for name in ["../x", "/etc/passwd", "a/b", "..", ".", "", "c:x"] {
        index(json!({ "a": name }), &["'weight_map' holds", "this folder"]);
    }
    index(json!({"a": 3}), &["'weight_map' holds 3"]);
    index(json!({"a": "other.safetensors"}), &["other.safetensors", "missing"]);
}

#[test]
fn scalars_are_refused_in_one_sentence() {
    let dir = copy("llama");
    let path = dir.path().join("model.safetensors");
    for name in ["lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"] {
        let mut tensors = read_tensors(&fixture("llama").join("model.safetensors")).unwrap();
        let scalar = Stored {
            shape: vec![],
            values: vec![1.0],
        };
        tensors.insert(name.into(), scalar);
        wegeft::storage::write_tensors(&path, &tensors).unwrap();
        refused(dir.path(), &LoadOptions::default(), &[name, "[]"]);
    }
}

#[test]
fn what_a_model_was_wrapped_in_is_taken_away() {
    let ids = || Tensor::<2, Int>::from_ints([[1, 2, 3, 4]], &Device::flex());
    let logits = |model: &Decoder| values(model.logits(model.hidden(ids(), &Layout::dense(1, 4), None)));
    for name in ["llama", "gpt2", "qwen3", "gemma3"] {
        let expected = logits(&load(name).0);
        let tensors = read_tensors(&fixture(name).join("model.safetensors")).unwrap();
        for prefix in [
            "module.",
            "model.",
            "transformer.",
            "base_model.model.",
            "state_dict.net.",
            "_orig_mod.module.",
        ] {
            let dir = copy(name);
            let renamed = tensors
                .iter()
                .map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone()));
            wegeft::storage::write_tensors(&dir.path().join("model.safetensors"), &renamed.collect()).unwrap();
            let loaded = load_lm(dir.path(), &LoadOptions::default(), &Device::flex());
            let loaded = loaded.unwrap_or_else(|e| panic!("{name} {prefix}: {e}"));
            assert_eq!(logits(&loaded.model), expected, "{name} {prefix}");
        }
    }
}

#[test]
fn a_pointer_of_git_lfs_is_named() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 12\n";
    for name in ["config.json", "model.safetensors"] {
        let dir = copy("llama");
        std::fs::write(dir.path().join(name), pointer).unwrap();
        refused(dir.path(), &LoadOptions::default(), &[name, "git lfs pull"]);
    }
}

#[test]
fn an_adapter_that_is_not_merged_is_named() {
    let dir = copy("llama");
    let tensors = read_tensors(&fixture("llama").join("model.safetensors")).unwrap();
    let renamed = tensors
        .into_iter()
        .map(|(name, tensor)| match name.strip_suffix("q_proj.weight") {
            Some(layer) => (format!("base_model.model.{layer}q_proj.base_layer.weight"), tensor),
            None => (format!("base_model.model.{name}"), tensor),
        });
    wegeft::storage::write_tensors(&dir.path().join("model.safetensors"), &renamed.collect()).unwrap();
    refused(
        dir.path(),
        &LoadOptions::default(),
        &["q_proj.base_layer.weight", "merge_and_unload"],
    );
}

#[test]
fn a_tied_head_is_untied_where_an_adapter_trains_it_or_the_embedding_alone() {
    let device = Device::flex().autodiff();
    let load = || {
        load_lm(&fixture("qwen3"), &LoadOptions::default(), &device)
            .unwrap()
            .model
    };
    for (targets, saved, tied) in [
        (vec!["lm_head"], vec![], false),
        (vec!["embed_tokens", "q_proj"], vec![], false),
        (vec!["q_proj"], vec!["embed_tokens"], false),
        (vec!["q_proj"], vec![], true),
    ] {
        let config = wegeft::AdapterConfig::lora(2)
            .with_target_modules(targets)
            .with_modules_to_save(saved);
        let model = for_adapter(load().with_vocabulary(35), &config).unwrap();
        assert_eq!(model.config().tied, tied);
        let adapted = config.init(model).unwrap();
        let bound = adapted.bind();
        let ids = Tensor::<2, Int>::from_ints([[1, 2, 34]], &device);
        let logits = bound.logits(bound.hidden(ids, &Layout::dense(1, 3), None));
        assert_eq!(logits.dims(), [1, 3, 35]);
        let grads = burn::optim::GradientsParams::from_grads(logits.powi_scalar(2).mean().backward(), &adapted);
        assert!(!grads.is_empty());
    }
}

/// The config of the Llama with weights in PyTorch's own format.
fn pickled(name: &str) -> tempfile::TempDir {
    let dir = copy("llama");
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    for entry in std::fs::read_dir(fixture("../pickled").join(name)).unwrap().flatten() {
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

#[test]
fn files_in_pytorch_s_own_format_are_read_whole_and_in_shards() {
    let (model, expected) = load("llama");
    let read = |model: &Decoder| {
        let ids = ids(&expected["ids"]);
        let [rows, tokens] = ids.dims();
        values(model.logits(model.hidden(ids, &Layout::dense(rows, tokens), None)))
    };
    for name in ["llama", "llama_legacy"] {
        let dir = pickled(name);
        let loaded = load_lm(dir.path(), &LoadOptions::default(), &Device::flex()).unwrap();
        assert_eq!(read(&loaded.model), read(&model), "{name}");
    }
}

#[test]
fn damaged_files_in_pytorch_s_own_format_are_refused_in_one_sentence() {
    let dir = pickled("llama_legacy");
    let path = dir.path().join("pytorch_model.bin");
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 1, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        refused(dir.path(), &LoadOptions::default(), &["pytorch_model.bin"]);
    }
    // A pickle that would run a command.
    std::fs::write(&path, b"cos\nsystem\n(S'true'\ntR.").unwrap();
    refused(dir.path(), &LoadOptions::default(), &["pytorch_model.bin"]);
    let dir = pickled("llama");
    std::fs::remove_file(dir.path().join("pytorch_model-00002-of-00002.bin")).unwrap();
    let parts = ["pytorch_model-00002-of-00002.bin", "missing"];
    refused(dir.path(), &LoadOptions::default(), &parts);
}

#[test]
fn what_this_model_does_not_read_is_ignored_and_named() {
    let read = |name: &str, change: fn(&mut Value)| {
        let dir = with_config(name, change);
        load_lm(dir.path(), &LoadOptions::default(), &Device::flex())
            .unwrap()
            .notes
    };
    assert_eq!(read("llama", |_| ()), Vec::<String>::new());
    let notes = read("llama", |config| {
        config["sliding_window"] = json!(7);
        config["lm_head_bias"] = json!(true);
        config["rope_scaling"] = json!({"type": "yarn", "factor": 2.0, "finetuned": true});
    });
    assert_eq!(notes.len(), 1);
    for field in ["sliding_window", "lm_head_bias", "rope_parameters.finetuned"] {
        assert!(notes[0].contains(field), "{}", notes[0]);
    }
}

#[test]
fn a_head_of_its_own_is_not_tied_whatever_the_config_says() {
    let logits = |folder: &Path| {
        let loaded = load_lm(folder, &LoadOptions::default(), &Device::flex()).unwrap();
        let expected = read_tensors(&fixture("llama").join("expected.safetensors")).unwrap();
        let hidden = loaded.model.hidden(ids(&expected["ids"]), &Layout::dense(2, 9), None);
        let ours = values(loaded.model.logits(hidden));
        (difference(&ours, &expected["logits"], &Layout::dense(2, 9)), loaded)
    };
    let tied = |config: &mut Value| config["tie_word_embeddings"] = json!(true);
    let dir = with_config("llama", tied);
    let (furthest, loaded) = logits(dir.path());
    assert!(furthest < 1e-4 && !loaded.model.config().tied);
    assert!(loaded.notes[0].contains("not tied"), "{:?}", loaded.notes);
    let written = tempfile::tempdir().unwrap();
    let said = json!({"model_type": "llama", "tie_word_embeddings": true, "vocab_size": 32, "hidden_size": 16,
        "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2});
    save_lm(&loaded.model, &said, written.path(), Precision::F32).unwrap();
    let again = std::fs::read_to_string(written.path().join("config.json")).unwrap();
    let again: Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again["tie_word_embeddings"], json!(false));
    // The same twice is tied; and a tied model may have either of the two.
    let path = dir.path().join("model.safetensors");
    let mut tensors = read_tensors(&path).unwrap();
    tensors.insert("model.embed_tokens.weight".into(), tensors["lm_head.weight"].clone());
    wegeft::storage::write_tensors(&path, &tensors).unwrap();
    let (with_both, loaded) = logits(dir.path());
    assert!(loaded.model.config().tied && loaded.notes.is_empty());
    tensors.remove("model.embed_tokens.weight");
    wegeft::storage::write_tensors(&path, &tensors).unwrap();
    assert_eq!(logits(dir.path()).0, with_both);
}

/// Frequencies that depend on a text's length depend on its own, in a batch and in a packed row.
#[test]
fn a_text_s_rotation_does_not_depend_on_its_neighbours() {
    for name in ["phi3_long", "llama_dynamic"] {
        let (model, expected) = load(name);
        let long = ids(&expected["long_ids"]);
        let short = ids(&expected["ids"]).narrow(0, 0, 1);
        let logits = |ids: Tensor<2, Int>, layout: &Layout| values(model.logits(model.hidden(ids, layout, None)));
        let (alone, long_alone) = (
            logits(short.clone(), &Layout::dense(1, 9)),
            logits(long.clone(), &Layout::dense(1, 20)),
        );
        let zeros = Tensor::zeros([1, 11], &Device::flex());
        let padded = Tensor::cat(vec![long.clone(), Tensor::cat(vec![short.clone(), zeros], 1)], 0);
        let batch = logits(padded, &Layout::padded(&[20, 9], 20, Side::Right));
        let packed = logits(Tensor::cat(vec![short, long], 1), &Layout::packed(&[vec![9, 20]], 29));
        let expected = [&alone[..], &long_alone[..]].concat();
        for (ours, theirs) in [
            (&batch[20 * 32..29 * 32], &alone[..]),
            (&batch[..20 * 32], &long_alone[..]),
            (&packed[..], &expected[..]),
        ] {
            let furthest = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(ours.len() == theirs.len() && furthest < 1e-4, "{name}: {furthest}");
        }
    }
}

#[test]
fn a_vocabulary_grows_and_shrinks() {
    for name in ["gpt2", "llama"] {
        let (model, expected) = load(name);
        let ids = ids(&expected["ids"]);
        let logits = |model: &Decoder| model.logits(model.hidden(ids.clone(), &Layout::dense(2, 9), None));
        let grown = model.clone().with_vocabulary(35);
        assert_eq!(grown.config().vocab_size, 35);
        let all = logits(&grown);
        assert_eq!(all.dims(), [2, 9, 35]);
        assert_eq!(values(all.clone().narrow(2, 32, 3)), [0.0; 2 * 9 * 3]);
        assert_eq!(values(all.narrow(2, 0, 32)), values(logits(&model)), "{name}");
        // Written, its config.json says so.
        let dir = tempfile::tempdir().unwrap();
        let config = std::fs::read_to_string(fixture(name).join("config.json")).unwrap();
        let config = serde_json::from_str(&config).unwrap();
        save_lm(&grown, &config, dir.path(), Precision::F32).unwrap();
        let again = load_lm(dir.path(), &LoadOptions::default(), &Device::flex())
            .unwrap()
            .model;
        assert_eq!(values(logits(&again)), values(logits(&grown)), "{name}");
        assert_eq!(
            values(logits(&grown.with_vocabulary(32))),
            values(logits(&model)),
            "{name}"
        );
    }
}

fn with_config(name: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let dir = copy(name);
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(&path, config.to_string()).unwrap();
    dir
}
