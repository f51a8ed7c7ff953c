//! From a method's name and settings to an adapter.

use std::sync::Arc;

use backbones::VitConfig;
use wegeft::methods::adalora::AdaLoraConfig;
use wegeft::{AdapterConfig, PrefixTuningConfig, PromptTuningConfig, VptConfig};

use super::places;
use super::settings::{Adapter, NONE, OwnSettings, Wing};
use super::table::{Values, find, names, reads_flag};

/// The adapter of method `name` for a model whose config.json has this `model_type` (images need none); a classifier's head
/// is trained in full by all methods.
///
/// # Errors
/// An unknown method.
pub fn adapter(
    all: &Adapter,
    own: &OwnSettings,
    name: &str,
    wing: Wing,
    model_type: &str,
) -> Result<AdapterConfig, String> {
    let found = find(name);
    let Some(entry) = found.filter(|entry| entry.works_on(wing)) else {
        let none = (wing != Wing::Vision).then_some(NONE);
        let names: Vec<&str> = none.into_iter().chain(names(wing)).collect();
        let what = match found {
            Some(_) => format!("has no place in {}", wing.models()),
            None => "is unknown".into(),
        };
        return Err(format!("method '{name}' {what}; choose among {}", names.join(", ")));
    };
    let own = own.get(name).cloned().unwrap_or_default();
    let targets = own.target_modules.clone();
    let config = (entry.make)(&Values {
        all,
        own,
        wing,
        model_type,
    });
    // The other methods choose their target modules themselves.
    let targets = targets.or_else(|| reads_flag(name, "target_modules").then(|| all.target_modules.clone()));
    let config = match targets {
        Some(targets) if wing == Wing::Language => config.with_target_modules(places::of_family(model_type, targets)),
        Some(targets) => config.with_target_modules(targets),
        None => config,
    };
    Ok(match wing {
        Wing::Vision => config.with_modules_to_save(["head"]),
        // The name of a text classifier's head depends on the model.
        Wing::Language | Wing::Text => config,
    })
}

/// `config` with the settings that depend on the backbone: prompt tokens are inserted between its leading tokens and
/// its patches, and are initialized according to its patch size.
pub fn fitted(mut config: AdapterConfig, backbone: &VitConfig) -> AdapterConfig {
    if let Some(vpt) = config.settings::<VptConfig>() {
        let vpt = vpt.clone().with_prefix_tokens(backbone.prefix_tokens());
        config.method = Arc::new(vpt.with_patch_size(backbone.patch_size));
    }
    config
}

/// Tokens that the adapter adds to each sequence: prompts, or the keys and values of a prefix.
pub fn virtual_tokens(config: &AdapterConfig) -> usize {
    let vpt = config.settings::<VptConfig>().map(|own| own.num_virtual_tokens);
    let prompts = config.settings::<PromptTuningConfig>();
    let prefix = config.settings::<PrefixTuningConfig>();
    let of_language = prompts.map(|own| own.num_virtual_tokens);
    let found = vpt.or(of_language).or(prefix.map(|own| own.num_virtual_tokens));
    found.unwrap_or(0)
}

/// `config` of a method, with the settings that depend on the number of training steps.
///
/// # Errors
/// Settings that need more steps.
pub fn scheduled(
    mut config: AdapterConfig,
    own: &OwnSettings,
    method: &str,
    steps: usize,
) -> Result<AdapterConfig, String> {
    if let Some(adalora) = config.settings::<AdaLoraConfig>() {
        let own = own.get(method).cloned().unwrap_or_default();
        // The proportions in PEFT's example: 200 and 1000 of 2000 steps, pruning every 10 steps.
        let (tinit, tfinal) = (own.tinit.unwrap_or(steps / 10), own.tfinal.unwrap_or(steps / 2));
        if tinit + tfinal >= steps {
            return Err(format!(
                "method {method}: tinit {tinit} and tfinal {tfinal} leave none of the {steps} steps for reducing ranks"
            ));
        }
        let delta_t = own.delta_t.unwrap_or((steps / 200).max(1));
        let mut adalora = adalora.clone().with_steps(tinit, tfinal, delta_t);
        adalora.total_step = Some(steps);
        config.method = Arc::new(adalora);
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::cli::settings::defaults;

    #[test]
    fn tokens_that_a_method_adds_are_known() {
        let added = |name: &str, wing: Wing| {
            virtual_tokens(&adapter(&defaults(), &OwnSettings::new(), name, wing, "").unwrap())
        };
        assert_eq!(added("vpt", Wing::Vision), 5);
        assert_eq!(added("prompt_tuning", Wing::Language), 20);
        assert_eq!(added("prefix_tuning", Wing::Language), 20);
        assert_eq!(added("lora", Wing::Language), 0);
    }

    #[test]
    fn every_method_adapts_a_vision_transformer() {
        let device = Device::flex();
        let model = VitConfig::new(16, 8, 16, 2, 4).with_num_classes(3).init(&device);
        let pixels = Tensor::<4>::ones([1, 3, 16, 16], &device);
        for name in names(Wing::Vision) {
            let adapted = adapter(&defaults(), &OwnSettings::new(), name, Wing::Vision, "").unwrap();
            let adapted = adapted.init(model.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
            let trained = adapted.summary().adapter_params;
            assert_eq!(trained == 0, matches!(name, "linear" | "full"), "{name}");
            assert_eq!(adapted.bind().forward(pixels.clone()).dims(), [1, 3], "{name}");
        }
    }

    #[test]
    fn adalora_s_ranks_fall_within_the_steps_of_its_training() {
        let own: OwnSettings = toml::from_str("[adalora]\nr = 4\ntinit = 3").unwrap();
        let config = adapter(&defaults(), &own, "adalora", Wing::Language, "llama").unwrap();
        let config = scheduled(config, &own, "adalora", 400).unwrap();
        let found = config.settings::<AdaLoraConfig>().unwrap();
        assert_eq!((found.init_r, found.target_r, found.total_step), (6, 4, Some(400)));
        assert_eq!((found.tinit, found.tfinal, found.delta_t), (3, 200, 2));
        let config = adapter(&defaults(), &own, "adalora", Wing::Language, "llama").unwrap();
        let message = scheduled(config, &own, "adalora", 3).unwrap_err();
        assert!(message.contains("tinit 3") && message.contains("3 steps"), "{message}");
    }

    #[test]
    fn a_method_without_a_place_is_refused() {
        for only in ["linear", "vpt_shallow"] {
            let refused = adapter(&defaults(), &OwnSettings::new(), only, Wing::Language, "llama").unwrap_err();
            assert!(refused.contains("has no place in language models"), "{refused}");
        }
    }
}
