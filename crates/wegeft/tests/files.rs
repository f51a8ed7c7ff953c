//! The two readers of adapter files on damaged, foreign and hostile input: an error, never a panic, and never more
//! memory than the file is large times a small constant. And what else is counted in bytes: `bind`, and a recurrent model's
//! training step.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, Lstm, LstmConfig};
use burn::tensor::{Device, Int, Tensor};
use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use serde_json::{Value, json};
use wegeft::methods::lora_init::LoraInit;
use wegeft::storage::{CONFIG_FILE, WEIGHTS_FILE, read_tensors};
use wegeft::{
    AdaLoraConfig, Adapted, AdapterConfig, AdapterError, BoftConfig, HiraConfig, Hook, LohaConfig, LokrConfig,
    LoraConfig, MissConfig, OftConfig, Side, TokenHook, WegeftConfig, embedding, linear, read_config,
};

#[allow(dead_code)] // what other tests do with it
#[path = "../src/methods/laws/net.rs"]
mod net;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The allocator counts for the whole process: each test of this file runs alone.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(burn::module::Module, Debug)]
struct Model {
    proj: Linear,
}

fn model() -> Model {
    Model {
        proj: LinearConfig::new(4, 4).init(&Device::flex()),
    }
}

/// Peak memory of `work` above what was in use before, bytes.
fn peak(work: impl FnOnce()) -> usize {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    work();
    MEMORY.peak_usage().saturating_sub(before)
}

fn tensors_of(bytes: &[u8]) -> Result<wegeft::storage::Tensors, AdapterError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(WEIGHTS_FILE);
    std::fs::write(&path, bytes).unwrap();
    read_tensors(&path)
}

fn config_of(text: impl AsRef<[u8]>) -> Result<AdapterConfig, AdapterError> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(CONFIG_FILE), text).unwrap();
    read_config(dir.path())
}

/// A safetensors file with that header and that many bytes of data.
fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn saved(config: &AdapterConfig, folder: &Path) -> (Vec<u8>, Value) {
    config.init(model()).unwrap().save(folder).unwrap();
    let weights = std::fs::read(folder.join(WEIGHTS_FILE)).unwrap();
    let text = std::fs::read_to_string(folder.join(CONFIG_FILE)).unwrap();
    (weights, serde_json::from_str(&text).unwrap())
}

fn configs() -> [AdapterConfig; 2] {
    [AdapterConfig::wegeft(2), AdapterConfig::lora(2)].map(|config| config.with_target_modules(["proj"]))
}

#[test]
fn a_file_cut_at_any_byte_is_an_error() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    for config in configs() {
        let (weights, json) = saved(&config, dir.path());
        assert!(tensors_of(&weights).is_ok());
        for cut in 0..weights.len() {
            assert!(tensors_of(&weights[..cut]).is_err(), "cut at {cut}");
        }
        let text = json.to_string();
        assert_eq!(config_of(&text).unwrap(), config);
        for cut in 0..text.len() {
            assert!(config_of(&text[..cut]).is_err(), "cut at {cut}");
        }
    }
}

#[test]
fn headers_that_lie_are_errors_and_cost_nothing() {
    let _alone = alone();
    let one = |dtype: &str, shape: &str, end: usize| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}"#)
    };
    let mut files = vec![
        safetensors(&one("F32", "[4611686018427387904,4]", 16), 16),
        safetensors(&one("F32", "[18446744073709551615]", 16), 16),
        safetensors(&one("F32", "[1000000000000]", 4), 4),
        safetensors(&one("F32", "[4]", 16), 0),
        safetensors(&one("F32", "[4]", 12), 16),
        safetensors(&one("I64", "[2]", 16), 16),
        safetensors(&one("F8_E4M3", "[16]", 16), 16),
        safetensors(&one("F31", "[4]", 16), 16),
        // Two tensors of one name, and two over the same bytes.
        safetensors(
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            8,
        ),
        safetensors(
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
            4,
        ),
        safetensors(&format!("{}{}", "[".repeat(50_000), "]".repeat(50_000)), 0),
    ];
    for length in [u64::MAX, 1 << 62, 1 << 40, 99_999_999, 3] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(b"{}  ");
        files.push(bytes);
    }
    for bytes in files {
        let mut failed = false;
        let used = peak(|| failed = tensors_of(&bytes).is_err());
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        assert!(failed, "{start}");
        assert!(
            used < 16 * bytes.len() + 200_000,
            "{used} bytes for a file of {}: {start}",
            bytes.len()
        );
    }
}

