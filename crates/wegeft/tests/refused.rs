//! What a fresh adapter would ignore, or could not do, is refused by name.

use std::sync::Arc;

use burn::module::{Initializer, Module, Param};
use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use serde_json::{Map, Value};
use wegeft::storage::Stored;
use wegeft::{
    Adapted, AdapterConfig, AdapterError, AdapterFiles, Adapters, Edit, Factors, Fused, Group, Hook, Method,
    PrefixTuningConfig, PromptTuningConfig, Spec, TargetField, TokenHook, TokenIndices, TrainableTokensConfig,
};

const D: usize = 6;

#[derive(Module, Debug)]
struct Block {
    qkv: Linear,
    norm: LayerNorm,
    experts: Param<Tensor<3>>,
    output: Hook,
}

#[derive(Module, Debug)]
struct Net {
    embed: Embedding,
    conv: Conv1d,
    bare: Param<Tensor<2>>,
    prompt: TokenHook,
    prefix: TokenHook,
    layers: Vec<Block>,
    head: Linear,
}

fn net() -> Net {
    let device = &Device::flex();
    let block = |_| Block {
        qkv: LinearConfig::new(D, 3 * D).init(device),
        norm: burn::nn::LayerNormConfig::new(D).init(device),
        experts: Initializer::Ones.init([2, D, D], device),
        output: Hook::new(D, device),
    };
    Net {
        embed: EmbeddingConfig::new(11, D).init(device),
        conv: Conv1dConfig::new(3, 6, 3).init(device),
        bare: Initializer::Ones.init([D, D], device),
        prompt: TokenHook::new(D, device),
        prefix: TokenHook::new(D, device),
        layers: (0..2).map(block).collect(),
        head: LinearConfig::new(D, 3).init(device),
    }
}

fn message<T: std::fmt::Debug>(result: Result<T, AdapterError>) -> String {
    result.unwrap_err().to_string()
}

fn lora(names: &[&str]) -> AdapterConfig {
    AdapterConfig::lora(2).with_target_modules(names.to_vec())
}

fn fused(module: &str, adapt: &[&str]) -> Fused {
    Fused::qkv(module, adapt.iter().copied())
}

#[test]
fn fields_that_a_method_does_not_read_are_refused() {
    let probing = || AdapterConfig::linear_probing().with_modules_to_save(["head"]);
    let prompt = || AdapterConfig::new(PromptTuningConfig::new(2));
    let prefix = || AdapterConfig::new(PrefixTuningConfig::new(2));
    let (bitfit, norm) = (AdapterConfig::bitfit, AdapterConfig::layer_norm);
    let reft = || AdapterConfig::loreft(2);
    for whole in [AdapterConfig::full(), probing(), prompt(), prefix()] {
        let set: [(&str, AdapterConfig); 5] = [
            ("target_modules", whole.clone().with_target_modules(["qkv"])),
            ("exclude_modules", whole.clone().with_exclude_modules(["head"])),
            ("layers_to_transform", whole.clone().with_layers_to_transform([0])),
            ("target_parameters", whole.clone().with_target_parameters(["experts"])),
            ("fused", whole.clone().with_fused(fused("qkv", &["q"]))),
        ];
        for (field, config) in set {
            let said = message(config.init(net()));
            assert!(said.contains(field), "{said}");
            assert!(
                said.contains(config.method.name()) || field == "target_modules",
                "{said}"
            );
        }
        whole.init(net()).unwrap();
    }
    for some in [bitfit(), norm(), reft()] {
        let set = [
            ("target_parameters", some.clone().with_target_parameters(["experts"])),
            ("fused", some.clone().with_fused(fused("qkv", &["q"]))),
        ];
        for (field, config) in set {
            let said = message(config.init(net()));
            assert!(said.contains(field) && said.contains(config.method.name()), "{said}");
        }
        some.with_layers_to_transform([1]).init(net()).unwrap();
    }
}

/// A method of a user's own that reads one field of the targets.
#[derive(Debug)]
struct Gain;

impl Method for Gain {
    fn name(&self) -> &'static str {
        "GAIN"
    }

    fn settings(&self) -> Map<String, Value> {
        Map::new()
    }

    fn reads(&self) -> &'static [TargetField] {
        &[TargetField::TargetModules]
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        vec![Spec::new("gain", "gain", [group.site().d_out])]
    }

    fn bind(&self, _group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        Arc::new(BoundGain(factors.vector("gain")))
    }
}

#[derive(Debug)]
struct BoundGain(Tensor<1>);

impl Edit for BoundGain {
    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        weight * self.0.clone().unsqueeze::<2>()
    }
}

#[test]
fn fields_that_a_method_of_a_user_does_not_read_are_refused() {
    let gain = || AdapterConfig::new(Gain).with_target_modules(["qkv"]);
    gain().init(net()).unwrap();
    for (field, config) in [
        (
            TargetField::ExcludeModules,
            gain().with_exclude_modules(["layers.0.qkv"]),
        ),
        (TargetField::LayersToTransform, gain().with_layers_to_transform([0])),
        (TargetField::Fused, gain().with_fused(fused("qkv", &["q"]))),
    ] {
        let said = message(config.init(net()));
        assert!(said.contains(field.name()) && said.contains("GAIN"), "{said}");
    }
}

