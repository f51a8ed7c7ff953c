//! The methods, one file each: a config that implements [`Method`](crate::Method) and the edit that it binds.

pub mod adalora;
pub mod bitfit;
pub mod boft;
pub mod bottleneck;
mod cayley;
mod check;
mod dora;
mod fork;
pub mod full;
pub mod generator;
mod generator_net;
pub mod hira;
pub mod ia3;
#[cfg(test)]
mod laws;
pub mod layernorm;
pub mod linear_probing;
pub mod loha;
pub mod lokr;
pub mod lora;
mod lora_edit;
pub mod lora_init;
mod lora_sites;
mod lycoris;
pub mod miss;
pub mod oft;
mod orthonormal;
pub mod prefix_tuning;
pub mod prompt_tuning;
pub mod reft;
pub mod tokens;
mod vector;
pub mod vera;
mod virtual_tokens;
pub mod vpt;
pub mod wegeft;
mod wegeft_settings;

use crate::method::{Reader, read};

pub use adalora::AdaLoraConfig;
pub use bitfit::BitfitConfig;
pub use boft::BoftConfig;
pub use bottleneck::BottleneckConfig;
pub use full::FullConfig;
pub use hira::HiraConfig;
pub use ia3::Ia3Config;
pub use layernorm::LayerNormConfig;
pub use linear_probing::LinearProbingConfig;
pub use loha::LohaConfig;
pub use lokr::LokrConfig;
pub use lora::LoraConfig;
pub use miss::MissConfig;
pub use oft::OftConfig;
pub use prefix_tuning::PrefixTuningConfig;
pub use prompt_tuning::PromptTuningConfig;
pub use reft::ReftConfig;
pub(crate) use tokens::TokenRows;
pub use tokens::TrainableTokensConfig;
pub use vera::VeraConfig;
pub use vpt::VptConfig;
pub use wegeft::WegeftConfig;

/// Every method of this crate: its `peft_type` on disk, and the function that reads its settings.
pub const METHODS: &[(&str, Reader)] = &[
    ("WEGEFT", fork::read),
    ("LORA", read::<LoraConfig>),
    ("VERA", read::<VeraConfig>),
    ("IA3", read::<Ia3Config>),
    ("BITFIT", read::<BitfitConfig>),
    ("LN_TUNING", read::<LayerNormConfig>),
    ("REFT", read::<ReftConfig>),
    ("VPT", read::<VptConfig>),
    ("BOTTLENECK", read::<BottleneckConfig>),
    ("ADALORA", read::<AdaLoraConfig>),
    ("LOHA", read::<LohaConfig>),
    ("LOKR", read::<LokrConfig>),
    ("OFT", read::<OftConfig>),
    ("BOFT", read::<BoftConfig>),
    ("MISS", read::<MissConfig>),
    ("HIRA", read::<HiraConfig>),
    ("PROMPT_TUNING", read::<PromptTuningConfig>),
    ("PREFIX_TUNING", read::<PrefixTuningConfig>),
    ("TRAINABLE_TOKENS", read::<TrainableTokensConfig>),
    ("LINEAR", read::<LinearProbingConfig>),
    ("FULL", read::<FullConfig>),
];
