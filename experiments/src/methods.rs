//! The methods by name: one line each, from settings to an adapter, for both wings.

use std::collections::BTreeMap;
use std::sync::Arc;

use backbones::VitConfig;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use wegeft::methods::lora_init::LoraInit;
use wegeft::{AdapterConfig, Fused, LoraConfig, Sharing, VptConfig, WegeftConfig};

use crate::cli::settings::check_positive;
use crate::train::settings::{Training, check_decay, check_learning_rate};

/// The method that trains nothing: a language model as it is.
pub const NONE: &str = "none";

/// Which factor of WeGeFT starts at zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ZeroFactor {
    /// phi, as in the released language code.
    Phi,
    /// psi, as in the released vision code and in the earlier language code (GIFT).
    Psi,
}

/// Which adapters are trained.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Adapter")]
pub struct Adapter {
    /// Methods, separated by commas: linear, full, wegeft, wegeft_unshared, lora, rslora, lora_plus, lora_fa, dora, pissa,
    /// olora, vera, ia3, bitfit, layer_norm, vpt, vpt_shallow, loreft, direft, houlsby, pfeiffer; of language models and
    /// text classifiers also none, the model as it is.
    #[arg(long, value_delimiter = ',', default_values = ["linear", "lora", "wegeft"])]
    pub method: Vec<String>,
    /// Modules whose weights WeGeFT, LoRA and its variants, VeRA and IA3 adapt, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "attn.proj")]
    pub target_modules: Vec<String>,
    /// Rank of WeGeFT.
    #[arg(long, default_value_t = 16)]
    pub r: usize,
    /// Rank of LoRA and its variants.
    #[arg(long, default_value_t = 8)]
    pub lora_r: usize,
    /// Numerator of the scale alpha / r [default: the rank].
    #[arg(long, allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Numerator of the scale alpha / r of LoRA and its variants [default: --alpha].
    #[arg(long, allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_alpha: Option<f64>,
    /// Dropout on what LoRA's A reads, in training.
    #[arg(long, allow_negative_numbers = true, default_value_t = 0.0)]
    pub lora_dropout: f64,
    /// WeGeFT's dropout on the elements of W, in training; the paper's language runs have 0.1.
    #[arg(long, allow_negative_numbers = true, default_value_t = 0.0)]
    pub weight_dropout: f64,
    /// Which factor of WeGeFT starts at zero.
    #[arg(long, value_enum, default_value_t = ZeroFactor::Psi)]
    pub zero_factor: ZeroFactor,
}

/// Settings of one method; what is absent is as for all methods.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MethodSettings {
    /// Rank; width of the bottleneck (houlsby, pfeiffer).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r: Option<usize>,
    /// Numerator of the scale.
    #[serde(alias = "lora_alpha", skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Prompt tokens of VPT.
    #[serde(alias = "num_virtual_tokens", skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Modules (or places, for the methods that act on activations) to adapt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_modules: Option<Vec<String>>,
    /// Peak learning rate.
    #[serde(alias = "lr", skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Weight decay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Learning rates of the grid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep_lr: Option<Vec<f64>>,
    /// Weight decays of the grid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep_weight_decay: Option<Vec<f64>>,
}

/// `[methods.NAME]`: settings of one method that differ from those of all.
pub type OwnSettings = BTreeMap<String, MethodSettings>;

/// What is adapted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wing {
    /// A vision transformer with a head that is trained in full.
    Vision,
    /// A language model.
    Language,
    /// A text encoder or language model with a head that is trained in full.
    Text,
}

/// What a line of the table reads.
struct Values<'a> {
    all: &'a Adapter,
    own: MethodSettings,
    wing: Wing,
}

