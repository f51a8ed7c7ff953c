//! A whole adapter's config: the method and what it acts on, with PEFT's field names and Burn's conventions.

use std::any::Any;
use std::sync::Arc;

use serde::de::{Deserializer, Error};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::method::{Method, Reader, settings};
use crate::methods::METHODS;
use crate::targets::{Fused, TargetModules, Targets, TokenIndices};
use crate::unsupported;

/// A whole adapter: the method and what it acts on.
#[derive(Debug, Clone)]
pub struct AdapterConfig {
    /// The method and its settings.
    pub method: Arc<dyn Method>,
    /// What it acts on.
    pub targets: Targets,
    /// Fields of adapter_config.json that do not affect what the adapter computes (`base_model_name_or_path`, …); they are
    /// written back when the adapter is saved.
    pub extra: Map<String, Value>,
}

impl PartialEq for AdapterConfig {
    fn eq(&self, other: &Self) -> bool {
        self.fields() == other.fields() && self.extra == other.extra
    }
}

impl Serialize for AdapterConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.on_disk().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for AdapterConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        Self::from_fields(fields, &[]).map_err(D::Error::custom)
    }
}

impl AdapterConfig {
    /// An adapter of the given method, without targets yet.
    pub fn new(method: impl Method) -> Self {
        Self {
            method: Arc::new(method),
            targets: Targets::default(),
            extra: Map::new(),
        }
    }

    /// The method's settings, if they are of that type.
    ///
    /// ```
    /// use wegeft::{AdapterConfig, LoraConfig, WegeftConfig};
    /// let config = AdapterConfig::lora(8);
    /// assert_eq!(config.settings::<LoraConfig>().map(|lora| lora.r), Some(8));
    /// assert!(config.settings::<WegeftConfig>().is_none());
    /// ```
    pub fn settings<M: Method>(&self) -> Option<&M> {
        let method: &dyn Any = &*self.method;
        method.downcast_ref()
    }

    /// The fields that adapter_config.json has for this method and these targets.
    pub(crate) fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("peft_type".into(), self.method.name().into());
        fields.extend(self.method.settings());
        fields.extend(settings(&self.targets));
        fields
    }

    /// All fields of adapter_config.json. A field of the method or the targets wins over one of the same name in `extra`,
    /// which a file has where it was null.
    pub(crate) fn on_disk(&self) -> Map<String, Value> {
        let mut all = self.fields();
        for (name, value) in &self.extra {
            all.entry(name.clone()).or_insert_with(|| value.clone());
        }
        all
    }

    /// The config that `fields` describe, of one of the `own` methods or one of this crate's; unknown fields become
    /// [`AdapterConfig::extra`]. The method may remove fields that only it knows.
    pub(crate) fn from_fields(mut fields: Map<String, Value>, own: &[(&str, Reader)]) -> serde_json::Result<Self> {
        if let Some((field, value)) = unsupported::first(&fields) {
            return Err(bad(format!(
                "field '{field}' is {value}, which is not implemented; leave it unset"
            )));
        }
        let name = match fields.get("peft_type") {
            Some(Value::String(name)) => name.clone(),
            Some(other) => {
                return Err(bad(format!(
                    "field 'peft_type' is {other}; expected the name of a method"
                )));
            }
            None => return Err(bad("field 'peft_type' is missing; it names the method".to_string())),
        };
        let mut methods = own.iter().chain(METHODS);
        let Some((known, read)) = methods.find(|(known, _)| known.eq_ignore_ascii_case(&name)) else {
            let known: Vec<&str> = own.iter().chain(METHODS).map(|(known, _)| *known).collect();
            let message = format!(
                "field 'peft_type' is '{name}'; known methods are {}; a Rust program reads a method of its own with \
                 wegeft::read_config_with or AdapterFiles::attach_with",
                known.join(", ")
            );
            return Err(bad(message));
        };
        fields.insert("peft_type".into(), (*known).into());
        let method = read(&mut fields)?;
        let targets = Targets::deserialize(Value::Object(fields.clone()))?;
        let mut config = Self {
            method,
            targets,
            extra: Map::new(),
        };
        let known = config.fields();
        fields.retain(|name, _| !known.contains_key(name));
        config.extra = fields;
        Ok(config)
    }

    /// Adapts only some blocks of a fused weight, which must also be among the targets.
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

    /// Names or name endings of modules to leave out.
    pub fn with_exclude_modules<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.targets.exclude_modules = TargetModules::Names(names.into_iter().map(Into::into).collect());
        self
    }

    /// Adapts only the layers of these numbers.
    pub fn with_layers_to_transform(mut self, layers: impl IntoIterator<Item = usize>) -> Self {
        self.targets.layers_to_transform = Some(layers.into_iter().collect());
        self
    }

    /// Parameters to adapt by their own names or name endings, such as the stacked weights of experts,
    /// `mlp.experts.gate_up_proj` of `[experts, d_in, d_out]`.
    pub fn with_target_parameters<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.targets.target_parameters = names.into_iter().map(Into::into).collect();
        self
    }

    /// Tokens whose rows of an embedding are trained in full, beside the method.
    pub fn with_trainable_tokens(mut self, tokens: TokenIndices) -> Self {
        self.targets.trainable_token_indices = Some(tokens);
        self
    }

    /// Whether all places of a tied weight get the same edit (PEFT's `ensure_weight_tying`).
    pub fn with_weight_tying(mut self, ensure: bool) -> Self {
        self.targets.ensure_weight_tying = ensure;
        self
    }

    /// Modules trained in full, such as the classifier head.
    pub fn with_modules_to_save<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.targets.modules_to_save = names.into_iter().map(Into::into).collect();
        self
    }
}

fn bad(message: String) -> serde_json::Error {
    serde_json::Error::custom(message)
}
