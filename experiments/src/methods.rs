//! The methods by name: a line each, from settings to an adapter.

use std::sync::Arc;

use backbones::VitConfig;
use wegeft::methods::lora_init::LoraInit;
use wegeft::{AdapterConfig, Fused, LoraConfig, Sharing, VptConfig, WegeftConfig};

use crate::settings::{MethodSettings, Settings};

/// What a line of the table reads.
struct Values<'a> {
    all: &'a Settings,
    own: MethodSettings,
}

impl Values<'_> {
    /// Rank: the method's own, or `default`.
    fn rank(&self, default: usize) -> usize {
        self.own.r.unwrap_or(default)
    }

    /// Numerator of the scale; scale 1 if the settings do not say.
    fn alpha(&self, r: usize) -> f64 {
        self.own.alpha.or(self.all.alpha).unwrap_or(r as f64)
    }

    /// LoRA of that rank and scale, to be varied.
    fn lora(&self, vary: impl FnOnce(LoraConfig) -> LoraConfig) -> AdapterConfig {
        let r = self.rank(self.all.lora_r);
        AdapterConfig::new(vary(LoraConfig::new(r).with_alpha(self.alpha(r))))
    }

    /// WeGeFT of that rank and scale, to be varied.
    fn wegeft(&self, vary: impl FnOnce(WegeftConfig) -> WegeftConfig) -> AdapterConfig {
        let r = self.rank(self.all.r);
        AdapterConfig::new(vary(WegeftConfig::new(r).with_alpha(self.alpha(r))))
    }

    /// Prompt tokens.
    fn tokens(&self) -> usize {
        self.own.tokens.unwrap_or(5)
    }
}

type Make = fn(&Values) -> AdapterConfig;

const METHODS: &[(&str, Make)] = &[
    ("linear", |_| AdapterConfig::linear_probing()),
    ("full", |_| AdapterConfig::full()),
    ("wegeft", |v| v.wegeft(|config| config)),
    ("wegeft_unshared", |v| {
        v.wegeft(|config| config.with_sharing(Sharing::Site))
    }),
    ("lora", |v| v.lora(|config| config)),
    ("rslora", |v| v.lora(|config| config.with_rslora(true))),
    ("lora_plus", |v| v.lora(|config| config.with_loraplus_lr_ratio(16.0))), // the authors' ratio
    ("lora_fa", |v| v.lora(|config| config.with_freeze_a(true))),
    ("dora", |v| v.lora(|config| config.with_dora(true))),
    ("pissa", |v| v.lora(|config| config.with_init(LoraInit::PissaNiter(16)))),
    ("olora", |v| v.lora(|config| config.with_init(LoraInit::Olora))),
    ("vera", |v| AdapterConfig::vera(v.rank(256))),
    ("ia3", |v| match &v.own.target_modules {
        Some(_) => AdapterConfig::ia3([""; 0]),
        // The paper's places: keys, values, and what the MLP's second layer reads.
        None => AdapterConfig::ia3(["mlp.fc2"])
            .with_target_modules(["attn.qkv", "mlp.fc2"])
            .with_fused(Fused::qkv("attn.qkv", ["k", "v"])),
    }),
    ("bitfit", |_| AdapterConfig::bitfit()),
    ("layer_norm", |_| AdapterConfig::layer_norm()),
    ("vpt", |v| AdapterConfig::vpt(v.tokens(), true)),
    ("vpt_shallow", |v| AdapterConfig::vpt(v.tokens(), false)),
    ("loreft", |v| AdapterConfig::loreft(v.rank(v.all.lora_r))),
    ("direft", |v| AdapterConfig::direft(v.rank(v.all.lora_r))),
    ("houlsby", |v| AdapterConfig::houlsby(v.rank(64))),
    ("pfeiffer", |v| AdapterConfig::pfeiffer(v.rank(48))),
];

/// The adapter of method `name`; the head is trained in full by all of them.
///
/// # Errors
/// An unknown method.
pub fn adapter(settings: &Settings, name: &str) -> Result<AdapterConfig, String> {
    let Some((_, make)) = METHODS.iter().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = METHODS.iter().map(|(known, _)| *known).collect();
        return Err(format!("method '{name}' is unknown; choose among {}", names.join(", ")));
    };
    let own = settings.of_method(name);
    let targets = own.target_modules.clone();
    let config = make(&Values { all: settings, own });
    // The other methods know their places themselves.
    let on_weights = matches!(config.method.name(), "WEGEFT" | "LORA" | "VERA");
    let targets = targets.or_else(|| on_weights.then(|| settings.target_modules.clone()));
    let config = match targets {
        Some(targets) => config.with_target_modules(targets),
        None => config,
    };
    Ok(config.with_modules_to_save(["head"]))
}

/// `config` with what depends on the backbone: prompts stand between its leading tokens and its patches, and start as
/// its patch size says.
pub fn fitted(mut config: AdapterConfig, backbone: &VitConfig) -> AdapterConfig {
    if let Some(vpt) = config.settings::<VptConfig>() {
        let vpt = vpt.clone().with_prefix_tokens(backbone.prefix_tokens());
        config.method = Arc::new(vpt.with_patch_size(backbone.patch_size));
    }
    config
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;

    #[test]
    fn every_method_adapts_a_vision_transformer() {
        let device = Device::flex();
        let model = VitConfig::new(16, 8, 16, 2, 4).with_num_classes(3).init(&device);
        let pixels = Tensor::<4>::ones([1, 3, 16, 16], &device);
        for (name, _) in METHODS {
            let adapted = adapter(&Settings::default(), name).unwrap();
            let adapted = adapted.init(model.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
            let trained = adapted.summary().adapter_params;
            assert_eq!(trained == 0, matches!(*name, "linear" | "full"), "{name}");
            assert_eq!(adapted.bind().forward(pixels.clone()).dims(), [1, 3], "{name}");
        }
    }
}
