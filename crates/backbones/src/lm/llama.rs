//! Llama 1 to 3.x (arXiv 2302.13971), and the models that are Llama but for their config: Mistral (sliding window),
//! Qwen2 and 2.5 (biases), Qwen3 (norms of queries and keys), SmolLM, SmolLM3 (layers without rotation).

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use kernels::Visible;
use wegeft::{Hook, Prompts};

use super::activation::Activation;
use super::attention::Attention;
use super::cache::Past;
use super::config::{DecoderConfig, LayerKind, sliding_layers};
use super::edited::joined;
use super::family::Family;
use super::fields::Fields;
use super::mlp::GatedMlp;
use super::norm::RmsNorm;
use super::rope::{RopeConfig, Rotation};
use super::stack::Block;
use crate::error::ConfigError;

/// One layer: x + attention(norm x), then x + mlp(norm x).
#[derive(Module, Debug)]
pub struct LlamaLayer {
    /// Self-attention.
    pub self_attn: Attention,
    /// MLP.
    pub mlp: GatedMlp,
    /// Norm before attention.
    pub input_layernorm: RmsNorm,
    /// Norm before the MLP.
    pub post_attention_layernorm: RmsNorm,
    /// What attention adds to the residual stream.
    pub attn_out: Hook,
    /// What the MLP adds to it.
    pub mlp_out: Hook,
    /// The residual stream after the layer.
    pub output: Hook,
}

impl Block for LlamaLayer {
    const UNIT_OFFSET: bool = false;

    fn new(config: &DecoderConfig, device: &Device) -> Self {
        let norm = || RmsNorm::new(config.d_model, config.norm_eps, Self::UNIT_OFFSET, device);
        let hook = || Hook::new(config.d_model, device);
        Self {
            self_attn: Attention::new(config, Self::UNIT_OFFSET, device),
            mlp: GatedMlp::new(config, device),
            input_layernorm: norm(),
            post_attention_layernorm: norm(),
            attn_out: hook(),
            mlp_out: hook(),
            output: hook(),
        }
    }

    fn forward(
        &self,
        x: Tensor<3>,
        rotation: Option<&Rotation>,
        visible: &Visible,
        prompts: &Prompts,
        past: Past<'_>,
    ) -> Tensor<3> {
        let normed = self.input_layernorm.forward(x.clone());
        let mixed = self.self_attn.mixed(normed, rotation, visible, past);
        let x = joined(&self.self_attn.o_proj, mixed, x, &self.attn_out, prompts);
        let normed = self.post_attention_layernorm.forward(x.clone());
        let x = joined(&self.mlp.down_proj, self.mlp.hidden(normed), x, &self.mlp_out, prompts);
        self.output.forward_in(x, prompts)
    }
}

pub(crate) const FAMILY: Family = Family {
    name: "llama",
    model_types: &["llama", "mistral", "qwen2", "qwen3", "smollm3"],
    base: "model.",
    conv1d: false,
    config,
};

/// What a `model_type` takes where its config.json is silent, and what it reads beyond Llama's fields.
struct Kind {
    vocab_size: usize,
    d_model: usize,
    mlp_dim: usize,
    depth: usize,
    heads: usize,
    /// As many as heads if absent.
    kv_heads: Option<usize>,
    head_dim: Option<usize>,
    max_positions: usize,
    theta: f64,
    tied: bool,
    /// `attention_bias` and `mlp_bias` are read.
    biases: (bool, bool),
    layers: fn(&Fields, usize) -> Result<Vec<LayerKind>, ConfigError>,
}

const LLAMA: Kind = Kind {
    vocab_size: 32_000,
    d_model: 4096,
    mlp_dim: 11_008,
    depth: 32,
    heads: 32,
    kv_heads: None,
    head_dim: None,
    max_positions: 2048,
    theta: 1e4,
    tied: false,
    biases: (true, true),
    layers: plain,
};
const MISTRAL: Kind = Kind {
    mlp_dim: 14_336,
    kv_heads: Some(8),
    max_positions: 131_072,
    biases: (false, false),
    layers: mistral,
    ..LLAMA
};
const QWEN2: Kind = Kind {
    vocab_size: 151_936,
    mlp_dim: 22_016,
    kv_heads: Some(32),
    max_positions: 32_768,
    biases: (false, false),
    layers: qwen,
    ..LLAMA
};
const QWEN3: Kind = Kind {
    head_dim: Some(128),
    biases: (true, false),
    ..QWEN2
};
const SMOLLM3: Kind = Kind {
    vocab_size: 128_256,
    d_model: 2048,
    depth: 36,
    heads: 16,
    kv_heads: Some(4),
    max_positions: 32_768,
    theta: 2e6,
    tied: true,
    layers: smollm3,
    ..LLAMA
};

