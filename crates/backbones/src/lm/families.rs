//! The families of decoders: [`FAMILIES`] is the only list of them. A new one is a file beside this one and a line in
//! the table below.

use burn::module::{Module, ModuleMapper, ModuleVisitor};
use burn::tensor::Device;
use serde_json::Value;

use super::config::DecoderConfig;
use super::family::Family;
use super::fields::Fields;
use super::gemma::{self, GemmaLayer};
use super::gpt2::{self, Gpt2};
use super::llama::{self, LlamaLayer};
use super::parts::Parts;
use super::phi3::{self, Phi3Layer};
use super::stack::CausalLm;
use crate::error::ConfigError;

// Burn's `Module` is generic over its visitors, so a model of any family cannot be a trait object: it is an enum, and
// this writes the enum and its matches from one line per family.
macro_rules! families {
    ($($name:ident($model:ty): $family:expr;)*) => {
        /// Every family.
        pub const FAMILIES: &[Family] = &[$($family),*];

        /// A model of any family.
        #[derive(Module, Debug)]
        pub(crate) enum Model {
            $($name($model)),*
        }

        impl Model {
            /// A randomly initialized model.
            ///
            /// # Panics
            /// A `config` whose family is not in the table.
            pub(crate) fn new(config: &DecoderConfig, device: &Device) -> Self {
                $(if config.family == $family.name {
                    return Self::$name(<$model as Parts>::build(config, device));
                })*
                panic!("'{}' is not the name of a family of decoders", config.family)
            }

            pub(crate) fn parts(&self) -> &dyn Parts {
                match self {
                    $(Self::$name(model) => model),*
                }
            }

            pub(crate) fn parts_mut(&mut self) -> &mut dyn Parts {
                match self {
                    $(Self::$name(model) => model),*
                }
            }

            /// As `visit`, without the family's name in the paths: these are then the checkpoint's and PEFT's.
            pub(crate) fn visit_inner<V: ModuleVisitor>(&self, visitor: &mut V) {
                match self {
                    $(Self::$name(model) => model.visit(visitor)),*
                }
            }

            /// As `map`, without the family's name in the paths.
            pub(crate) fn map_inner<M: ModuleMapper>(self, mapper: &mut M) -> Self {
                match self {
                    $(Self::$name(model) => Self::$name(model.map(mapper))),*
                }
            }
        }
    };
}

families! {
    Llama(CausalLm<LlamaLayer>): llama::FAMILY;
    Gemma(CausalLm<GemmaLayer>): gemma::FAMILY;
    Phi3(CausalLm<Phi3Layer>): phi3::FAMILY;
    Gpt2(Gpt2): gpt2::FAMILY;
}

impl Family {
    /// The family of a config.
    ///
    /// # Panics
    /// A `config` whose family is not in the table.
    pub(crate) fn of(config: &DecoderConfig) -> &'static Self {
        let found = FAMILIES.iter().find(|family| family.name == config.family);
        found.unwrap_or_else(|| panic!("'{}' is not the name of a family of decoders", config.family))
    }
}

/// Gemma 3 with images wraps its text model's config in this `model_type`.
const WITH_IMAGES: &str = "gemma3";

impl DecoderConfig {
    /// Reads Hugging Face's config.json. Of Gemma 3 with images, the text model is read.
    ///
    /// # Errors
    /// A `model_type`, or a field that changes the computation, that is not implemented; a field that is malformed.
    pub fn from_hf(json: &Value) -> Result<Self, ConfigError> {
        Self::read_hf(json).map(|(config, _)| config)
    }

    /// As [`DecoderConfig::from_hf`]; also returns the names of fields that are set but that this model does not read.
    ///
    /// # Errors
    /// As [`DecoderConfig::from_hf`].
    pub fn read_hf(json: &Value) -> Result<(Self, Vec<String>), ConfigError> {
        let fields = Fields::new(json)?;
        let kind = fields.text_or("model_type", "")?;
        fields.refuse("quantization_config")?;
        if let (WITH_IMAGES, Some(text)) = (kind, json.get("text_config")) {
            return Self::read_hf(text);
        }
        let family = FAMILIES.iter().find(|family| family.model_types.contains(&kind));
        let family = family.ok_or_else(|| {
            let known: Vec<&str> = model_types().collect();
            ConfigError::field(
                "model_type",
                format!(
                    "is '{kind}'; implemented are {} (SmolLM is llama, Qwen2.5 qwen2)",
                    known.join(", ")
                ),
            )
        })?;
        // false: attention in both directions, as models of embeddings have it.
        fields.require("is_causal")?;
        let config = (family.config)(kind, &fields)?;
        config.check()?;
        Ok((config, fields.ignored()))
    }

    /// True if a config.json is a language model's, implemented here or not.
    pub fn is_of_language(json: &Value) -> bool {
        let kind = json.get("model_type").and_then(Value::as_str);
        let architectures = json.get("architectures").and_then(Value::as_array);
        let mut names = architectures.into_iter().flatten().filter_map(Value::as_str);
        kind.is_some_and(|kind| model_types().any(|known| known == kind))
            || names.any(|name| name.ends_with("ForCausalLM") || name.ends_with("LMHeadModel"))
    }
}

/// Every `model_type` that can be read.
fn model_types() -> impl Iterator<Item = &'static str> {
    let own = FAMILIES.iter().flat_map(|family| family.model_types.iter().copied());
    own.chain([WITH_IMAGES])
}
