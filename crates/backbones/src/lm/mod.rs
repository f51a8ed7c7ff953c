//! Language-model decoders: Llama, Mistral, Qwen, SmolLM, Gemma, Phi-3, GPT-2.
//!
//! One family, one file, with its config fields and its layer; what they share is a file each. [`Decoder`] is any of
//! them, [`load_lm`] reads one from a Hugging Face folder.

pub mod attention;
pub mod cache;
pub mod config;
pub mod decoder;
pub mod export;
pub(crate) mod fields;
pub mod gemma;
pub mod generation_config;
pub mod gpt2;
pub mod import;
pub mod layout;
pub mod llama;
pub mod mlp;
pub mod norm;
pub mod phi3;
pub mod rope;
pub(crate) mod shards;
pub mod stack;
pub mod tokenizer;

use burn::module::Initializer;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;

pub use cache::Cache;
pub use config::{DecoderConfig, Family};
pub use decoder::Decoder;
pub use export::save_lm;
pub use generation_config::GenerationConfig;
pub use import::{LoadOptions, Precision, PretrainedLm, Quantize, lm_config, load_lm, stored_precision};
pub use layout::{Layout, Side};
pub use tokenizer::LmTokenizer;

/// A linear layer of the config's random weights, its bias zero.
fn dense(config: &DecoderConfig, d_in: usize, d_out: usize, bias: bool, device: &Device) -> Linear {
    let normal = Initializer::Normal {
        mean: 0.0,
        std: config.initializer_range,
    };
    let mut layer = LinearConfig::new(d_in, d_out)
        .with_bias(false)
        .with_initializer(normal)
        .init(device);
    layer.bias = bias.then(|| Initializer::Zeros.init([d_out], device));
    layer
}
