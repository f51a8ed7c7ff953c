//! The methods by name: a line each, from settings to an adapter.

use backbones::VitConfig;
use wegeft::methods::lora::LoraConfig;
use wegeft::methods::lora_init::LoraInit;
use wegeft::methods::wegeft::WegeftConfig;
use wegeft::{AdapterConfig, Fused, Method};

use crate::settings::Settings;

/// The settings of one method, the defaults filled in.
struct Values {
    r: usize,
    lora_r: usize,
    /// The method's own `r`, if the settings have one.
    own_r: Option<usize>,
    alpha: Option<f64>,
    target_modules: Vec<String>,
    /// The method's own targets, if the settings have some.
    own_targets: Option<Vec<String>>,
}

impl Values {
    /// Numerator of the scale; scale 1 if the settings do not say.
    fn alpha(&self, r: usize) -> f64 {
        self.alpha.unwrap_or(r as f64)
    }

    /// A LoRA, changed by `variant`, on the target modules.
    fn lora(&self, variant: impl Fn(LoraConfig) -> LoraConfig) -> AdapterConfig {
        let lora = LoraConfig::new(self.lora_r).with_alpha(self.alpha(self.lora_r));
        self.on_targets(AdapterConfig::new(Method::Lora(variant(lora))))
    }

    /// On the target modules.
    fn on_targets(&self, config: AdapterConfig) -> AdapterConfig {
        config.with_target_modules(self.target_modules.clone())
    }

    /// On the method's own targets, or on its default places.
    fn on_own(&self, config: AdapterConfig) -> AdapterConfig {
        match &self.own_targets {
            Some(targets) => config.with_target_modules(targets.clone()),
            None => config,
        }
    }
}

type Make = fn(&Values) -> AdapterConfig;

const METHODS: &[(&str, Make)] = &[
    ("linear", |_| AdapterConfig::new(Method::Linear)),
    ("full", |_| AdapterConfig::new(Method::Full)),
    ("wegeft", |v| {
        let wegeft = WegeftConfig::new(v.r).with_alpha(v.alpha(v.r));
        v.on_targets(AdapterConfig::new(Method::Wegeft(wegeft)))
    }),
    ("lora", |v| v.lora(|lora| lora)),
    ("rslora", |v| v.lora(|lora| lora.with_rslora(true))),
    ("lora-fa", |v| v.lora(|lora| lora.with_freeze_a(true))),
    ("dora", |v| v.lora(|lora| lora.with_dora(true))),
    ("pissa", |v| v.lora(|lora| lora.with_init(LoraInit::PissaNiter(16)))),
    ("olora", |v| v.lora(|lora| lora.with_init(LoraInit::Olora))),
    ("vera", |v| v.on_targets(AdapterConfig::vera(v.own_r.unwrap_or(256)))),
    ("ia3", |v| match &v.own_targets {
        Some(targets) => AdapterConfig::ia3([""; 0]).with_target_modules(targets.clone()),
        // The paper's places: keys, values, and what the MLP's second layer reads.
        None => AdapterConfig::ia3(["mlp.fc2"])
            .with_target_modules(["attn.qkv", "mlp.fc2"])
            .with_fused(Fused::qkv("attn.qkv", ["k", "v"])),
    }),
    ("bitfit", |v| v.on_own(AdapterConfig::bitfit())),
    ("layer-norm", |v| v.on_own(AdapterConfig::layer_norm())),
    ("loreft", |v| v.on_own(AdapterConfig::loreft(v.own_r.unwrap_or(8)))),
    ("direft", |v| v.on_own(AdapterConfig::direft(v.own_r.unwrap_or(8)))),
    ("vpt-shallow", |v| {
        v.on_own(AdapterConfig::vpt(v.own_r.unwrap_or(5), false))
    }),
    ("vpt", |v| v.on_own(AdapterConfig::vpt(v.own_r.unwrap_or(5), true))),
    ("houlsby", |v| v.on_own(AdapterConfig::houlsby(v.own_r.unwrap_or(64)))),
    ("pfeiffer", |v| v.on_own(AdapterConfig::pfeiffer(v.own_r.unwrap_or(48)))),
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
    let config = make(&Values {
        r: own.r.unwrap_or(settings.r),
        lora_r: own.r.unwrap_or(settings.lora_r),
        own_r: own.r,
        alpha: own.alpha.or(settings.alpha),
        target_modules: own
            .target_modules
            .clone()
            .unwrap_or_else(|| settings.target_modules.clone()),
        own_targets: own.target_modules,
    });
    Ok(config.with_modules_to_save(["head"]))
}

/// `config` with what depends on the backbone: prompts stand between its leading tokens and its patches, and start as
/// its patch size says.
pub fn fitted(mut config: AdapterConfig, backbone: &VitConfig) -> AdapterConfig {
    if let Method::Vpt(vpt) = &mut config.method {
        vpt.prefix_tokens = backbone.prefix_tokens();
        vpt.patch_size = backbone.patch_size;
    }
    config
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tensor};

    use super::*;

    #[test]
    fn every_method_adapts_the_vision_transformer() {
        let device = Device::flex();
        let model = VitConfig::new(32, 8, 48, 2, 3).with_num_classes(4).init(&device);
        let pixels = Tensor::random([2, 3, 32, 32], Distribution::Default, &device);
        for (name, _) in METHODS {
            let config = adapter(&Settings::default(), name).unwrap();
            let adapted = config.init(model.clone()).unwrap();
            let has_factors = !matches!(*name, "linear" | "full");
            assert_eq!(adapted.summary().adapter_params > 0, has_factors, "{name}");
            let logits = adapted.bind().forward(pixels.clone());
            assert_eq!(logits.dims(), [2, 4], "{name}");
            assert!(logits.is_finite().all().into_scalar::<bool>(), "{name}");
        }
    }
}