#[test]
fn memory_is_a_small_multiple_of_the_file() {
    let _alone = alone();
    let count = 1_000_000;
    let header = |dtype: &str, end: usize| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":[{count}],"data_offsets":[0,{end}]}}}}"#)
    };
    for (dtype, size) in [("F32", 4), ("F16", 2), ("BF16", 2)] {
        let bytes = safetensors(&header(dtype, size * count), size * count);
        let used = peak(|| assert_eq!(tensors_of(&bytes).unwrap()["a"].values.len(), count));
        assert!(
            used <= 5 * bytes.len(),
            "{dtype}: {used} bytes for a file of {}",
            bytes.len()
        );
    }
    // Many tensors of nothing, and a shape of many ones: the header is all that there is.
    let many = |i: usize| format!(r#""{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#);
    let many: Vec<String> = (0..5000).map(many).collect();
    let files = [
        safetensors(&format!("{{{}}}", many.join(",")), 0),
        safetensors(&one_by_one(100_000), 4),
    ];
    for bytes in files {
        let used = peak(|| drop(tensors_of(&bytes)));
        assert!(used <= 40 * bytes.len(), "{used} bytes for a header of {}", bytes.len());
    }
    // A JSON value takes 72 bytes, a number and a comma two; hence the limit on a config's size, beyond which it is
    // refused unread.
    let text = format!(
        r#"{{"peft_type":"LORA","r":2,"lora_alpha":2,"x":[{}0]}}"#,
        "0,".repeat(300_000)
    );
    let used = peak(|| drop(config_of(&text)));
    assert!(used <= 150 * text.len(), "{used} bytes for a config of {}", text.len());
    let text = " ".repeat(4 << 20);
    let used = peak(|| assert!(config_of(&text).unwrap_err().to_string().contains("4194304 bytes")));
    assert!(used < 200_000, "{used}");
}

/// A tensor that `bind` computed would be in proportion to the width of the layers, some 4 kB at each of six sites; handles are not.
#[test]
fn binding_computes_no_tensor_whatever_the_method() {
    let _alone = alone();
    let device = Device::flex().autodiff();
    let matrices = |config: AdapterConfig| config.with_target_modules(["proj", "up", "down"]);
    let lora = |lora: LoraConfig| matrices(AdapterConfig::new(lora));
    let configs = [
        matrices(AdapterConfig::wegeft(4)),
        matrices(AdapterConfig::lora(4)),
        matrices(AdapterConfig::dora(4)),
        lora(LoraConfig::new(4).with_init(LoraInit::Pissa)),
        lora(LoraConfig::new(4).with_lora_bias(true)),
        matrices(AdapterConfig::vera(4)),
        matrices(AdapterConfig::ia3(["down"])),
        matrices(AdapterConfig::new(AdaLoraConfig::new(4, 2, 10))),
        matrices(AdapterConfig::new(LohaConfig::new(4))),
        matrices(AdapterConfig::new(LokrConfig::new(4))),
        matrices(AdapterConfig::new(OftConfig::new(4))),
        matrices(AdapterConfig::new(BoftConfig::new(4, 2))),
        matrices(AdapterConfig::new(MissConfig::new(4))),
        matrices(AdapterConfig::new(HiraConfig::new(4))),
        AdapterConfig::bitfit(),
        AdapterConfig::layer_norm(),
        AdapterConfig::loreft(4),
        AdapterConfig::direft(4),
        AdapterConfig::houlsby(4),
        AdapterConfig::vpt(4, true),
        AdapterConfig::prompt_tuning(4),
        AdapterConfig::prefix_tuning(4),
    ];
    for config in configs {
        let [narrow, wide] = [32, 256].map(|d| {
            let adapted = config.init(net::Net::new(d, 2, &device)).unwrap();
            drop(adapted.bind());
            peak(|| drop(adapted.bind()))
        });
        assert!(
            wide < narrow + 4096,
            "{config:?}: {wide} bytes, {narrow} with narrow layers"
        );
    }
}

