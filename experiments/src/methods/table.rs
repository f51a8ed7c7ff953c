//! The table of methods, one line each.

use wegeft::methods::adalora::AdaLoraConfig;
use wegeft::methods::boft::BoftConfig;
use wegeft::methods::hira::HiraConfig;
use wegeft::methods::loha::LohaConfig;
use wegeft::methods::lokr::LokrConfig;
use wegeft::methods::lora_init::LoraInit;
use wegeft::methods::miss::MissConfig;
use wegeft::methods::oft::OftConfig;
use wegeft::{AdapterConfig, Fused, LoraConfig, Sharing, WegeftConfig};

use super::places;
use super::settings::{Adapter, MethodSettings, Wing, ZeroFactor};

/// The settings that a line of the table reads.
pub(super) struct Values<'a> {
    pub(super) all: &'a Adapter,
    pub(super) own: MethodSettings,
    pub(super) wing: Wing,
    /// `model_type` of a text model's config.json.
    pub(super) model_type: &'a str,
}

impl Values<'_> {
    /// Rank: the method's own, or `default`.
    fn rank(&self, default: usize) -> usize {
        self.own.r.unwrap_or(default)
    }

    /// LoRA with the method's rank and scale (1 by default), modified by `vary`.
    fn lora(&self, vary: impl FnOnce(LoraConfig) -> LoraConfig) -> AdapterConfig {
        let r = self.rank(self.all.lora_r);
        let config = LoraConfig::new(r)
            .with_alpha(self.lora_alpha(r))
            .with_dropout(self.all.lora_dropout);
        AdapterConfig::new(vary(config))
    }

    /// Numerator of the scale of LoRA's variants; by default the rank.
    fn lora_alpha(&self, r: usize) -> f64 {
        let alpha = self.own.alpha.or(self.all.lora_alpha).or(self.all.alpha);
        alpha.unwrap_or(r as f64)
    }

    /// AdaLoRA; its step counts are set once the length of the training is known.
    fn adalora(&self) -> AdapterConfig {
        let r = self.rank(self.all.lora_r);
        let init_r = self.own.init_r.unwrap_or((3 * r).div_ceil(2));
        let alpha = self.own.alpha.or(self.all.lora_alpha).or(self.all.alpha);
        let mut config = AdaLoraConfig::new(init_r, r, 0)
            .with_alpha(alpha.unwrap_or(init_r as f64))
            .with_dropout(self.all.lora_dropout);
        config.orth_reg_weight = self.own.orth_reg_weight.unwrap_or(config.orth_reg_weight);
        AdapterConfig::new(config)
    }

    /// WeGeFT with the method's rank and scale (1 by default), modified by `vary`.
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

    /// IA3 on the modules of its paper: keys, values, and the input of the MLP's second layer.
    fn ia3(&self) -> AdapterConfig {
        match (&self.own.target_modules, self.wing) {
            (Some(_), _) => AdapterConfig::ia3([""; 0]),
            (None, Wing::Vision) => AdapterConfig::ia3(["mlp.fc2"])
                .with_target_modules(["attn.qkv", "mlp.fc2"])
                .with_fused(Fused::qkv("attn.qkv", ["k", "v"])),
            (None, Wing::Language | Wing::Text) => places::ia3(self.model_type),
        }
    }

    /// Prompt tokens of VPT.
    fn tokens(&self) -> usize {
        self.own.tokens.unwrap_or(5)
    }
}

/// Methods that share settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Wegeft,
    Lora,
    Other,
}

/// A method: its name, its family, the kinds of models that support it, the fields of [`MethodSettings`] that it reads
/// (besides those that every method reads), and the function that makes its adapter.
pub(super) struct Entry {
    name: &'static str,
    family: Family,
    wings: &'static [Wing],
    pub(super) reads: &'static [&'static str],
    pub(super) make: fn(&Values) -> AdapterConfig,
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
        wings: &[Wing::Vision, Wing::Language, Wing::Text],
        reads,
        make,
    }
}

impl Entry {
    const fn only(mut self, wings: &'static [Wing]) -> Self {
        self.wings = wings;
        self
    }

    pub(super) fn works_on(&self, wing: Wing) -> bool {
        self.wings.contains(&wing)
    }
}