impl Values<'_> {
    /// Rank: the method's own, or `default`.
    fn rank(&self, default: usize) -> usize {
        self.own.r.unwrap_or(default)
    }

    /// LoRA of its rank and scale (1 if the settings do not say), to be varied.
    fn lora(&self, vary: impl FnOnce(LoraConfig) -> LoraConfig) -> AdapterConfig {
        let r = self.rank(self.all.lora_r);
        let alpha = self.own.alpha.or(self.all.lora_alpha).or(self.all.alpha);
        let config = LoraConfig::new(r)
            .with_alpha(alpha.unwrap_or(r as f64))
            .with_dropout(self.all.lora_dropout);
        AdapterConfig::new(vary(config))
    }

    /// WeGeFT of its rank and scale (1 if the settings do not say), to be varied.
    fn wegeft(&self, vary: impl FnOnce(WegeftConfig) -> WegeftConfig) -> AdapterConfig {
        let r = self.rank(self.all.r);
        let alpha = self.own.alpha.or(self.all.alpha).unwrap_or(r as f64);
        let zero = match self.all.zero_factor {
            ZeroFactor::Phi => wegeft::methods::wegeft::ZeroFactor::Phi,
            ZeroFactor::Psi => wegeft::methods::wegeft::ZeroFactor::Psi,
        };
        let config = WegeftConfig::new(r)
            .with_alpha(alpha)
            .with_zero_factor(zero)
            .with_weight_dropout(self.all.weight_dropout);
        AdapterConfig::new(vary(config))
    }

    /// IA3 on its paper's places: keys, values, and what the MLP's second layer reads.
    fn ia3(&self) -> AdapterConfig {
        match (&self.own.target_modules, self.wing) {
            (Some(_), _) => AdapterConfig::ia3([""; 0]),
            (None, Wing::Vision) => AdapterConfig::ia3(["mlp.fc2"])
                .with_target_modules(["attn.qkv", "mlp.fc2"])
                .with_fused(Fused::qkv("attn.qkv", ["k", "v"])),
            (None, Wing::Language | Wing::Text) => {
                AdapterConfig::ia3(["down_proj"]).with_target_modules(["k_proj", "v_proj", "down_proj"])
            }
        }
    }

    /// Prompt tokens.
    fn tokens(&self) -> usize {
        self.own.tokens.unwrap_or(5)
    }
}

/// Methods that have settings in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Wegeft,
    Lora,
    Other,
}

/// A method: its name, its family, the fields of [`MethodSettings`] beside those of every method that it reads, and how its
/// adapter is made.
struct Entry {
    name: &'static str,
    family: Family,
    reads: &'static [&'static str],
    make: fn(&Values) -> AdapterConfig,
}

const fn entry(
    name: &'static str,
    family: Family,
    reads: &'static [&'static str],
    make: fn(&Values) -> AdapterConfig,
) -> Entry {
    Entry {
        name,
        family,
        reads,
        make,
    }
}

const SCALED: &[&str] = &["r", "alpha", "target_modules"];
const RANKED: &[&str] = &["r", "target_modules"];
const PLACED: &[&str] = &["target_modules"];

