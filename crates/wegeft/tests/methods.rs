//! What users see of the methods on a small model: targets, messages, configs, counts. The laws that every method keeps
//! are tested beside it.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use proptest::prelude::*;
use wegeft::methods::lora_init::LoraInit;
use wegeft::methods::reft::Positions;
use wegeft::{
    Adapted, AdapterConfig, AdapterError, Hook, LoraConfig, ReftConfig, Sharing, TokenHook, WegeftConfig, linear,
};

#[path = "../src/methods/laws/net.rs"]
mod net;

use net::{Net, close, input, stir};

#[test]
fn loading_names_every_mismatch() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let config = |r| AdapterConfig::wegeft(r).with_target_modules(["proj"]);
    config(2)
        .init(Net::new(8, 2, &device))
        .unwrap()
        .save(folder.path())
        .unwrap();
    let error = config(3)
        .with_target_modules(["proj", "up"])
        .init(Net::new(8, 2, &device))
        .unwrap();
    let message = error.load_weights(folder.path()).unwrap_err().to_string();
    for part in [
        "proj.wegeft_phi.weight' has shape [2, 8], expected [3, 8]",
        "missing",
        "up.wegeft_psi",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn truncated_and_foreign_files_are_errors() {
    let device = Device::flex();
    let net = Net::new(8, 1, &device);
    let folder = tempfile::tempdir().unwrap();
    let config = AdapterConfig::lora(2).with_target_modules(["proj"]);
    config.init(net.clone()).unwrap().save(folder.path()).unwrap();
    let weights = folder.path().join(wegeft::storage::WEIGHTS_FILE);
    let whole = std::fs::read(&weights).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(&weights, &whole[..cut]).unwrap();
        assert!(matches!(
            config.init(net.clone()).unwrap().load_weights(folder.path()),
            Err(AdapterError::File { .. })
        ));
    }
    std::fs::write(
        folder.path().join(wegeft::storage::CONFIG_FILE),
        "{\"peft_type\": \"MAGIC\"}",
    )
    .unwrap();
    let message = wegeft::read_config(folder.path()).unwrap_err().to_string();
    assert!(
        message.contains("MAGIC") && message.contains("adapter_config.json"),
        "{message}"
    );
}

#[test]
fn bad_configs_are_named() {
    let device = Device::flex();
    let message = |config: AdapterConfig| config.init(Net::new(8, 2, &device)).unwrap_err().to_string();
    let wegeft = |r| AdapterConfig::wegeft(r);
    assert!(message(wegeft(2).with_target_modules(["proi"])).contains("'proi' matches nothing"));
    assert!(message(wegeft(2).with_target_modules(["proi"])).contains("blocks.*.proj"));
    assert!(message(wegeft(2).with_target_modules(["norm"])).contains("rank-2"));
    assert!(message(wegeft(9).with_target_modules(["proj"])).contains("choose 1 to 8"));
    assert!(message(wegeft(0).with_target_modules(["proj"])).contains("r = 0"));
    assert!(message(wegeft(2).with_target_regex("(")).contains("regular expression"));
    assert!(
        message(
            wegeft(2)
                .with_target_modules(["proj"])
                .with_modules_to_save(["classifier"])
        )
        .contains("'classifier'")
    );
    let all = AdapterConfig::new(WegeftConfig::new(2).with_sharing(Sharing::All));
    assert!(message(all.with_target_modules(["proj", "down"])).contains("d_in = 16"));
    let groups = Sharing::Groups(vec!["proj".into()]);
    let never = AdapterConfig::new(WegeftConfig::new(2).with_sharing(groups));
    assert!(message(never.with_target_modules(["proj"])).contains("is in no group"));
}

#[test]
fn targets_follow_peft() {
    let device = Device::flex();
    let sites = |config: AdapterConfig| -> Vec<String> {
        let adapted = config.init(Net::new(8, 3, &device)).unwrap();
        adapted
            .bank()
            .groups()
            .iter()
            .flat_map(|g| g.sites.iter().map(|s| s.path.clone()))
            .collect()
    };
    let proj = || AdapterConfig::lora(1).with_target_modules(["proj"]);
    assert_eq!(sites(proj()).len(), 3);
    assert_eq!(sites(proj().with_layers_to_transform([1])), ["blocks.1.proj.weight"]);
    assert_eq!(sites(proj().with_exclude_modules(["blocks.0.proj"])).len(), 2);
    assert_eq!(
        sites(AdapterConfig::lora(1).with_target_regex(r"blocks\.[02]\.(up|down)")).len(),
        4
    );
}