const SCALED: &[&str] = &["r", "alpha", "target_modules"];
const RANKED: &[&str] = &["r", "target_modules"];
const PLACED: &[&str] = &["target_modules"];
const BOFT: &[&str] = &["block_size", "n_butterfly_factor", "target_modules"];
const ADALORA: &[&str] = &[
    "r",
    "init_r",
    "alpha",
    "tinit",
    "tfinal",
    "delta_t",
    "orth_reg_weight",
    "target_modules",
];

const METHODS: &[Entry] = &[
    entry("linear", Family::Other, &[], |_| AdapterConfig::linear_probing()).only(&[Wing::Vision, Wing::Text]),
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
    entry("adalora", Family::Lora, ADALORA, |v| v.adalora()),
    entry("loha", Family::Lora, SCALED, |v| {
        let r = v.rank(v.all.lora_r);
        AdapterConfig::new(LohaConfig::new(r).with_alpha(v.lora_alpha(r)))
    }),
    entry("lokr", Family::Lora, SCALED, |v| {
        let r = v.rank(v.all.lora_r);
        AdapterConfig::new(LokrConfig::new(r).with_alpha(v.lora_alpha(r)))
    }),
    entry("miss", Family::Lora, RANKED, |v| {
        let config = MissConfig::new(v.rank(v.all.lora_r));
        AdapterConfig::new(config.with_dropout(v.all.lora_dropout))
    }),
    entry("hira", Family::Lora, RANKED, |v| {
        let config = HiraConfig::new(v.rank(v.all.lora_r));
        AdapterConfig::new(config.with_dropout(v.all.lora_dropout))
    }),
    entry("oft", Family::Other, &["block_size", "target_modules"], |v| {
        AdapterConfig::new(OftConfig::new(v.own.block_size.unwrap_or(32)))
    }),
    entry("boft", Family::Other, BOFT, |v| {
        let factors = v.own.n_butterfly_factor.unwrap_or(2);
        AdapterConfig::new(BoftConfig::new(v.own.block_size.unwrap_or(4), factors))
    }),
    entry("vera", Family::Other, RANKED, |v| AdapterConfig::vera(v.rank(256))),
    entry("ia3", Family::Other, PLACED, |v| v.ia3()),
    entry("bitfit", Family::Other, PLACED, |_| AdapterConfig::bitfit()),
    entry("layer_norm", Family::Other, PLACED, |_| AdapterConfig::layer_norm()),
    entry("vpt", Family::Other, &["tokens", "target_modules"], |v| {
        AdapterConfig::vpt(v.tokens(), true)
    })
    .only(&[Wing::Vision]),
    entry("vpt_shallow", Family::Other, &["tokens", "target_modules"], |v| {
        AdapterConfig::vpt(v.tokens(), false)
    })
    .only(&[Wing::Vision]),
    entry("prompt_tuning", Family::Other, &["tokens"], |v| {
        AdapterConfig::prompt_tuning(v.own.tokens.unwrap_or(20))
    })
    .only(&[Wing::Language]),
    entry("prefix_tuning", Family::Other, &["tokens"], |v| {
        AdapterConfig::prefix_tuning(v.own.tokens.unwrap_or(20))
    })
    .only(&[Wing::Language]),
    entry("loreft", Family::Lora, RANKED, |v| {
        AdapterConfig::loreft(v.rank(v.all.lora_r))
    }),
    entry("direft", Family::Lora, RANKED, |v| {
        AdapterConfig::direft(v.rank(v.all.lora_r))
    }),
    entry("houlsby", Family::Other, RANKED, |v| AdapterConfig::houlsby(v.rank(64))),
    entry("pfeiffer", Family::Other, RANKED, |v| {
        AdapterConfig::pfeiffer(v.rank(48))
    }),
];

pub(super) fn find(name: &str) -> Option<&'static Entry> {
    METHODS.iter().find(|entry| entry.name == name)
}

/// The names of all methods that work on this kind of model.
pub fn names(wing: Wing) -> impl Iterator<Item = &'static str> {
    let entries = METHODS.iter().filter(move |entry| entry.works_on(wing));
    entries.map(|entry| entry.name)
}

/// Help text of --method in a program that `tests` models or only trains them.
pub fn help(wing: Wing, tests: bool) -> String {
    let names: Vec<&str> = names(wing).collect();
    let none = match wing {
        Wing::Language | Wing::Text if tests => "; none trains nothing and evaluates the model as it is",
        _ => "",
    };
    format!("Methods, separated by commas: {}{none}", names.join(", "))
}

