//! Language-model decoders: Llama, Mistral, Qwen, SmolLM, Gemma, Phi-3, GPT-2.
//!
//! Each family is one file with its config fields and its layer; [`FAMILIES`] is their table, and what they share has files of its
//! own. [`Decoder`] is any of them, [`load_lm`] reads one from a Hugging Face folder.
//!
//! Bottom up, each file imports only from lines above its own: fields activation precision layout | rope spread columns | config
//! family cache dense edited norm | attention mlp parts | stack | llama gemma phi3 gpt2 | families | decoder | shards generation_config |
//! import export multimodal adapter; tokenizer and chat_template stand beside.

pub mod activation;
pub mod adapter;
pub mod attention;
pub mod cache;
pub mod chat_template;
mod columns;
pub mod config;
pub mod decoder;
mod dense;
mod edited;
pub mod export;
pub mod families;
pub mod family;
pub(crate) mod fields;
pub mod gemma;
pub mod generation_config;
pub mod gpt2;
pub mod import;
pub mod layout;
pub mod llama;
pub mod mlp;
mod multimodal;
pub mod norm;
mod parts;
pub mod phi3;
pub mod precision;
pub mod rope;
pub(crate) mod shards;
pub(crate) mod spread;
pub mod stack;
pub mod tokenizer;

pub use cache::Cache;
pub use config::DecoderConfig;
pub use decoder::Decoder;
pub use export::save_lm;
pub use families::FAMILIES;
pub use family::Family;
pub use generation_config::GenerationConfig;
pub use import::{LoadOptions, PretrainedLm, Quantize, lm_config, load_lm, stored_precision};
pub use layout::{Layout, Side};
pub use precision::Precision;
pub use tokenizer::LmTokenizer;
