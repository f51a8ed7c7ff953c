//! Settings of the adapters: those for all methods, and `[methods.NAME]` for one.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Deserializer, Serialize};

/// The method that trains nothing: the unchanged language model.
pub const NONE: &str = "none";

/// Which factor of WeGeFT is initialized to zero.
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
    /// Methods, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "linear,lora,wegeft")]
    pub method: Vec<String>,
    /// Modules to adapt, separated by commas, for methods that act on weights; IA3 and methods that act on biases,
    /// norms or activations have their own.
    #[arg(long, value_delimiter = ',', default_value = "attn.proj")]
    pub target_modules: Vec<String>,
    /// Rank of WeGeFT.
    #[arg(long, alias = "rank", default_value_t = 16)]
    pub r: usize,
    /// Rank of LoRA and its variants, LoHa, LoKr, MiSS, HiRA and ReFT, and the final rank of AdaLoRA.
    #[arg(long, alias = "lora-rank", default_value_t = 8)]
    pub lora_r: usize,
    /// Numerator of the scale alpha / r [default: the rank].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Numerator of the scale alpha / r of LoRA and its variants, AdaLoRA, LoHa and LoKr; a given --alpha replaces the default
    /// [default: --alpha].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_alpha: Option<f64>,
    /// Dropout on the input of the first factor of LoRA and its variants, AdaLoRA, MiSS and HiRA, during training.
    #[arg(long, default_value_t = 0.0)]
    pub lora_dropout: f64,
    /// WeGeFT's dropout on the elements of W during training; the paper's language runs use 0.1.
    #[arg(long, default_value_t = 0.0)]
    pub weight_dropout: f64,
    /// Which factor of WeGeFT is initialized to zero.
    #[arg(long, value_enum, default_value_t = ZeroFactor::Psi)]
    pub zero_factor: ZeroFactor,
}

/// Settings of one method; absent fields have the value for all methods.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MethodSettings {
    /// Rank; width of the bottleneck (houlsby, pfeiffer).
    #[serde(alias = "rank", skip_serializing_if = "Option::is_none")]
    pub r: Option<usize>,
    /// Numerator of the scale.
    #[serde(alias = "lora_alpha", skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Initial rank of AdaLoRA; 1.5 times r if absent, as in its paper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_r: Option<usize>,
    /// Steps before AdaLoRA starts to prune ranks; a tenth of all steps if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tinit: Option<usize>,
    /// Final steps in which AdaLoRA's ranks stay fixed; half of all steps if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tfinal: Option<usize>,
    /// Steps between two prunings of AdaLoRA's ranks; 1/200 of all steps if absent.
    #[serde(alias = "deltaT", skip_serializing_if = "Option::is_none")]
    pub delta_t: Option<usize>,
    /// Weight of AdaLoRA's orthogonality penalty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orth_reg_weight: Option<f64>,
    /// Block size of OFT and BOFT, in channels.
    #[serde(
        alias = "oft_block_size",
        alias = "boft_block_size",
        skip_serializing_if = "Option::is_none"
    )]
    pub block_size: Option<usize>,
    /// Factors of BOFT's rotation.
    #[serde(alias = "boft_n_butterfly_factor", skip_serializing_if = "Option::is_none")]
    pub n_butterfly_factor: Option<usize>,
    /// Tokens of VPT (5), of prompt and of prefix tuning (20).
    #[serde(alias = "num_virtual_tokens", skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Modules to adapt (or hooks, for methods that act on activations).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_modules: Option<Vec<String>>,
    /// Peak learning rate.
    #[serde(alias = "lr", skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Weight decay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Learning rates of the grid.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_more")]
    pub sweep_lr: Option<Vec<f64>>,
    /// Weight decays of the grid.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_more")]
    pub sweep_weight_decay: Option<Vec<f64>>,
}

/// A number, or a list of them.
fn one_or_more<'de, D: Deserializer<'de>>(given: D) -> Result<Option<Vec<f64>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a number or a list of numbers")]
    enum Numbers {
        One(f64),
        More(Vec<f64>),
    }
    Ok(Some(match Numbers::deserialize(given)? {
        Numbers::One(number) => vec![number],
        Numbers::More(numbers) => numbers,
    }))
}

/// `[methods.NAME]`: settings of one method that override those of all methods.
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

impl Wing {
    /// Name in messages.
    pub(super) fn models(self) -> &'static str {
        match self {
            Self::Vision => "vision transformers",
            Self::Language => "language models",
            Self::Text => "text classifiers",
        }
    }
}
