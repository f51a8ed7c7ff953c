//! What an adapter acts on: PEFT's field names, the same for every method.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::AdapterError;
use crate::expression::{Regex, regex};
use crate::json::null_as_default;
use crate::site::{self, ParamInfo};

/// PEFT's keyword for all linear layers except the output layer.
const ALL_LINEAR: &str = "all-linear";
/// The output layer's name in transformers.
const OUTPUT_LAYER: &str = "lm_head";

/// Which modules to adapt, as in PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    /// Names or name endings: `attn.proj` matches `blocks.3.attn.proj`.
    Names(Vec<String>),
    /// A regular expression that the whole module path must match, with look-around as in Python; or `all-linear`: all
    /// linear layers except a language model's head.
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

    /// Decides whether a module is named; compiled once.
    pub(crate) fn matcher(&self) -> Result<Matcher<'_>, AdapterError> {
        Ok(match self {
            Self::Names(names) => Matcher::Names(names),
            Self::Regex(word) if word.eq_ignore_ascii_case(ALL_LINEAR) => Matcher::AllLinear,
            Self::Regex(pattern) => Matcher::Regex(regex(pattern)?),
        })
    }
}

/// [`TargetModules`], compiled.
pub(crate) enum Matcher<'a> {
    Names(&'a [String]),
    Regex(Regex),
    AllLinear,
}

impl Matcher<'_> {
    /// True if `module` is named; `all-linear` goes by the kind of the module and matches no name.
    pub(crate) fn matches(&self, module: &str) -> Result<bool, AdapterError> {
        match self {
            Self::Names(names) => Ok(names.iter().any(|name| site::name_matches(module, name))),
            Self::Regex(regex) => regex.matches(module),
            Self::AllLinear => Ok(false),
        }
    }

    /// True if the module that holds `param` is named.
    pub(crate) fn matches_param(&self, param: &ParamInfo) -> Result<bool, AdapterError> {
        match self {
            Self::AllLinear => Ok(param.is_linear_weight() && !site::name_matches(param.name(), OUTPUT_LAYER)),
            _ => self.matches(param.name()),
        }
    }
}

/// A fused weight and the column blocks of it that are adapted, such as q and v of `attn.qkv`. Every block is a site of its
/// own, named `<module>.<block>`: blocks have separate factors with [`Sharing::Kind`](crate::Sharing::Kind), and share them
/// if a group pattern matches both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fused {
    /// Name ending of the fused module, `attn.qkv`.
    pub module: String,
    /// Names of all its blocks, in the order of the columns.
    pub blocks: Vec<String>,
    /// Number of columns of each block; if empty, all blocks are equally wide.
    #[serde(default)]
    pub widths: Vec<usize>,
    /// The blocks to adapt.
    pub adapt: Vec<String>,
}

impl Fused {
    /// The blocks `adapt` of a module whose weight is q, k and v side by side.
    pub fn qkv<S: Into<String>>(module: impl Into<String>, adapt: impl IntoIterator<Item = S>) -> Self {
        Self {
            module: module.into(),
            blocks: ["q", "k", "v"].map(Into::into).to_vec(),
            widths: Vec::new(),
            adapt: adapt.into_iter().map(Into::into).collect(),
        }
    }
}

/// Token ids whose rows of an embedding are trained, as in PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TokenIndices {
    /// Of the model's only embedding.
    All(Vec<usize>),
    /// Of the embeddings of these names or name endings.
    ByModule(BTreeMap<String, Vec<usize>>),
}