/// A recurrent model reads each weight at every time step. Its adapter composes the weight once, and each read is the same tensor:
/// with a view for each read, the gradients of the views would be as many dense matrices as there are steps.
#[test]
fn a_recurrent_model_takes_the_memory_of_full_training_at_most() {
    let _alone = alone();
    let device = Device::flex().autodiff();
    let (d, tokens) = (32, 64);
    let model = LstmConfig::new(d, d, true).init(&device);
    let x = Tensor::<3>::ones([2, tokens, d], &device);
    let step = |model: &Lstm| {
        let loss = model.forward(x.clone(), None).0.powi_scalar(2).mean();
        drop(loss.backward());
    };
    step(&model);
    let full = peak(|| step(&model));
    for config in [AdapterConfig::wegeft(2), AdapterConfig::lora(2)] {
        let config = config.with_target_modules(["input_transform", "hidden_transform"]);
        let adapted = config.init(model.clone()).unwrap();
        let used = peak(|| step(&adapted.bind()));
        // The composed weights and what they are made of; a gradient for each read would be this for each token.
        let weights = 8 * d * d * size_of::<f32>();
        assert!(
            used < full + tokens * weights / 4,
            "{used} bytes; full training takes {full}"
        );
    }
}

/// Rows are looked up: neither the edited table nor a gradient of its size is formed.
#[test]
fn an_embedding_adapter_never_forms_the_table() {
    #[derive(burn::module::Module, Debug)]
    struct Words {
        embed: Embedding,
    }
    let _alone = alone();
    let device = Device::flex().autodiff();
    let (vocabulary, d) = (20_000, 256);
    let model = Words {
        embed: EmbeddingConfig::new(vocabulary, d).init(&device),
    };
    let ids = || Tensor::<1, Int>::from_ints([1, 7, 7, 0, 19_999, 12, 3, 4], &device).reshape([2, 4]);
    let output = WegeftConfig::new(2).with_side(Side::Output);
    for config in [
        AdapterConfig::lora(2),
        AdapterConfig::wegeft(2),
        AdapterConfig::new(output),
        AdapterConfig::vera(2),
        AdapterConfig::ia3([""; 0]),
        AdapterConfig::ia3(["embed"]),
    ] {
        let config = config.with_target_modules(["embed"]);
        let adapted = config.init(model.clone()).unwrap();
        let step = || drop(embedding(&adapted.bind().embed, ids()).powi_scalar(2).mean().backward());
        step();
        let (used, table) = (peak(step), vocabulary * d * size_of::<f32>());
        assert!(used < table / 4, "{config:?}: {used} bytes beside a table of {table}");
    }
}

