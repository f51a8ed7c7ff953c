//! What to adapt and how: PEFT's field names, Burn's conventions.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleDisplay};
use serde::{Deserialize, Serialize};

use crate::adapted::Adapted;
use crate::bank::Bank;
use crate::error::AdapterError;
use crate::methods::Recipe;
use crate::methods::bitfit::BitfitConfig;
use crate::methods::bottleneck::BottleneckConfig;
use crate::methods::ia3::Ia3Config;
use crate::methods::layernorm::LayerNormConfig;
use crate::methods::lora::LoraConfig;
use crate::methods::reft::ReftConfig;
use crate::methods::vera::VeraConfig;
use crate::methods::vpt::VptConfig;
use crate::methods::wegeft::WegeftConfig;
use crate::site::{self, ParamInfo, Site};

/// Which modules to adapt, as in PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    /// Names or name endings: `attn.proj` matches `blocks.3.attn.proj`.
    Names(Vec<String>),
    /// A regular expression that the whole module path must match.
    Regex(String),
}

impl Default for TargetModules {
    fn default() -> Self {
        Self::Names(Vec::new())
    }
}

impl TargetModules {
    /// True if it names no module.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Names(names) if names.is_empty())
    }

    /// True if it names `module`.
    pub(crate) fn matches(&self, module: &str) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|name| site::name_matches(module, name)),
            Self::Regex(pattern) => site::whole_matches(pattern, module),
        }
    }
}

/// Which sites share one (phi, psi).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// One group per projection type, across all layers: the paper's setting.
    #[default]
    Kind,
    /// One group for all sites (they need equal d_in).
    All,
    /// Every site its own generator.
    Site,
    /// Regular expressions matched from the start of the module path; a site joins the first that matches.
    Groups(Vec<String>),
}

/// A fused weight and the column blocks of it that are adapted, such as q and v of `attn.qkv`. Every block is a
/// site of its own, named `<module>.<block>`: separate generators by [`Sharing::Kind`], one with a group pattern.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fused {
    /// Name ending of the fused module, `attn.qkv`.
    pub module: String,
    /// Names of all its blocks, in the order of the columns.
    pub blocks: Vec<String>,
    /// Columns of each block; equal ones if empty.
    #[serde(default)]
    pub widths: Vec<usize>,
    /// The blocks to adapt.
    pub adapt: Vec<String>,
}

impl Fused {
    /// Some of q, k and v of a module whose weight is three equal blocks.
    pub fn qkv<S: Into<String>>(module: impl Into<String>, adapt: impl IntoIterator<Item = S>) -> Self {
        Self {
            module: module.into(),
            blocks: ["q", "k", "v"].map(Into::into).to_vec(),
            widths: Vec::new(),
            adapt: adapt.into_iter().map(Into::into).collect(),
        }
    }
}

/// Ranks and alphas that differ from the method's for some modules, as in PEFT. A key is a module name, a name
/// ending or a regular expression for one; the first that matches counts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Patterns {
    /// Module -> rank.
    #[serde(default, deserialize_with = "null_as_default")]
    pub rank_pattern: BTreeMap<String, usize>,
    /// Module -> alpha.
    #[serde(default, deserialize_with = "null_as_default")]
    pub alpha_pattern: BTreeMap<String, f64>,
}

impl Patterns {
    /// Rank and alpha of `module`, `r` and `alpha` where no pattern says otherwise.
    pub fn of(&self, module: &str, r: usize, alpha: f64) -> (usize, f64) {
        let matches = |key: &&String| site::pattern_matches(key, module);
        let found = |key: Option<&String>| key.cloned();
        let r = found(self.rank_pattern.keys().find(matches)).map_or(r, |key| self.rank_pattern[&key]);
        let alpha = found(self.alpha_pattern.keys().find(matches)).map_or(alpha, |key| self.alpha_pattern[&key]);
        (r, alpha)
    }

    /// Refuses a key that is no regular expression or matches no site.
    pub(crate) fn check(&self, sites: &[Site]) -> Result<(), AdapterError> {
        for key in self.rank_pattern.keys().chain(self.alpha_pattern.keys()) {
            site::module_regex(key)?;
            if !sites.iter().any(|site| site::pattern_matches(key, &site.module())) {
                let message = format!("'{key}' matches none of the adapted modules");
                return Err(AdapterError::bad_field("rank_pattern or alpha_pattern", message));
            }
        }
        Ok(())
    }
}

