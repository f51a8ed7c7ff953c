//! What to adapt and how: PEFT's field names, Burn's conventions.

use burn::module::{Module, ModuleDisplay};
use serde::{Deserialize, Serialize};

use crate::adapted::Adapted;
use crate::bank::Bank;
use crate::error::AdapterError;
use crate::methods::{lora::LoraConfig, wegeft::WegeftConfig};
use crate::site;

/// Which modules to adapt, as in PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    /// Names or name endings: `attn.proj` matches `blocks.3.attn.proj`.
    Names(Vec<String>),
    /// A regular expression that the whole module path must match.
    Regex(String),
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

/// Selection of modules, the same for every method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Targets {
    /// Modules to adapt.
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
}

fn null_as_default<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default())
}

impl Default for Targets {
    fn default() -> Self {
        Self {
            target_modules: TargetModules::Names(Vec::new()),
            exclude_modules: Vec::new(),
            layers_to_transform: None,
            modules_to_save: Vec::new(),
        }
    }
}

/// The fine-tuning method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "peft_type", rename_all = "UPPERCASE")]
pub enum Method {
    /// Weight-generative fine-tuning.
    Wegeft(WegeftConfig),
    /// Low-rank adaptation.
    Lora(LoraConfig),
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
}

impl AdapterConfig {
    /// An adapter of the given method with no target yet.
    pub fn new(method: Method) -> Self {
        Self {
            method,
            targets: Targets::default(),
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
        let params = site::params(&model);
        for name in &self.targets.modules_to_save {
            if !params
                .iter()
                .any(|param| site::is_saved(&param.path, std::slice::from_ref(name)))
            {
                let heads: Vec<_> = params.iter().map(|param| site::kind(param.module())).collect();
                return Err(AdapterError::BadField {
                    field: "modules_to_save".to_string(),
                    message: format!(
                        "'{name}' names no module of the model; the last ones are: {}",
                        last(heads)
                    ),
                });
            }
        }
        let device = model.devices().into_iter().next().unwrap_or_default();
        let bank = match &self.method {
            Method::Wegeft(config) => {
                let sites = site::find(&params, &self.targets)?;
                Bank::wegeft(config, &sites, &device)?
            }
            Method::Lora(config) => {
                let sites = site::find(&params, &self.targets)?;
                Bank::lora(config, &sites, &device)?
            }
            Method::Linear | Method::Full => Bank::default(),
        };
        Ok(Adapted::new(model, bank, self.clone()))
    }
}

fn last(mut names: Vec<String>) -> String {
    names.dedup();
    let from = names.len().saturating_sub(4);
    names[from..].join(", ")
}