#[test]
fn target_parameters_are_limited_by_no_other_field() {
    let experts = || AdapterConfig::lora(2).with_target_parameters(["experts"]);
    experts().init(net()).unwrap();
    for (field, config) in [
        ("exclude_modules", experts().with_exclude_modules(["layers.0.experts"])),
        ("exclude_modules", experts().with_exclude_modules(["layers.0.exprets"])),
        ("layers_to_transform", experts().with_layers_to_transform([1])),
    ] {
        let said = message(config.init(net()));
        assert!(said.contains(field) && said.contains("target_parameters"), "{said}");
    }
    let said = message(experts().with_modules_to_save(["layers.0.experts"]).init(net()));
    assert!(
        said.contains("layers.0.experts") && said.contains("modules_to_save"),
        "{said}"
    );
    // As in PEFT, such a file loads, and the field has no effect.
    let adapted = experts().init(net()).unwrap();
    let files = adapted.files().with_field("layers_to_transform", 1.into());
    assert_eq!(files.attach(net()).unwrap().bank().groups().len(), 2);
}

#[test]
fn what_is_trained_in_full_is_not_adapted_too() {
    let rows = || TokenIndices::All(vec![1]);
    let config = lora(&["qkv"]).with_trainable_tokens(rows());
    let said = message(config.with_modules_to_save(["embed"]).init(net()));
    assert!(
        said.contains("embed.weight") && said.contains("modules_to_save"),
        "{said}"
    );
    let said = message(AdapterConfig::full().with_trainable_tokens(rows()).init(net()));
    assert!(said.contains("embed.weight") && said.contains("FULL"), "{said}");
}

#[test]
fn an_adapter_that_trains_nothing_is_refused() {
    let said = message(AdapterConfig::linear_probing().init(net()));
    assert!(
        said.contains("LINEAR would train nothing") && said.contains("modules_to_save"),
        "{said}"
    );
    let rows = AdapterConfig::linear_probing().with_trainable_tokens(TokenIndices::All(vec![1]));
    rows.init(net()).unwrap();
    let files = AdapterConfig::linear_probing().with_modules_to_save(["head"]);
    let files = files.init(net()).unwrap().files();
    let weights = files.tensors().keys().cloned().collect::<Vec<_>>();
    let empty = files
        .without(&weights)
        .with_field("modules_to_save", serde_json::json!([]));
    assert!(empty.attach(net()).is_ok(), "a file may hold nothing");
}

#[test]
fn blocks_are_those_of_one_linear_weight() {
    let bare = "layers.0.qkv";
    let of_blocks = |names: [&str; 3], widths: &[usize]| Fused {
        blocks: names.map(String::from).to_vec(),
        widths: widths.to_vec(),
        ..fused("qkv", &["q"])
    };
    for (config, parts) in [
        (
            lora(&["qkv"])
                .with_fused(fused("qkv", &["q"]))
                .with_fused(fused(bare, &["v"])),
            &["'layers.0.qkv' is named by two entries"][..],
        ),
        (lora(&["qkv"]).with_fused(fused("qkv", &[])), &["'qkv' adapts no block"]),
        (
            lora(&["bare"]).with_fused(fused("bare", &["q"])),
            &["'bare' is a parameter outside a linear layer"],
        ),
        (
            lora(&["conv"]).with_fused(fused("conv", &["q"])),
            &["'conv.weight' is the kernel of a convolution"],
        ),
        (
            lora(&["embed"]).with_fused(fused("embed", &["q"])),
            &["'embed.weight' is an embedding"],
        ),
        (
            lora(&["head"]).with_fused(fused("qkv", &["q"])),
            &["'qkv' is not among the target_modules"],
        ),
        (
            lora(&["qkv"]).with_fused(of_blocks(["q", "q", "v"], &[])),
            &["two of its blocks are called 'q'"],
        ),
        (
            lora(&["qkv"]).with_fused(fused("qkv", &["q", "q"])),
            &["names its block 'q' twice"],
        ),
        (
            lora(&["qkv"]).with_fused(of_blocks(["q", "k", "v"], &[0, 2 * D, D])),
            &["its block 'q' has no columns"],
        ),
    ] {
        let said = message(config.init(net()));
        for part in parts {
            assert!(
                said.contains("field 'fused'") && said.contains(part),
                "{said} lacks {part}"
            );
        }
    }
}

/// What PEFT writes for a convolution, up to the shapes of the factors.
fn lokr_of_a_convolution() -> AdapterFiles {
    let fields = serde_json::json!({ "peft_type": "LOKR", "r": 2, "alpha": 2, "target_modules": ["conv"] });
    let stored = Stored {
        shape: vec![3, 3],
        values: vec![0.0; 9],
    };
    let tensors = [("base_model.model.conv.lokr_w1".to_string(), stored)];
    AdapterFiles::new(fields.as_object().unwrap().clone(), tensors.into())
}