/// Selection of modules, the same for every method.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Targets {
    /// Modules to adapt.
    #[serde(default)]
    pub target_modules: TargetModules,
    /// Modules to leave out even if `target_modules` matches them.
    #[serde(default, deserialize_with = "null_as_default")]
    pub exclude_modules: Vec<String>,
    /// Only these layer numbers; all layers if absent.
    #[serde(default)]
    pub layers_to_transform: Option<Vec<usize>>,
    /// Modules trained in full and saved with the adapter, such as the classifier head.
    #[serde(default, deserialize_with = "null_as_default")]
    pub modules_to_save: Vec<String>,
    /// Targets of which only some column blocks are adapted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fused: Vec<Fused>,
}

/// Reads null, which PEFT writes for what is not set, as the default.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// The fine-tuning method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "peft_type", rename_all = "UPPERCASE")]
pub enum Method {
    /// Weight-generative fine-tuning.
    Wegeft(WegeftConfig),
    /// Low-rank adaptation, with its variants: rsLoRA, LoRA+, LoRA-FA, DoRA, PiSSA, OLoRA.
    Lora(LoraConfig),
    /// Vector-based random matrix adaptation.
    Vera(VeraConfig),
    /// Learned scales of activations.
    Ia3(Ia3Config),
    /// Biases only.
    Bitfit(BitfitConfig),
    /// Norms only.
    #[serde(rename = "LN_TUNING")]
    LayerNorm(LayerNormConfig),
    /// Low-rank edits of representations.
    Reft(ReftConfig),
    /// Visual prompts.
    Vpt(VptConfig),
    /// Bottleneck adapters.
    Bottleneck(BottleneckConfig),
    /// Only `modules_to_save` is trained.
    Linear,
    /// Everything is trained.
    Full,
}

/// A whole adapter: the method and what it acts on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterConfig {
    /// The method and its settings.
    #[serde(flatten)]
    pub method: Method,
    /// What it acts on.
    #[serde(flatten)]
    pub targets: Targets,
    /// Fields of an adapter_config.json that say nothing of the adapter's function (`base_model_name_or_path`, …):
    /// kept and written back.
    #[serde(skip)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl Method {
    /// True if the method itself trains that parameter of the model in full.
    pub(crate) fn trains(&self, _param: &ParamInfo) -> bool {
        matches!(self, Self::Full)
    }

    /// How the method makes its bank; none for the two that have no bank.
    pub(crate) fn recipe(&self) -> Option<&dyn Recipe> {
        match self {
            Self::Wegeft(config) => Some(config),
            Self::Lora(config) => Some(config),
            Self::Vera(config) => Some(config),
            Self::Ia3(config) => Some(config),
            Self::Bitfit(config) => Some(config),
            Self::LayerNorm(config) => Some(config),
            Self::Reft(config) => Some(config),
            Self::Vpt(config) => Some(config),
            Self::Bottleneck(config) => Some(config),
            Self::Linear | Self::Full => None,
        }
    }

    /// Number of trainable values of this method on `sites`, without making anything: all that
    /// [`Summary::adapter_params`](crate::Summary) counts for a model with these sites. For [`Method::Full`], the
    /// sites' own values.
    ///
    /// # Errors
    /// Settings or sites that the method refuses.
    pub fn params_of(&self, sites: &[Site]) -> Result<usize, AdapterError> {
        match (self, self.recipe()) {
            (_, Some(recipe)) => Ok(recipe.groups(sites)?.iter().map(|group| recipe.params(group)).sum()),
            (Self::Full, None) => Ok(sites.iter().map(|site| site.d_in * site.d_out).sum()),
            (_, None) => Ok(0),
        }
    }

    /// True if the adapter can be merged into the weights. Methods on hooks edit activations and cannot.
    pub fn merges(&self) -> bool {
        self.recipe().is_none_or(Recipe::merges)
    }

    /// True if rows of one batch can each use an adapter of this method of their own
    /// ([`Adapters::bind_rows`](crate::Adapters::bind_rows)): it leaves what is no linear layer's alone.
    pub fn mixes(&self) -> bool {
        match self {
            Self::LayerNorm(_) | Self::Full => false,
            Self::Bitfit(bitfit) => !bitfit.layer_norm,
            _ => true,
        }
    }

    /// True if [`Adapted::export_lora`](crate::Adapted::export_lora) can write the adapter as standard LoRA.
    pub fn has_lora_form(&self) -> bool {
        self.recipe().is_some_and(Recipe::has_lora_form)
    }
}

impl AdapterConfig {
    /// An adapter of the given method with no target yet.
    pub fn new(method: Method) -> Self {
        Self {
            method,
            targets: Targets::default(),
            extra: serde_json::Map::new(),
        }
    }