fn one_by_one(ones: usize) -> String {
    let shape = vec!["1"; ones].join(",");
    format!(r#"{{"a":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,4]}}}}"#)
}

#[test]
fn hostile_json_is_an_error_with_the_file_in_it() {
    let _alone = alone();
    let lora = r#""peft_type":"LORA","lora_alpha":2,"target_modules":["proj"]"#;
    for text in [
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        "\u{0}".to_string(),
        "null".to_string(),
        "3".to_string(),
        format!(r#"{{{lora},"r":1e400}}"#),
        format!(r#"{{{lora},"r":-1}}"#),
        format!(r#"{{{lora},"r":18446744073709551616}}"#),
        format!(r#"{{{lora},"r":2,"r":3}}"#),
        format!(r#"{{{lora},"r":2,"rank_pattern":{{"a":1,"a":2}}}}"#),
        format!(r#"{{{lora},"r":2,"use_qalora":true}}"#),
    ] {
        let error = config_of(&text).unwrap_err().to_string();
        assert!(error.contains(CONFIG_FILE), "{error}");
    }
    assert!(
        config_of(format!(r#"{{{lora},"r":2,"r":3}}"#))
            .unwrap_err()
            .to_string()
            .contains("'r' is given twice")
    );
    assert!(config_of([0xff, 0xfe, b'{', b'}']).is_err());
}

/// Any value, most of them wrong for the field they land in.
fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(0)),
        ".{0,12}".prop_map(Value::from),
        prop::collection::vec(".{0,6}", 0..3).prop_map(Value::from),
        Just(json!([[1, {"a": []}], "("])),
        Just(json!({"proj": 0, "(": 3})),
        Just(json!({"block": "mlp", "depth": u64::MAX})),
        Just(json!({"block": "paca", "clusters": u64::MAX / 2})),
        Just(json!([{"module": "proj", "blocks": ["q", "k"], "widths": [u64::MAX, 5], "adapt": ["q"]}])),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_bytes_are_errors(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _alone = alone();
        prop_assert!(tensors_of(&bytes).is_err());
        prop_assert!(config_of(&bytes).is_err());
    }

    #[test]
    fn a_damaged_weights_file_never_panics(at in 0usize..2000, byte: u8, lora: bool) {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let config = &configs()[usize::from(lora)];
        let (mut weights, _) = saved(config, dir.path());
        let at = at % weights.len();
        weights[at] = byte;
        std::fs::write(dir.path().join(WEIGHTS_FILE), &weights).unwrap();
        let _ = config.init(model()).unwrap().load_weights(dir.path());
    }

    #[test]
    fn a_config_with_one_field_changed_never_panics(field in 0usize..64, value in values(), lora: bool) {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let (_, mut json) = saved(&configs()[usize::from(lora)], dir.path());
        let mut names: Vec<String> = json.as_object().unwrap().keys().cloned().collect();
        names.extend(["fused", "tied_modules", "transform_dim", "wegeft_alpha", "use_dora", "generator"].map(String::from));
        json[&names[field % names.len()]] = value;
        if let Ok(config) = config_of(json.to_string()) {
            let _ = config.init(model());
        }
    }
}

/// A folder as the WeGeFT fork of PEFT writes it, with `fields` on top.
fn fork_folder(folder: &Path, fields: Value, tensors: wegeft::storage::Tensors) {
    let mut config = json!({
        "peft_type": "WEGEFT", "r": 2, "wegeft_alpha": 4, "wegeft_dropout": null, "transform_dim": "input",
        "tied_modules": null, "init_wegeft_weights": true, "target_modules": ["proj"], "bias": "none",
        "fan_in_fan_out": false, "task_type": "CAUSAL_LM", "base_model_name_or_path": "some/model",
    });
    for (name, value) in fields.as_object().unwrap() {
        config[name] = value.clone();
    }
    std::fs::write(folder.join(CONFIG_FILE), config.to_string()).unwrap();
    wegeft::storage::write_tensors(&folder.join(WEIGHTS_FILE), &tensors).unwrap();
}

#[test]
fn the_fork_s_layout_is_read_and_written() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let key = |name: &str| format!("base_model.model.proj.{name}");
    let stored = |shape: &[usize], values: &[f32]| wegeft::storage::Stored {
        shape: shape.to_vec(),
        values: values.to_vec(),
    };
    let (phi, psi) = (
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
        [0.5, -1.0, 2.0, 0.0, 1.0, 3.0, -2.0, 1.5],
    );
    let phi_t: Vec<f32> = (0..4).flat_map(|row| [phi[row], phi[4 + row]]).collect();
    // The fork's own, and a file with bare names and phi as the formula has it.
    let fork = [
        (key("wegeft_phi.weight"), stored(&[2, 4], &phi)),
        (key("wegeft_psi.weight"), stored(&[2, 4], &psi)),
    ];
    let bare = [
        (key("wegeft_phi"), stored(&[4, 2], &phi_t)),
        (key("wegeft_psi"), stored(&[2, 4], &psi)),
    ];
    for tensors in [fork, bare] {
        fork_folder(dir.path(), json!({}), tensors.clone().into());
        let config = read_config(dir.path()).unwrap();
        let settings = config.settings::<wegeft::WegeftConfig>().expect("it is WeGeFT");
        assert_eq!(
            (settings.r, settings.alpha, settings.sharing.clone()),
            (2, 4.0, wegeft::Sharing::Site)
        );
        assert_eq!(settings.zero_factor, wegeft::ZeroFactor::Phi);
        assert_eq!(config.extra["base_model_name_or_path"], "some/model");
        let adapted = config.init(model()).unwrap().load_weights(dir.path()).unwrap();
        let low = adapted.low_rank().unwrap().remove("proj").unwrap();
        assert_eq!((low.scale, low.a.dims()), (2.0, [2, 4]));
        assert_eq!(low.a.into_data().iter::<f32>().collect::<Vec<_>>(), psi);
        let phi_here = adapted.bank().factors[0].matrix("phi");
        assert_eq!(phi_here.into_data().iter::<f32>().collect::<Vec<_>>(), phi_t);
        // What is written again has the fork's names, orientation and fields.
        let again = tempfile::tempdir().unwrap();
        adapted.save(again.path()).unwrap();
        let written = read_tensors(&again.path().join(WEIGHTS_FILE)).unwrap();
        assert_eq!(written[&key("wegeft_phi.weight")], stored(&[2, 4], &phi));
        let text = std::fs::read_to_string(again.path().join(CONFIG_FILE)).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&json["wegeft_alpha"], &json["transform_dim"]),
            (&json!(4.0), &json!({ "proj": "input" }))
        );
        assert_eq!(json["task_type"], "CAUSAL_LM");
        assert_eq!(read_config(again.path()).unwrap(), config);
    }
    let read = |fields: Value| {
        fork_folder(dir.path(), fields, Default::default());
        read_config(dir.path())
    };
    let tied = read(json!({ "tied_modules": [["p", "q"]] })).unwrap();
    assert_eq!(tied.init(model()).unwrap().bank().groups()[0].name, "(?:p|q).*");
    // A file's biases are loaded, and not trained.
    let biased = read(json!({ "bias": "wegeft_only" })).unwrap();
    assert!(biased.init(model()).unwrap_err().to_string().contains("'bias'"));
    let output = read(json!({ "transform_dim": { "proj": "output" } })).unwrap();
    let output = output.settings::<wegeft::WegeftConfig>();
    assert!(output.is_some_and(|config| config.side == wegeft::Side::Output));
    for (fields, part) in [
        (
            json!({ "transform_dim": { "proj": "output", "up": "input" } }),
            "transform_dim",
        ),
        (json!({ "transform_dim": "sideways" }), "transform_dim"),
        (json!({ "tied_modules": 3 }), "tied_modules"),
    ] {
        let error = read(fields).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

/// Writes the folder of `config` with `fields` on top and the names of its tensors changed by `rename`.
fn folder_of(folder: &Path, config: &AdapterConfig, fields: Value, rename: impl Fn(&str) -> String) {
    let (_, mut json) = saved(config, folder);
    for (name, value) in fields.as_object().unwrap() {
        json[name] = value.clone();
    }
    std::fs::write(folder.join(CONFIG_FILE), json.to_string()).unwrap();
    let path = folder.join(WEIGHTS_FILE);
    let tensors = read_tensors(&path).unwrap().into_iter();
    let tensors = tensors.map(|(name, stored)| (rename(&name), stored)).collect();
    wegeft::storage::write_tensors(&path, &tensors).unwrap();
}

#[test]
fn an_adapter_with_elements_that_are_not_numbers_is_not_loaded() {
    let _alone = alone();
    for value in [f32::NAN, f32::INFINITY] {
        let dir = tempfile::tempdir().unwrap();
        saved(&AdapterConfig::lora(2).with_target_modules(["proj"]), dir.path());
        let path = dir.path().join(WEIGHTS_FILE);
        let mut tensors = read_tensors(&path).unwrap();
        tensors.values_mut().next().unwrap().values[1] = value;
        wegeft::storage::write_tensors(&path, &tensors).unwrap();
        let error = wegeft::Adapted::load(model(), dir.path()).map(drop).unwrap_err();
        let error = error.to_string();
        for part in [WEIGHTS_FILE, "proj.lora_A.weight' has NaN or infinite elements"] {
            assert!(error.contains(part), "{error}");
        }
    }
}

/// As of two folders whose files were mixed, and after a flipped bit.
#[test]
fn weights_are_refused_with_a_config_that_they_were_not_saved_with() {
    let _alone = alone();
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let lora = |alpha: f64| AdapterConfig::new(LoraConfig::new(2).with_alpha(alpha)).with_target_modules(["proj"]);
    let (_, json) = saved(&lora(8.0), old.path());
    saved(&lora(2.0), new.path());
    let load = |folder: &Path| wegeft::Adapted::load(model(), folder).map(drop);
    let refused = |folder: &Path, part: &str| {
        let read = read_config(folder).map(drop);
        for error in [read, load(folder)].map(Result::unwrap_err) {
            let error = error.to_string();
            assert!(error.contains(CONFIG_FILE) && error.contains(part), "{error}");
        }
    };
    load(new.path()).unwrap();
    std::fs::copy(old.path().join(CONFIG_FILE), new.path().join(CONFIG_FILE)).unwrap();
    refused(new.path(), "field 'lora_alpha' is 8.0");
    let bytes = |folder: &Path, name: &str| std::fs::read(folder.join(name)).unwrap();
    let (config, weights) = (bytes(new.path(), CONFIG_FILE), bytes(new.path(), WEIGHTS_FILE));
    assert!(wegeft::AdapterFiles::from_bytes(&config, &weights).is_err());
    as_of_peft(&new.path().join(WEIGHTS_FILE));
    load(new.path()).unwrap();

    let edited = |name: &str, value: Value| {
        let mut json = json.clone();
        json[name] = value;
        std::fs::write(old.path().join(CONFIG_FILE), json.to_string()).unwrap();
    };
    edited("lora_alpha", json!(9.0));
    refused(old.path(), "saved with 8.0");
    for (name, value) in [
        ("base_model_name_or_path", json!("moved/model")),
        ("lora_dropout", json!(0.25)),
        ("peft_version", json!("0.21")),
    ] {
        edited(name, value);
        load(old.path()).unwrap();
    }
}

#[test]
fn keys_of_a_running_peft_model_are_read() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let config = AdapterConfig::dora(2).with_target_modules(["proj"]);
    let default = |name: &str| match name.strip_suffix(".weight") {
        Some(stem) => format!("{stem}.default.weight"),
        None => format!("{name}.default.weight"),
    };
    let magnitude = |name: &str| name.replace("lora_magnitude_vector", "lora_magnitude_vector.weight");
    let renames: [&dyn Fn(&str) -> String; 2] = [&default, &magnitude];
    for rename in renames {
        folder_of(dir.path(), &config, json!({}), rename);
        let written = read_tensors(&dir.path().join(WEIGHTS_FILE)).unwrap();
        let loaded = wegeft::Adapted::load(model(), dir.path()).unwrap();
        let again = tempfile::tempdir().unwrap();
        loaded.save(again.path()).unwrap();
        let again = read_tensors(&again.path().join(WEIGHTS_FILE)).unwrap();
        let again = again.into_iter().map(|(name, stored)| (rename(&name), stored));
        assert_eq!(written, again.collect());
    }
    let surplus = |name: &str| name.replace("lora_A.weight", "lora_A.other.weight");
    folder_of(dir.path(), &config, json!({}), surplus);
    let error = wegeft::Adapted::load(model(), dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("unexpected") && error.contains("lora_A.other.weight"),
        "{error}"
    );
}

#[test]
fn the_first_pattern_of_the_file_that_matches_counts() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let scale = |patterns: &str| {
        let config = AdapterConfig::lora(2).with_target_modules(["proj"]);
        folder_of(dir.path(), &config, json!({}), str::to_string);
        let text = std::fs::read_to_string(dir.path().join(CONFIG_FILE)).unwrap();
        let fields: Value = serde_json::from_str(&text).unwrap();
        let mut fields = fields.as_object().unwrap().clone();
        fields.insert("alpha_pattern".into(), serde_json::from_str(patterns).unwrap());
        std::fs::write(dir.path().join(CONFIG_FILE), serde_json::to_string(&fields).unwrap()).unwrap();
        let loaded = wegeft::Adapted::load(model(), dir.path()).unwrap();
        let scale = loaded.bank().groups()[0].scale;
        loaded.save(dir.path()).unwrap();
        let again = wegeft::Adapted::load(model(), dir.path()).unwrap();
        assert_eq!(again.bank().groups()[0].scale, scale);
        scale
    };
    assert_eq!(scale(r#"{"proj": 32, "[p]roj": 4}"#), 16.0);
    assert_eq!(scale(r#"{"[p]roj": 4, "proj": 32}"#), 2.0);
    assert_eq!(scale(r#"{"proj": 32, ".*roj": 4}"#), 16.0);
    assert_eq!(scale(r#"{".*roj": 4, "proj": 32}"#), 2.0);
}

#[derive(burn::module::Module, Debug)]
struct Network {
    layers: Vec<Model>,
    lm_head: Linear,
}

fn network() -> Network {
    Network {
        layers: vec![model(), model()],
        lm_head: model().proj,
    }
}

/// Writes the weights again without the settings that they were saved with, which PEFT does not note.
fn as_of_peft(weights: &Path) {
    wegeft::storage::write_tensors(weights, &read_tensors(weights).unwrap()).unwrap();
}

/// The groups of the adapter in a folder whose config has `fields` and whose tensors are those of `modules`.
fn loaded_groups(fields: Value, modules: &[&str]) -> Result<Vec<String>, AdapterError> {
    let dir = tempfile::tempdir().unwrap();
    let config = AdapterConfig::lora(2).with_target_modules(modules.to_vec());
    config.init(network()).unwrap().save(dir.path()).unwrap();
    let path = dir.path().join(CONFIG_FILE);
    let mut json: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for (name, value) in fields.as_object().unwrap() {
        json[name] = value.clone();
    }
    std::fs::write(&path, json.to_string()).unwrap();
    as_of_peft(&dir.path().join(WEIGHTS_FILE));
    let loaded = wegeft::Adapted::load(network(), dir.path())?;
    Ok(loaded.bank().groups().iter().map(|group| group.name.clone()).collect())
}

#[test]
fn a_loaded_config_names_modules_as_in_peft() {
    let _alone = alone();
    let (both, second) = (["layers.0.proj", "layers.1.proj"], ["layers.1.proj"]);
    let cases: [(Value, &[&str]); 8] = [
        (json!({ "target_modules": "all-linear" }), &both),
        (
            json!({ "target_modules": "all-linear", "exclude_modules": r".*\.0\..*" }),
            &second,
        ),
        (
            json!({ "target_modules": ["proj"], "exclude_modules": r"layers\.(?!1\b).*" }),
            &second,
        ),
        (json!({ "target_modules": r"(?!.*lm_head).*(?<=j)" }), &both),
        (json!({ "target_modules": ["query_key_value", "proj"] }), &both),
        (
            json!({ "target_modules": ["proj"], "modules_to_save": ["classifier", "score"] }),
            &both,
        ),
        (
            json!({ "target_modules": ["proj"], "exclude_modules": ["vision"] }),
            &both,
        ),
        (
            json!({ "target_modules": ["layers.0.proj", "layers.1.proj"], "exclude_modules": ["layers.0.proj"] }),
            &second,
        ),
    ];
    for (fields, expected) in cases {
        assert_eq!(loaded_groups(fields.clone(), expected).unwrap(), expected, "{fields}");
    }
    let error = loaded_groups(json!({ "target_modules": ["query", "key"] }), &both).unwrap_err();
    assert!(error.to_string().contains("'query' matches nothing"), "{error}");
    let fresh = AdapterConfig::lora(2)
        .with_target_modules(["query", "proj"])
        .init(network());
    assert!(fresh.unwrap_err().to_string().contains("'query' matches nothing"));
    // A pattern with look-around beside one without.
    let patterns = json!({ "target_modules": ["proj"], "alpha_pattern": { r"0\.(?=p)proj": 4, "[p]roj": 8 } });
    assert_eq!(loaded_groups(patterns, &both).unwrap(), both);
}

#[test]
fn settings_that_matter_for_the_start_are_read_and_start_nothing() {
    let _alone = alone();
    for fields in [
        json!({ "bias": "all" }),
        json!({ "bias": "lora_only" }),
        json!({ "init_lora_weights": "orthogonal" }),
        json!({ "init_lora_weights": "eva", "eva_config": { "rho": 2.0 } }),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let config = AdapterConfig::lora(2).with_target_modules(["proj"]);
        folder_of(dir.path(), &config, fields.clone(), str::to_string);
        wegeft::Adapted::load(model(), dir.path()).unwrap();
        let config = read_config(dir.path()).unwrap();
        let field = fields.as_object().unwrap().keys().next().unwrap();
        let error = config.init(model()).unwrap_err().to_string();
        assert!(error.contains(field.as_str()), "{error}");
        // Trained biases that nothing here takes.
        let bias = |name: &str| name.replace("lora_B.weight", "base_layer.bias");
        folder_of(
            dir.path(),
            &AdapterConfig::lora(2).with_target_modules(["proj"]),
            fields,
            bias,
        );
        let error = config.load(model(), dir.path()).unwrap_err().to_string();
        assert!(error.contains("base_layer.bias"), "{error}");
    }
}