/// What an adapter acts on, with the same fields for every method.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Targets {
    /// Modules to adapt.
    #[serde(default, deserialize_with = "null_as_default")]
    pub target_modules: TargetModules,
    /// Modules to exclude even if `target_modules` matches them.
    #[serde(default, deserialize_with = "null_as_default")]
    pub exclude_modules: TargetModules,
    /// Only these layer numbers; all layers if absent. On disk a number or a list.
    #[serde(default, deserialize_with = "one_or_many")]
    pub layers_to_transform: Option<Vec<usize>>,
    /// Names of the lists whose index is the layer number (`layers`, `h`); if absent, the first number in a path is the
    /// layer number. On disk a name or a list.
    #[serde(default, deserialize_with = "one_or_many", skip_serializing_if = "Option::is_none")]
    pub layers_pattern: Option<Vec<String>>,
    /// Modules trained in full and saved with the adapter, such as the classifier head. As in PEFT, any ending of a module's
    /// name will do: `norm` also names `input_layernorm`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub modules_to_save: Vec<String>,
    /// Parameters to adapt by their own names, such as `mlp.experts.gate_up_proj` of `[experts, d_in, d_out]`: names or name
    /// endings.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub target_parameters: Vec<String>,
    /// Tokens whose rows of an embedding are trained in full, beside any method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trainable_token_indices: Option<TokenIndices>,
    /// True: a tied weight is one site, and all its places get the same edit. False: each place that is named is a site of
    /// its own.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub ensure_weight_tying: bool,
    /// Targets of which only some column blocks are adapted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fused: Vec<Fused>,
}

/// A field of [`Targets`] that some methods do not read. [`Method::reads`](crate::Method::reads) lists those that a method
/// reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetField {
    /// [`Targets::target_modules`]
    TargetModules,
    /// [`Targets::exclude_modules`]
    ExcludeModules,
    /// [`Targets::layers_to_transform`]
    LayersToTransform,
    /// [`Targets::target_parameters`]
    TargetParameters,
    /// [`Targets::fused`]
    Fused,
}

impl TargetField {
    /// What [`Targets::weights`] reads: all of them.
    pub const OF_WEIGHTS: &[Self] = &[
        Self::TargetModules,
        Self::ExcludeModules,
        Self::LayersToTransform,
        Self::TargetParameters,
        Self::Fused,
    ];

    /// What [`Targets::vectors`] and [`Targets::hooks`] read.
    pub const OF_PLACES: &[Self] = &[Self::TargetModules, Self::ExcludeModules, Self::LayersToTransform];

    /// The field's name in adapter_config.json.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TargetModules => "target_modules",
            Self::ExcludeModules => "exclude_modules",
            Self::LayersToTransform => "layers_to_transform",
            Self::TargetParameters => "target_parameters",
            Self::Fused => "fused",
        }
    }
}

impl Targets {
    /// The names of all fields in adapter_config.json.
    pub(crate) const FIELDS: [&'static str; 9] = [
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "modules_to_save",
        "target_parameters",
        "trainable_token_indices",
        "ensure_weight_tying",
        "fused",
    ];

    /// The fields that are set, of those that not every method reads.
    pub(crate) fn set(&self) -> Vec<TargetField> {
        let is_set = |field: &TargetField| match field {
            TargetField::TargetModules => !self.target_modules.is_empty(),
            TargetField::ExcludeModules => !self.exclude_modules.is_empty(),
            TargetField::LayersToTransform => self
                .layers_to_transform
                .as_ref()
                .is_some_and(|layers| !layers.is_empty()),
            TargetField::TargetParameters => !self.target_parameters.is_empty(),
            TargetField::Fused => !self.fused.is_empty(),
        };
        TargetField::OF_WEIGHTS.iter().copied().filter(is_set).collect()
    }
}

/// One element or a list of them; null means none.
fn one_or_many<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany<T> {
        One(T),
        Many(Vec<T>),
    }
    Ok(match Option::<OneOrMany<T>>::deserialize(deserializer)? {
        None => None,
        Some(OneOrMany::One(one)) => Some(vec![one]),
        Some(OneOrMany::Many(many)) => Some(many),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_known_by_its_name() {
        let all = Targets {
            layers_to_transform: Some(vec![0]),
            layers_pattern: Some(vec!["h".into()]),
            target_parameters: vec!["up".into()],
            trainable_token_indices: Some(TokenIndices::All(vec![0])),
            ensure_weight_tying: true,
            fused: vec![Fused::qkv("qkv", ["q"])],
            ..Targets::default()
        };
        let fields = crate::method::settings(&all);
        let mut names: Vec<&str> = fields.keys().map(String::as_str).collect();
        let mut known = Targets::FIELDS.to_vec();
        names.sort_unstable();
        known.sort_unstable();
        assert_eq!(names, known);
    }
}