#[test]
fn bad_settings_of_the_methods_are_named() {
    let device = Device::flex();
    let message = |config: AdapterConfig| config.init(Net::new(8, 2, &device)).unwrap_err().to_string();
    let lora = |config| message(AdapterConfig::new(config).with_target_modules(["proj"]));
    assert!(lora(LoraConfig::new(2).with_dropout(1.0)).contains("lora_dropout"));
    assert!(lora(LoraConfig::new(2).with_loraplus_lr_ratio(0.0)).contains("loraplus_lr_ratio"));
    assert!(lora(LoraConfig::new(2).with_alpha(0.0).with_init(LoraInit::Olora)).contains("lora_alpha"));
    // With a scale of 0 nothing could be learned.
    assert!(lora(LoraConfig::new(2).with_alpha(0.0)).contains("field 'lora_alpha'"));
    let zero = WegeftConfig::new(2).with_alpha(0.0);
    assert!(message(AdapterConfig::new(zero).with_target_modules(["proj"])).contains("field 'alpha'"));
    let mut some = LoraConfig::new(2);
    some.patterns.alpha_pattern = [("blocks.1.proj".to_string(), 0.0)].into_iter().collect();
    let some = lora(some);
    assert!(
        some.contains("field 'alpha_pattern'") && some.contains("'blocks.1.proj'"),
        "{some}"
    );
    assert!(message(AdapterConfig::lora(2)).contains("target_modules"));
    assert!(message(AdapterConfig::vera(0).with_target_modules(["proj"])).contains("'r'"));
    assert!(message(AdapterConfig::ia3(["down"]).with_target_modules(["proj"])).contains("feedforward_modules"));
    assert!(message(AdapterConfig::loreft(9)).contains("choose 1 to 8"));
    let none = ReftConfig::loreft(2).with_position(Positions::Ends { first: 0, last: 0 });
    assert!(message(AdapterConfig::new(none)).contains("position"));
    assert!(message(AdapterConfig::vpt(0, true)).contains("num_virtual_tokens"));
    assert!(message(AdapterConfig::houlsby(0)).contains("bottleneck_size"));
    assert!(message(AdapterConfig::vpt(1, true).with_target_modules(["inputs"])).contains("blocks.*.input"));
    let broken = Net::new(8, 2, &device).map(&mut Break);
    let pissa = LoraConfig::new(2).with_init(LoraInit::Pissa);
    let pissa = AdapterConfig::new(pissa).with_target_modules(["proj"]);
    assert!(
        pissa
            .init(broken)
            .unwrap_err()
            .to_string()
            .contains("blocks.0.proj.weight")
    );
}

struct Break;

impl burn::module::ModuleMapper for Break {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.mul_scalar(f32::NAN))
    }
}

#[test]
fn methods_of_adapter_config_json() {
    let parsed = |text: &str| serde_json::from_str::<AdapterConfig>(text);
    let lora = parsed(r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "init_lora_weights": "pissa_niter_16"}"#);
    let lora = lora.unwrap();
    let lora = lora.settings::<LoraConfig>().expect("it is LoRA");
    assert_eq!(lora.init, LoraInit::PissaNiter(16));
    let error = parsed(r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "init_lora_weights": "loftq"}"#).unwrap_err();
    assert!(error.to_string().contains("init_lora_weights"), "{error}");
    let endless = r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "init_lora_weights": "pissa_niter_999999999"}"#;
    assert!(parsed(endless).unwrap_err().to_string().contains("N up to 100"));
    // What no file can hold is not initialized either.
    let init = |iterations: usize| {
        let lora = LoraConfig::new(2).with_init(LoraInit::PissaNiter(iterations));
        let config = AdapterConfig::new(lora).with_target_modules(["proj"]);
        config.init(Net::new(8, 1, &Device::flex()))
    };
    assert!(init(100).is_ok());
    let error = init(101).unwrap_err().to_string();
    assert!(
        error.contains("init_lora_weights") && error.contains("at most 100"),
        "{error}"
    );
    let reft = |position: &str| {
        parsed(&format!(
            r#"{{"peft_type": "REFT", "r": 4, "intervention": "loreft", "position": "{position}", "share_weights": true}}"#
        ))
    };
    let f5 = reft("f5").unwrap();
    let f5 = f5.settings::<ReftConfig>().expect("it is ReFT");
    assert_eq!(f5.position, Positions::Ends { first: 5, last: 0 });
    assert!(reft("middle").unwrap_err().to_string().contains("position"));
}

#[test]
fn summary_counts() {
    let device = Device::flex();
    let summary = AdapterConfig::wegeft(2)
        .with_target_modules(["proj", "up"])
        .with_modules_to_save(["head"])
        .init(Net::new(8, 3, &device))
        .unwrap()
        .summary();
    assert_eq!(summary.adapter_params, 2 * (2 * 8 * 2));
    assert_eq!(summary.saved_params, 8 * 3 + 3);
    assert_eq!(summary.groups.len(), 2);
    assert_eq!(summary.groups[0].sites.len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_shape_rank_and_grouping(d in 1usize..12, depth in 1usize..4, r in 1usize..12, sharing in 0usize..3, lora: bool) {
        let device = Device::flex().autodiff();
        let r = r.min(d);
        let sharing = [Sharing::Kind, Sharing::All, Sharing::Site][sharing].clone();
        let config = if lora { AdapterConfig::lora(r) } else {
            AdapterConfig::new(WegeftConfig::new(r).with_sharing(sharing))
        };
        let config = config.with_target_modules(["proj", "up"]);
        let adapted = stir(config.init(Net::new(d, depth, &device)).unwrap(), d, 2, &device);
        let x = input(d, &device);
        close(adapted.bind().forward(x.clone(), true), adapted.merge().unwrap().forward(x, false), 1e-3);
    }
}