/// What LlamaForCausalLM and its variants read.
fn config(model_type: &str, fields: &Fields) -> Result<DecoderConfig, ConfigError> {
    let kind = match model_type {
        "mistral" => MISTRAL,
        "qwen2" => QWEN2,
        "qwen3" => QWEN3,
        "smollm3" => SMOLLM3,
        _ => LLAMA,
    };
    let d_model = fields.count_or("hidden_size", kind.d_model)?;
    let heads = fields.count_or("num_attention_heads", kind.heads)?;
    // Absent means the default if it fits, null as many as heads.
    let default = kind.kv_heads.filter(|kv_heads| heads.is_multiple_of(*kv_heads));
    let kv_heads = default.filter(|_| !fields.has("num_key_value_heads"));
    let kv_heads = fields.count_or("num_key_value_heads", kv_heads.unwrap_or(heads))?;
    let head_dim = fields.count_or("head_dim", kind.head_dim.unwrap_or(d_model / heads.max(1)))?;
    let max_positions = fields
        .maybe_length("max_position_embeddings")?
        .unwrap_or(kind.max_positions);
    let attention_bias = kind.biases.0 && fields.flag_or("attention_bias", false)?;
    let rope = RopeConfig::from_hf(fields, head_dim, max_positions, kind.theta)?;
    Ok(DecoderConfig::new(
        FAMILY.name.into(),
        fields.count_or("vocab_size", kind.vocab_size)?,
        d_model,
        fields.count_or("intermediate_size", kind.mlp_dim)?,
        (kind.layers)(fields, fields.count_or("num_hidden_layers", kind.depth)?)?,
        heads,
        kv_heads,
        head_dim,
        max_positions,
    )
    .with_ropes(vec![rope])
    .with_norm_eps(fields.number_or("rms_norm_eps", 1e-6)?)
    .with_tied(fields.flag_or("tie_word_embeddings", kind.tied)?)
    .with_activation(Activation::parse("hidden_act", fields.text_or("hidden_act", "silu")?)?)
    .with_qkv_bias(attention_bias || model_type == "qwen2")
    .with_o_bias(attention_bias)
    .with_mlp_bias(kind.biases.1 && fields.flag_or("mlp_bias", false)?)
    .with_qk_norm(model_type == "qwen3")
    .with_initializer_range(fields.number_or("initializer_range", 0.02)?))
}

fn plain(_: &Fields, depth: usize) -> Result<Vec<LayerKind>, ConfigError> {
    let kind = LayerKind {
        window: None,
        rope: Some(0),
    };
    LayerKind::repeated(kind, depth)
}

/// One window for all layers; absent it is 4096, null none.
fn mistral(fields: &Fields, depth: usize) -> Result<Vec<LayerKind>, ConfigError> {
    let window = match fields.has("sliding_window") {
        true => fields.maybe_length("sliding_window")?,
        false => Some(4096),
    };
    let rope = Some(0);
    LayerKind::repeated(LayerKind { window, rope }, depth)
}

/// Windows from `max_window_layers` on, or where `layer_types` says so.
fn qwen(fields: &Fields, depth: usize) -> Result<Vec<LayerKind>, ConfigError> {
    let mut layers = plain(fields, depth)?;
    let window = window(fields, Some(4096))?;
    let first = fields.count_or("max_window_layers", 28)?;
    let sliding = match sliding_layers(fields, depth)? {
        Some(listed) => listed,
        None => (0..depth).map(|layer| layer >= first).collect(),
    };
    for (layer, sliding) in layers.iter_mut().zip(sliding) {
        layer.window = window.filter(|_| sliding);
    }
    Ok(layers)
}

/// Layers without rotation; these are the ones with a window, unless `layer_types` says otherwise.
fn smollm3(fields: &Fields, depth: usize) -> Result<Vec<LayerKind>, ConfigError> {
    let mut layers = plain(fields, depth)?;
    let window = window(fields, None)?;
    let interval = fields.count_or("no_rope_layer_interval", 4)?;
    let rotated: Vec<bool> = match fields.maybe_numbers("no_rope_layers")? {
        Some(listed) if listed.len() < depth => {
            return Err(ConfigError::field(
                "no_rope_layers",
                format!(
                    "has {} entries; expected one for each of the {depth} layers",
                    listed.len()
                ),
            ));
        }
        Some(listed) => listed.iter().map(|flag| *flag != 0.0).collect(),
        None if interval == 0 => {
            return Err(ConfigError::field(
                "no_rope_layer_interval",
                "is 0; expected at least 1",
            ));
        }
        None => (1..=depth).map(|layer| layer % interval != 0).collect(),
    };
    let sliding = match sliding_layers(fields, depth)? {
        Some(listed) => listed,
        None => rotated.iter().map(|rotated| !rotated).collect(),
    };
    for (layer, (rotated, sliding)) in layers.iter_mut().zip(rotated.into_iter().zip(sliding)) {
        layer.rope = rotated.then_some(0);
        layer.window = window.filter(|_| sliding);
    }
    Ok(layers)
}

fn window(fields: &Fields, default: Option<usize>) -> Result<Option<usize>, ConfigError> {
    let window = match fields.has("sliding_window") {
        true => fields.maybe_length("sliding_window")?,
        false => default,
    };
    let used = fields.flag_or("use_sliding_window", false)?;
    Ok(window.filter(|_| used))
}
