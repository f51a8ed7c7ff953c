//! The shape of a decoder; `from_hf` reads it from Hugging Face's config.json.

use burn::config::Config;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::decoder::Decoder;
use super::fields::Fields;
use super::mlp::Activation;
use super::rope::RopeConfig;
use super::{gemma, gpt2, llama, phi3};

/// Models that share one kind of layer and its names; each has a file of its own here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Llama 1 to 3.x, Mistral, Qwen2, Qwen2.5, Qwen3, SmolLM.
    Llama,
    /// Gemma 2 and 3 (text).
    Gemma,
    /// Phi-3 and Phi-4-mini.
    Phi3,
    /// GPT-2.
    Gpt2,
}

/// What sets one layer apart from its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerKind {
    /// A token sees itself and the `window - 1` tokens before it; all of them if absent.
    pub window: Option<usize>,
    /// Index into [`DecoderConfig::ropes`]; no rotation if absent.
    pub rope: Option<usize>,
}

/// Shape of a decoder.
#[derive(Config, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Kind of layer.
    pub family: Family,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of a token.
    pub d_model: usize,
    /// Hidden size of the MLP.
    pub mlp_dim: usize,
    /// Layers, first to last.
    pub layers: Vec<LayerKind>,
    /// Attention heads.
    pub heads: usize,
    /// Heads of keys and values, a divisor of `heads` (grouped-query attention, arXiv 2305.13245).
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Positions that the model was made for; a hard limit where positions are learned (GPT-2).
    pub max_positions: usize,
    /// Rotary embeddings that the layers choose from.
    #[config(default = "Vec::new()")]
    pub ropes: Vec<RopeConfig>,
    /// Epsilon of the norms.
    #[config(default = 1e-6)]
    pub norm_eps: f64,
    /// The head is the transposed embedding.
    #[config(default = false)]
    pub tied: bool,
    /// Activation of the MLP.
    #[config(default = "Activation::Silu")]
    pub activation: Activation,
    /// q_proj, k_proj and v_proj have a bias.
    #[config(default = false)]
    pub qkv_bias: bool,
    /// o_proj has a bias.
    #[config(default = false)]
    pub o_bias: bool,
    /// The MLP's layers have a bias.
    #[config(default = false)]
    pub mlp_bias: bool,
    /// Queries and keys are normalised head by head.
    #[config(default = false)]
    pub qk_norm: bool,
    /// Attention scores are divided by the square root of this (Gemma's `query_pre_attn_scalar`); `head_dim` if absent.
    pub query_scalar: Option<f64>,
    /// Attention scores s become c·tanh(s/c).
    pub attention_softcap: Option<f64>,
    /// Logits l become c·tanh(l/c).
    pub final_softcap: Option<f64>,
    /// Factor of the embeddings.
    #[config(default = 1.0)]
    pub embed_scale: f64,
    /// σ of random weights.
    #[config(default = 0.02)]
    pub initializer_range: f64,
}

impl DecoderConfig {
    /// Reads Hugging Face's config.json. Of Gemma 3 with pictures, the text model is read.
    ///
    /// # Errors
    /// A `model_type` or a field that is not implemented, by name; a field that is missing or malformed.
    pub fn from_hf(json: &Value) -> Result<Self, String> {
        let fields = Fields::new(json)?;
        let kind = fields.text_or("model_type", "")?;
        if let ("gemma3", Some(text)) = (kind, json.get("text_config")) {
            return Self::from_hf(text);
        }
        let config = match kind {
            "llama" | "mistral" | "qwen2" | "qwen3" | "smollm3" => llama::config(kind, &fields),
            "gemma2" | "gemma3_text" => gemma::config(kind, &fields),
            "phi3" => phi3::config(&fields),
            "gpt2" => gpt2::config(&fields),
            other => Err(format!(
                "field 'model_type' is '{other}'; implemented are llama (SmolLM too), mistral, qwen2 (2.5 too), qwen3, \
                 smollm3, gemma2, gemma3, gemma3_text, phi3 and gpt2"
            )),
        }?;
        fields.finish()?;
        config.check()?;
        Ok(config)
    }

    /// True if a config.json is a language model's, implemented here or not.
    pub fn is_of_language(json: &Value) -> bool {
        const KINDS: [&str; 10] = [
            "llama",
            "mistral",
            "qwen2",
            "qwen3",
            "smollm3",
            "gemma2",
            "gemma3",
            "gemma3_text",
            "phi3",
            "gpt2",
        ];
        let kind = json.get("model_type").and_then(Value::as_str);
        let architectures = json.get("architectures").and_then(Value::as_array);
        let mut names = architectures.into_iter().flatten().filter_map(Value::as_str);
        kind.is_some_and(|kind| KINDS.contains(&kind))
            || names.any(|name| name.ends_with("ForCausalLM") || name.ends_with("LMHeadModel"))
    }

    /// A randomly initialized model: weights normal of σ `initializer_range`, biases zero, norms neutral.
    pub fn init(&self, device: &Device) -> Decoder {
        Decoder::new(self.clone(), device)
    }

    /// Factor of the attention scores.
    pub fn attention_scale(&self) -> f64 {
        self.query_scalar.unwrap_or(self.head_dim as f64).powf(-0.5)
    }

    fn check(&self) -> Result<(), String> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.d_model),
            ("num_hidden_layers", self.layers.len()),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
        ];
        if let Some((field, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(format!("field '{field}' is 0; it must be at least 1"));
        }
        if self.layers.iter().any(|layer| layer.window == Some(0)) {
            return Err("field 'sliding_window' is 0; it must be at least 1, or null for none".into());
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!(
                "field 'num_key_value_heads' is {}, which does not divide num_attention_heads {}",
                self.kv_heads, self.heads
            ));
        }
        Ok(())
    }
}