const METHODS: &[Entry] = &[
    entry("linear", Family::Other, &[], |_| AdapterConfig::linear_probing()),
    entry("full", Family::Other, &[], |_| AdapterConfig::full()),
    entry("wegeft", Family::Wegeft, SCALED, |v| v.wegeft(|config| config)),
    entry("wegeft_unshared", Family::Wegeft, SCALED, |v| {
        v.wegeft(|config| config.with_sharing(Sharing::Site))
    }),
    entry("lora", Family::Lora, SCALED, |v| v.lora(|config| config)),
    entry("rslora", Family::Lora, SCALED, |v| {
        v.lora(|config| config.with_rslora(true))
    }),
    entry("lora_plus", Family::Lora, SCALED, |v| {
        v.lora(|config| config.with_loraplus_lr_ratio(16.0)) // the authors' ratio
    }),
    entry("lora_fa", Family::Lora, SCALED, |v| {
        v.lora(|config| config.with_freeze_a(true))
    }),
    entry("dora", Family::Lora, SCALED, |v| {
        v.lora(|config| config.with_dora(true))
    }),
    entry("pissa", Family::Lora, SCALED, |v| {
        v.lora(|config| config.with_init(LoraInit::PissaNiter(16)))
    }),
    entry("olora", Family::Lora, SCALED, |v| {
        v.lora(|config| config.with_init(LoraInit::Olora))
    }),
    entry("vera", Family::Other, RANKED, |v| AdapterConfig::vera(v.rank(256))),
    entry("ia3", Family::Other, PLACED, |v| v.ia3()),
    entry("bitfit", Family::Other, PLACED, |_| AdapterConfig::bitfit()),
    entry("layer_norm", Family::Other, PLACED, |_| AdapterConfig::layer_norm()),
    entry("vpt", Family::Other, &["tokens", "target_modules"], |v| {
        AdapterConfig::vpt(v.tokens(), true)
    }),
    entry("vpt_shallow", Family::Other, &["tokens", "target_modules"], |v| {
        AdapterConfig::vpt(v.tokens(), false)
    }),
    entry("loreft", Family::Other, RANKED, |v| {
        AdapterConfig::loreft(v.rank(v.all.lora_r))
    }),
    entry("direft", Family::Other, RANKED, |v| {
        AdapterConfig::direft(v.rank(v.all.lora_r))
    }),
    entry("houlsby", Family::Other, RANKED, |v| AdapterConfig::houlsby(v.rank(64))),
    entry("pfeiffer", Family::Other, RANKED, |v| {
        AdapterConfig::pfeiffer(v.rank(48))
    }),
];

fn find(name: &str) -> Option<&'static Entry> {
    METHODS.iter().find(|entry| entry.name == name)
}

/// The names of all methods.
pub fn names() -> impl Iterator<Item = &'static str> {
    METHODS.iter().map(|entry| entry.name)
}

/// The flags that speak for `field` of `[methods.NAME]`: given on the command line they win over it.
pub fn flags_of(name: &str, field: &str) -> Vec<&'static str> {
    let family = find(&name.replace('-', "_")).map_or(Family::Other, |entry| entry.family);
    match (field, family) {
        ("r", Family::Wegeft) => vec!["r"],
        ("r", Family::Lora) => vec!["lora_r"],
        ("alpha" | "lora_alpha", Family::Lora) => vec!["alpha", "lora_alpha"],
        ("alpha" | "lora_alpha", _) => vec!["alpha"],
        ("lr" | "learning_rate", _) => vec!["learning_rate"],
        ("weight_decay", _) => vec!["weight_decay"],
        ("target_modules", _) => vec!["target_modules"],
        ("sweep_lr", _) => vec!["sweep_lr"],
        ("sweep_weight_decay", _) => vec!["sweep_weight_decay"],
        _ => Vec::new(),
    }
}