#[test]
fn messages_name_what_was_given() {
    let mut grouped = wegeft::WegeftConfig::new(2);
    grouped.sharing = wegeft::Sharing::Groups(vec![".*qkv".into(), ".*qkw".into()]);
    let grouped = AdapterConfig::new(grouped).with_target_modules(["qkv"]);
    let excluding = lora(&["qkv"]).with_exclude_modules(["layers.0.qkv"]);
    let adapted = |config: AdapterConfig| -> Adapted<Net> { config.init(net()).unwrap() };
    let mut biased = wegeft::LoraConfig::new(2);
    biased.lora_bias = true;
    let biased = adapted(AdapterConfig::new(biased).with_target_modules(["qkv"]));
    for (said, parts) in [
        // No pattern that nobody gave.
        (
            message(
                AdapterConfig::bitfit()
                    .with_exclude_modules(["head", "qkv", "norm"])
                    .init(net()),
            ),
            &["every place", "exclude_modules"][..],
        ),
        (
            message(AdapterConfig::loreft(2).with_exclude_modules(["output"]).init(net())),
            &["every place", "exclude_modules"],
        ),
        (
            message(AdapterConfig::houlsby(2).init(net())),
            &["no wegeft::Hook named 'attn_out'", "its hooks: layers.*.output"],
        ),
        (
            message(AdapterConfig::lora(2).with_target_parameters(["head.bias"]).init(net())),
            &["from pattern 'head.bias'"],
        ),
        // Every field that leaves out a match.
        (
            message(excluding.with_layers_to_transform([0]).init(net())),
            &["exclude_modules or layers_to_transform"],
        ),
        (
            message(grouped.init(net())),
            &["sharing: '.*qkw' matches nothing", "layers.*.qkv"],
        ),
        (
            message(
                AdapterConfig::new(TrainableTokensConfig::new([11]))
                    .with_target_modules(["embed"])
                    .init(net()),
            ),
            &["field 'token_indices'", "no row 11"],
        ),
        // LoRA that standard LoRA cannot hold.
        (
            message(biased.low_rank()),
            &["LORA", "layers.0.qkv", "edits the bias of 'layers.0.qkv'"],
        ),
        (
            message(adapted(lora(&["conv"])).low_rank()),
            &["LORA", "'conv", "convolution", "save"],
        ),
        // A layer without a bias has none that could be edited.
        (
            message(adapted(AdapterConfig::ia3([""; 0]).with_target_modules(["embed"])).low_rank()),
            &["IA3", "the residual of 'embed.weight' is not a low-rank product"],
        ),
        (
            message(adapted(AdapterConfig::ia3([""; 0]).with_target_modules(["bare"])).low_rank()),
            &["IA3", "the residual of 'bare' is not a low-rank product"],
        ),
        // A file's sizes come after the kind of a weight.
        (
            message(lokr_of_a_convolution().attach(net())),
            &["LOKR cannot adapt 'conv.weight', which is the kernel of a convolution"],
        ),
        (
            message(Adapters::new(net()).bind_rows(&[])),
            &["bind_rows was given no names"],
        ),
        (
            message(adapted(AdapterConfig::lora(2).with_target_parameters(["experts"])).low_rank()),
            &["LORA", "experts", "save"],
        ),
    ] {
        for part in parts {
            assert!(said.contains(part), "{said} lacks {part}");
        }
    }
}

#[test]
fn hira_has_no_scale_that_a_pattern_could_set() {
    let mut hira = wegeft::HiraConfig::new(2);
    hira.patterns.alpha_pattern.insert("qkv".into(), 3.0);
    let config = AdapterConfig::new(hira).with_target_modules(["qkv"]);
    let said = message(config.init(net()));
    assert!(said.contains("alpha_pattern") && said.contains("HiRA"), "{said}");
    // A file may have it.
    let config = AdapterConfig::new(wegeft::HiraConfig::new(2)).with_target_modules(["qkv"]);
    let files = config.init(net()).unwrap().files();
    assert!(
        files
            .with_field("alpha_pattern", serde_json::json!({"qkv": 3}))
            .attach(net())
            .is_ok()
    );
}

#[test]
fn a_config_is_the_same_as_text_and_in_a_folder() {
    let text = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["qkv"], "task_type": "CAUSAL_LM"}"#;
    let config: AdapterConfig = serde_json::from_str(text).unwrap();
    assert_eq!(config.extra["task_type"], "CAUSAL_LM");
    let again: AdapterConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
    let unsupported = text.replace(r#""r": 2"#, r#""r": 2, "use_qalora": true"#);
    let said = serde_json::from_str::<AdapterConfig>(&unsupported)
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("'use_qalora'") && said.contains("not implemented"),
        "{said}"
    );
}

#[test]
fn a_misspelled_field_of_a_file_is_told() {
    let files = lora(&["qkv"]).init(net()).unwrap().files();
    assert!(files.clone().attach(net()).unwrap().warnings().is_empty());
    let files = files.with_field("exclude_module", serde_json::json!(["layers.0.qkv"]));
    let warnings = files.attach(net()).unwrap().warnings().join(" ");
    assert!(
        warnings.contains("'exclude_module'") && warnings.contains("'exclude_modules'"),
        "{warnings}"
    );
}