/// Help text of --set.
pub fn fields_help(wing: Wing) -> String {
    let mut lines: Vec<(Vec<&str>, String)> = Vec::new();
    for entry in METHODS
        .iter()
        .filter(|entry| entry.works_on(wing) && !entry.reads.is_empty())
    {
        let fields = entry.reads.join(", ");
        match lines.iter_mut().find(|(_, known)| *known == fields) {
            Some((names, _)) => names.push(entry.name),
            None => lines.push((vec![entry.name], fields)),
        }
    }
    let lines: Vec<String> = lines
        .iter()
        .map(|(names, fields)| format!("{}: {fields}", names.join(", ")))
        .collect();
    format!(
        "Set a field of one method, overriding its [methods.NAME] table and all other flags: lora.r=16, \
         wegeft.learning_rate=1e-3; repeat the flag for several fields. All methods read learning_rate, weight_decay, \
         sweep_lr and sweep_weight_decay. {}",
        lines.join(". ")
    )
}

/// A line of the table, for the guide.
pub struct Listed {
    /// The method.
    pub name: &'static str,
    /// The kinds of models that support it.
    pub models: Vec<&'static str>,
    /// The fields of [`MethodSettings`] that it reads, besides learning rates and weight decays.
    pub fields: &'static [&'static str],
}

/// The whole table.
pub fn listed() -> impl Iterator<Item = Listed> {
    METHODS.iter().map(|entry| Listed {
        name: entry.name,
        models: entry.wings.iter().map(|wing| wing.models()).collect(),
        fields: entry.reads,
    })
}

/// The methods that have their own places, which only `[methods.NAME]` and `--set` change.
const CHOOSE_THEMSELVES: [&str; 9] = [
    "ia3",
    "bitfit",
    "layer_norm",
    "vpt",
    "vpt_shallow",
    "loreft",
    "direft",
    "houlsby",
    "pfeiffer",
];

/// The flags that, given on the command line, override `field` of `[methods.NAME]`.
pub fn flags_of(name: &str, field: &str) -> Vec<&'static str> {
    let family = find(&name.replace('-', "_")).map_or(Family::Other, |entry| entry.family);
    match (field, family) {
        ("r", Family::Wegeft) => vec!["r"],
        ("r", Family::Lora) => vec!["lora_r"],
        ("alpha" | "lora_alpha", Family::Lora) => vec!["alpha", "lora_alpha"],
        ("alpha" | "lora_alpha", _) => vec!["alpha"],
        ("lr" | "learning_rate", _) => vec!["learning_rate"],
        ("weight_decay", _) => vec!["weight_decay"],
        ("target_modules", _) if !CHOOSE_THEMSELVES.contains(&&*name.replace('-', "_")) => vec!["target_modules"],
        ("sweep_lr", _) => vec!["sweep_lr"],
        ("sweep_weight_decay", _) => vec!["sweep_weight_decay"],
        _ => Vec::new(),
    }
}

/// The flags of single methods.
pub const FLAGS: &[&str] = &[
    "r",
    "lora_r",
    "alpha",
    "lora_alpha",
    "lora_dropout",
    "weight_dropout",
    "zero_factor",
    "target_modules",
];

/// True if the method reads one of [`FLAGS`].
pub fn reads_flag(name: &str, flag: &str) -> bool {
    let Some(entry) = find(name) else { return false };
    match flag {
        "weight_dropout" | "zero_factor" => entry.family == Family::Wegeft,
        "lora_dropout" => entry.family == Family::Lora && !matches!(name, "loha" | "lokr" | "loreft" | "direft"),
        _ => entry.reads.iter().any(|field| flags_of(name, field).contains(&flag)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_what_works_on_each_kind_of_models() {
        let (vision, language) = (help(Wing::Vision, true), help(Wing::Language, true));
        for both in ["adalora", "houlsby", "loreft", "bitfit", "boft"] {
            assert!(vision.contains(both) && language.contains(both), "{both}");
        }
        for only in ["prompt_tuning", "prefix_tuning"] {
            assert!(!vision.contains(only) && language.contains(only), "{only}");
        }
        for only in ["linear", "vpt_shallow"] {
            assert!(vision.contains(only) && !language.contains(only), "{only}");
        }
        assert!(language.contains("none") && fields_help(Wing::Vision).contains("tinit"));
    }
}