/// The adapter of method `name`; a classifier's head is trained in full by all of them.
///
/// # Errors
/// An unknown method.
pub fn adapter(all: &Adapter, own: &OwnSettings, name: &str, wing: Wing) -> Result<AdapterConfig, String> {
    let Some(entry) = find(name) else {
        let none = (wing != Wing::Vision).then_some(NONE);
        let names: Vec<&str> = none.into_iter().chain(names()).collect();
        return Err(format!("method '{name}' is unknown; choose among {}", names.join(", ")));
    };
    let own = own.get(name).cloned().unwrap_or_default();
    let targets = own.target_modules.clone();
    let config = (entry.make)(&Values { all, own, wing });
    // The other methods know their places themselves.
    let on_weights = matches!(config.method.name(), "WEGEFT" | "LORA" | "VERA");
    let targets = targets.or_else(|| on_weights.then(|| all.target_modules.clone()));
    let config = match targets {
        Some(targets) => config.with_target_modules(targets),
        None => config,
    };
    Ok(match wing {
        Wing::Vision => config.with_modules_to_save(["head"]),
        // What the head of a text classifier is called depends on the model.
        Wing::Language | Wing::Text => config,
    })
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

impl Adapter {
    /// Brings names to one form (dashes or underscores alike, each once) and refuses what no adapter can be made of.
    ///
    /// # Errors
    /// An unknown method, a value out of range, a field that its method does not read.
    pub fn check(&mut self, own: &OwnSettings, wing: Wing) -> Result<(), String> {
        let names = self.method.iter().map(|name| name.trim().replace('-', "_"));
        self.method = crate::cli::table::distinct(names.filter(|name| !name.is_empty()));
        if self.method.is_empty() {
            return Err("field 'method' is empty; name at least one".into());
        }
        check_positive(&[("r", self.r), ("lora_r", self.lora_r)])?;
        for (field, alpha) in [("alpha", self.alpha), ("lora_alpha", self.lora_alpha)] {
            if let Some(alpha) = alpha.filter(|alpha| !alpha.is_finite()) {
                return Err(format!("field '{field}' is {alpha}; it must be a finite number"));
            }
        }
        for (field, value) in [
            ("weight_dropout", self.weight_dropout),
            ("lora_dropout", self.lora_dropout),
        ] {
            if !(0.0..1.0).contains(&value) {
                return Err(format!("field '{field}' is {value}; it must be in [0, 1)"));
            }
        }
        for method in self.method.iter().chain(own.keys()) {
            if method == NONE && wing != Wing::Vision {
                continue;
            }
            adapter(self, own, method, wing)?;
            if method == "linear" && wing == Wing::Language {
                return Err("method 'linear' trains a new head, and a language model has none; choose another".into());
            }
        }
        own.iter().try_for_each(|(method, own)| check_own(method, own))
    }
}

/// Refuses fields of `[methods.NAME]` that the method does not read, and values out of range.
fn check_own(method: &str, own: &MethodSettings) -> Result<(), String> {
    let reads = find(method).map_or(&[][..], |entry| entry.reads);
    let given = [
        ("r", own.r.is_some()),
        ("alpha", own.alpha.is_some()),
        ("tokens", own.tokens.is_some()),
        ("target_modules", own.target_modules.is_some()),
    ];
    if let Some((field, _)) = given.iter().find(|(field, given)| *given && !reads.contains(field)) {
        let reads = match reads.is_empty() {
            true => "learning rates and weight decays only".to_string(),
            false => reads.join(", "),
        };
        return Err(format!(
            "field '{field}' of [methods.{method}] is not read by that method; it reads {reads}"
        ));
    }
    check_positive(&[("r", own.r.unwrap_or(1)), ("tokens", own.tokens.unwrap_or(1))])
        .map_err(|e| format!("[methods.{method}]: {e}"))?;
    let rates = own.learning_rate.iter().chain(own.sweep_lr.iter().flatten());
    rates
        .copied()
        .try_for_each(|rate| check_learning_rate("learning_rate", rate))?;
    let decays = own.weight_decay.iter().chain(own.sweep_weight_decay.iter().flatten());
    decays.copied().try_for_each(|decay| check_decay("weight_decay", decay))
}

/// Peak learning rate and weight decay of a method where they are not tuned.
pub fn rates(training: &Training, own: &OwnSettings, method: &str) -> (f64, f64) {
    let own = own.get(method);
    (
        own.and_then(|own| own.learning_rate).unwrap_or(training.learning_rate),
        own.and_then(|own| own.weight_decay).unwrap_or(training.weight_decay),
    )
}

/// Learning rates of WeGeFT in the released vision code's sweeps.
const WEGEFT_LR: [f64; 6] = [1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3];
/// Learning rates of all other methods there.
const OTHER_LR: [f64; 6] = [5e-4, 1e-3, 1.5e-3, 2.5e-3, 5e-3, 1e-2];
/// Weight decays there; VPT and BitFit are tuned without any.
const WEIGHT_DECAY: [f64; 4] = [0.01, 1e-3, 1e-4, 0.0];

/// The points (learning rate, weight decay) of a method's grid: the settings' own, otherwise those of the released vision
/// code. That code tunes no language model: there the default is half, once and twice the learning rate.
pub fn grid(
    training: &Training,
    sweep: &crate::run::sweep::Sweep,
    own: &OwnSettings,
    method: &str,
    wing: Wing,
) -> Vec<(f64, f64)> {
    let mine = own.get(method).cloned().unwrap_or_default();
    let (rate, decay) = rates(training, own, method);
    let default: (Vec<f64>, Vec<f64>) = match wing {
        Wing::Vision => (
            if method.starts_with("wegeft") {
                WEGEFT_LR
            } else {
                OTHER_LR
            }
            .to_vec(),
            match method {
                "vpt" | "vpt_shallow" | "bitfit" => vec![0.0],
                _ => WEIGHT_DECAY.to_vec(),
            },
        ),
        Wing::Language | Wing::Text => (vec![rate / 2.0, rate, 2.0 * rate], vec![decay]),
    };
    let given = |own: Option<Vec<f64>>, all: &[f64], default: Vec<f64>| match own {
        Some(values) => values,
        None if !all.is_empty() => all.to_vec(),
        None => default,
    };
    let rates = given(mine.sweep_lr, &sweep.sweep_lr, default.0);
    let decays = given(mine.sweep_weight_decay, &sweep.sweep_weight_decay, default.1);
    rates
        .iter()
        .flat_map(|lr| decays.iter().map(|decay| (*lr, *decay)))
        .collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::cli::settings::defaults;
    use crate::run::sweep::Sweep;

    #[test]
    fn every_method_adapts_a_vision_transformer() {
        let device = Device::flex();
        let model = VitConfig::new(16, 8, 16, 2, 4).with_num_classes(3).init(&device);
        let pixels = Tensor::<4>::ones([1, 3, 16, 16], &device);
        for name in names() {
            let adapted = adapter(&defaults(), &OwnSettings::new(), name, Wing::Vision).unwrap();
            let adapted = adapted.init(model.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
            let trained = adapted.summary().adapter_params;
            assert_eq!(trained == 0, matches!(name, "linear" | "full"), "{name}");
            assert_eq!(adapted.bind().forward(pixels.clone()).dims(), [1, 3], "{name}");
        }
    }

    #[test]
    fn a_field_that_a_method_does_not_read_is_refused_by_name() {
        let own = |text: &str| -> OwnSettings { toml::from_str(text).unwrap() };
        let checked = |own: &OwnSettings| defaults::<Adapter>().check(own, Wing::Vision);
        checked(&own("[vpt]\ntokens = 10\n[lora]\nr = 4\nlora_alpha = 1.0")).unwrap();
        for (text, field) in [
            ("[vpt]\nr = 10", "'r'"),
            ("[full]\nalpha = 1.0", "'alpha'"),
            ("[lora]\ntokens = 3", "'tokens'"),
        ] {
            let message = checked(&own(text)).unwrap_err();
            assert!(message.contains(field) && message.contains("not read"), "{message}");
        }
        assert!(
            checked(&own("[magic]\nlr = 1.0"))
                .unwrap_err()
                .contains("'magic' is unknown")
        );
    }

    #[test]
    fn grids_are_the_published_ones_unless_told_otherwise() {
        let training: Training = defaults();
        let mut sweep: Sweep = defaults();
        let mut own = OwnSettings::new();
        let points = |sweep: &Sweep, own: &OwnSettings, method: &str| grid(&training, sweep, own, method, Wing::Vision);
        assert_eq!(points(&sweep, &own, "wegeft").len(), 24);
        assert_eq!(points(&sweep, &own, "wegeft")[0], (1e-4, 0.01));
        assert_eq!(points(&sweep, &own, "lora").last(), Some(&(1e-2, 0.0)));
        assert_eq!(points(&sweep, &own, "vpt").len(), 6);
        sweep.sweep_lr = vec![0.1];
        assert_eq!(points(&sweep, &own, "bitfit"), [(0.1, 0.0)]);
        let lora = own.entry("lora".into()).or_default();
        (lora.sweep_lr, lora.sweep_weight_decay) = (Some(vec![1.0, 2.0]), Some(vec![0.5]));
        assert_eq!(points(&sweep, &own, "lora"), [(1.0, 0.5), (2.0, 0.5)]);
        assert_eq!(points(&sweep, &own, "wegeft")[0].0, 0.1);
    }
}