    /// WeGeFT of the given rank.
    pub fn wegeft(r: usize) -> Self {
        Self::new(Method::Wegeft(WegeftConfig::new(r)))
    }

    /// LoRA of the given rank.
    pub fn lora(r: usize) -> Self {
        Self::new(Method::Lora(LoraConfig::new(r)))
    }

    /// LoRA of the given rank with DoRA's magnitudes.
    pub fn dora(r: usize) -> Self {
        Self::new(Method::Lora(LoraConfig::new(r).with_dora(true)))
    }

    /// VeRA of the given rank.
    pub fn vera(r: usize) -> Self {
        Self::new(Method::Vera(VeraConfig::new(r)))
    }

    /// IA3; `feedforward_modules` are the targets of which the input is scaled instead of the output.
    pub fn ia3<S: Into<String>>(feedforward_modules: impl IntoIterator<Item = S>) -> Self {
        Self::new(Method::Ia3(Ia3Config::new(feedforward_modules)))
    }

    /// BitFit on the biases of all linear layers.
    pub fn bitfit() -> Self {
        Self::new(Method::Bitfit(BitfitConfig::new()))
    }

    /// Tuning of all norms.
    pub fn layer_norm() -> Self {
        Self::new(Method::LayerNorm(LayerNormConfig::new()))
    }

    /// LoReFT of the given rank on every block's output.
    pub fn loreft(r: usize) -> Self {
        Self::new(Method::Reft(ReftConfig::loreft(r)))
    }

    /// DiReFT of the given rank on every block's output.
    pub fn direft(r: usize) -> Self {
        Self::new(Method::Reft(ReftConfig::direft(r)))
    }

    /// That many visual prompt tokens at every block (`deep`), or at the first.
    pub fn vpt(num_virtual_tokens: usize, deep: bool) -> Self {
        Self::new(Method::Vpt(VptConfig::new(num_virtual_tokens, deep)))
    }

    /// Houlsby's bottleneck adapters, after attention and after the MLP.
    pub fn houlsby(bottleneck_size: usize) -> Self {
        Self::new(Method::Bottleneck(BottleneckConfig::houlsby(bottleneck_size)))
    }

    /// Pfeiffer's bottleneck adapters, after the MLP.
    pub fn pfeiffer(bottleneck_size: usize) -> Self {
        Self::new(Method::Bottleneck(BottleneckConfig::pfeiffer(bottleneck_size)))
    }

    /// A fused weight of which only some blocks are adapted; it must be a target too.
    pub fn with_fused(mut self, fused: Fused) -> Self {
        self.targets.fused.push(fused);
        self
    }

    /// Names or name endings of the modules to adapt.
    pub fn with_target_modules<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.targets.target_modules = TargetModules::Names(names.into_iter().map(Into::into).collect());
        self
    }

    /// A regular expression over whole module paths.
    pub fn with_target_regex(mut self, pattern: impl Into<String>) -> Self {
        self.targets.target_modules = TargetModules::Regex(pattern.into());
        self
    }

    /// Modules to leave out.
    pub fn with_exclude_modules<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.targets.exclude_modules = names.into_iter().map(Into::into).collect();
        self
    }

    /// Only these layers.
    pub fn with_layers_to_transform(mut self, layers: impl IntoIterator<Item = usize>) -> Self {
        self.targets.layers_to_transform = Some(layers.into_iter().collect());
        self
    }

    /// Modules trained in full, such as the classifier head.
    pub fn with_modules_to_save<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.targets.modules_to_save = names.into_iter().map(Into::into).collect();
        self
    }

    /// Adapts `model`: freezes it, makes the bank on the model's device.
    ///
    /// # Errors
    /// A target that matches nothing or is no matrix, an impossible rank, unequal d_in in a group,
    /// a `modules_to_save` that names no module.
    pub fn init<M: Module + ModuleDisplay>(&self, model: M) -> Result<Adapted<M>, AdapterError> {
        let places = site::places(&model);
        let params = &places.params;
        for name in &self.targets.modules_to_save {
            if !params
                .iter()
                .any(|param| site::is_saved(&param.path, std::slice::from_ref(name)))
            {
                let heads: Vec<_> = params.iter().map(|param| site::kind(param.module())).collect();
                let message = format!(
                    "'{name}' names no module of the model; the last ones are: {}",
                    last(heads)
                );
                return Err(AdapterError::bad_field("modules_to_save", message));
            }
        }
        let bank = Bank::init(self, &model, &places)?;
        Ok(Adapted::new(model, bank, self.clone()))
    }
}

fn last(mut names: Vec<String>) -> String {
    names.dedup();
    let from = names.len().saturating_sub(4);
    names[from..].join(", ")
}
