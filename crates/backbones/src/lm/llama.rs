//! Llama 1 to 3.x (arXiv 2302.13971), and the models that are Llama but for their config: Mistral (sliding window),
//! Qwen2 and 2.5 (biases), Qwen3 (norms of queries and keys), SmolLM, SmolLM3 (layers without rotation).

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use kernels::Visible;
use wegeft::linear_add;

use super::attention::Attention;
use super::cache::LayerCache;
use super::config::{DecoderConfig, Family, LayerKind};
use super::fields::Fields;
use super::mlp::{Activation, GatedMlp};
use super::norm::RmsNorm;
use super::rope::{RopeConfig, Rotation};
use super::stack::Block;

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
}

impl Block for LlamaLayer {
    const UNIT_OFFSET: bool = false;

    fn new(config: &DecoderConfig, device: &Device) -> Self {
        let norm = || RmsNorm::new(config.d_model, config.norm_eps, Self::UNIT_OFFSET, device);
        Self {
            self_attn: Attention::new(config, Self::UNIT_OFFSET, device),
            mlp: GatedMlp::new(config, device),
            input_layernorm: norm(),
            post_attention_layernorm: norm(),
        }
    }

    fn forward(
        &self,
        x: Tensor<3>,
        rotation: Option<&Rotation>,
        visible: &Visible,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let normed = self.input_layernorm.forward(x.clone());
        let mixed = self.self_attn.mixed(normed, rotation, visible, cache);
        let x = linear_add(&self.self_attn.o_proj, mixed, x);
        let normed = self.post_attention_layernorm.forward(x.clone());
        linear_add(&self.mlp.down_proj, self.mlp.hidden(normed), x)
    }
}

pub(crate) fn config(kind: &str, fields: &Fields) -> Result<DecoderConfig, String> {
    let d_model = fields.count("hidden_size")?;
    let depth = fields.count("num_hidden_layers")?;
    let heads = fields.count("num_attention_heads")?;
    let qwen3 = kind == "qwen3";
    let default_width = if qwen3 { 128 } else { d_model / heads.max(1) };
    let head_dim = fields.count_or("head_dim", default_width)?;
    let max_positions = fields.count_or("max_position_embeddings", if kind == "llama" { 2048 } else { 32768 })?;
    let default_theta = if kind == "smollm3" { 2e6 } else { 1e4 };
    let layers = match kind {
        "llama" => same(depth, None),
        // Absent means 4096, null means none.
        "mistral" if fields.has("sliding_window") => same(depth, fields.maybe_count("sliding_window")?),
        "mistral" => same(depth, Some(4096)),
        _ => windowed(kind, fields, depth)?,
    };
    let attention_bias = kind != "mistral" && kind != "qwen2" && fields.flag_or("attention_bias", false)?;
    let mlp_bias = matches!(kind, "llama" | "smollm3") && fields.flag_or("mlp_bias", false)?;
    let kv_heads = fields.count_or("num_key_value_heads", heads)?;
    let rope = RopeConfig::from_hf(fields, head_dim, max_positions, default_theta)?;
    Ok(DecoderConfig::new(
        Family::Llama,
        fields.count("vocab_size")?,
        d_model,
        fields.count("intermediate_size")?,
        layers,
        heads,
        kv_heads,
        head_dim,
        max_positions,
    )
    .with_ropes(vec![rope])
    .with_norm_eps(fields.number_or("rms_norm_eps", 1e-6)?)
    .with_tied(fields.flag_or("tie_word_embeddings", kind == "smollm3")?)
    .with_activation(Activation::parse("hidden_act", fields.text_or("hidden_act", "silu")?)?)
    .with_qkv_bias(attention_bias || kind == "qwen2")
    .with_o_bias(attention_bias)
    .with_mlp_bias(mlp_bias)
    .with_qk_norm(qwen3)
    .with_initializer_range(fields.number_or("initializer_range", 0.02)?))
}

fn same(depth: usize, window: Option<usize>) -> Vec<LayerKind> {
    vec![LayerKind { window, rope: Some(0) }; depth]
}

/// Qwen's windows from `max_window_layers` on, and SmolLM3's layers without rotation; `layer_types` overrides both.
fn windowed(kind: &str, fields: &Fields, depth: usize) -> Result<Vec<LayerKind>, String> {
    let window = fields.maybe_count("sliding_window")?;
    let window = window.filter(|_| matches!(fields.flag_or("use_sliding_window", false), Ok(true)));
    let rotated: Vec<bool> = if kind == "smollm3" {
        let interval = fields.count_or("no_rope_layer_interval", 4)?.max(1);
        match fields.maybe_numbers("no_rope_layers")? {
            Some(listed) => listed.iter().map(|flag| *flag != 0.0).collect(),
            None => (1..=depth).map(|layer| layer % interval != 0).collect(),
        }
    } else {
        vec![true; depth]
    };
    let first = fields.count_or("max_window_layers", 28)?;
    let sliding: Vec<bool> = match fields.maybe_texts("layer_types")? {
        Some(types) => layer_types(&types)?,
        None if kind == "smollm3" => rotated.iter().map(|rotated| !rotated).collect(),
        None => (0..depth).map(|layer| layer >= first).collect(),
    };
    if sliding.len() != depth || rotated.len() != depth {
        return Err(format!(
            "'layer_types' or 'no_rope_layers' does not have one entry for each of the {depth} layers of 'num_hidden_layers'"
        ));
    }
    Ok(sliding
        .iter()
        .zip(rotated)
        .map(|(sliding, rotated)| LayerKind {
            window: window.filter(|_| *sliding),
            rope: rotated.then_some(0),
        })
        .collect())
}

/// True for each layer with a sliding window.
pub(crate) fn layer_types(types: &[&str]) -> Result<Vec<bool>, String> {
    types
        .iter()
        .map(|name| match *name {
            "sliding_attention" => Ok(true),
            "full_attention" => Ok(false),
            other => Err(format!(
                "field 'layer_types' names '{other}'; implemented are full_attention and sliding_attention"
            )),
        })
        .collect()
}
