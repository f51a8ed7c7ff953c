//! Phi-3 (arXiv 2404.14219) and Phi-4-mini: Llama's layer with queries, keys and values in one weight, gate and up
//! projection in another.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use kernels::Visible;
use wegeft::{linear, linear_add};

use super::attention::{attend, split};
use super::cache::LayerCache;
use super::config::{DecoderConfig, Family, LayerKind};
use super::dense;
use super::fields::Fields;
use super::mlp::Activation;
use super::norm::RmsNorm;
use super::rope::{RopeConfig, Rotation};
use super::stack::Block;

/// One layer: x + attention(norm x), then x + mlp(norm x).
#[derive(Module, Debug)]
pub struct Phi3Layer {
    /// Self-attention.
    pub self_attn: Phi3Attention,
    /// MLP.
    pub mlp: Phi3Mlp,
    /// Norm before attention.
    pub input_layernorm: RmsNorm,
    /// Norm before the MLP.
    pub post_attention_layernorm: RmsNorm,
}

/// Self-attention with a fused weight.
#[derive(Module, Debug)]
pub struct Phi3Attention {
    /// Queries, keys, values: `[d_model, (heads + 2·kv_heads)·head_dim]`
    pub qkv_proj: Linear,
    /// `[heads·head_dim, d_model]`
    pub o_proj: Linear,
    heads: usize,
    kv_heads: usize,
    scale: f64,
}

/// Gated MLP with a fused weight.
#[derive(Module, Debug)]
pub struct Phi3Mlp {
    /// Gate, then up: `[d_model, 2·hidden]`
    pub gate_up_proj: Linear,
    /// `[hidden, d_model]`
    pub down_proj: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Block for Phi3Layer {
    const UNIT_OFFSET: bool = false;

    fn new(config: &DecoderConfig, device: &Device) -> Self {
        let (d, width) = (config.d_model, config.head_dim);
        let norm = || RmsNorm::new(d, config.norm_eps, Self::UNIT_OFFSET, device);
        let fused = (config.heads + 2 * config.kv_heads) * width;
        Self {
            self_attn: Phi3Attention {
                qkv_proj: dense(config, d, fused, config.qkv_bias, device),
                o_proj: dense(config, config.heads * width, d, config.o_bias, device),
                heads: config.heads,
                kv_heads: config.kv_heads,
                scale: config.attention_scale(),
            },
            mlp: Phi3Mlp {
                gate_up_proj: dense(config, d, 2 * config.mlp_dim, config.mlp_bias, device),
                down_proj: dense(config, config.mlp_dim, d, config.mlp_bias, device),
                activation: config.activation,
            },
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

impl Phi3Attention {
    /// What the heads mix, before `o_proj`.
    fn mixed(
        &self,
        x: Tensor<3>,
        rotation: Option<&Rotation>,
        visible: &Visible,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let parts = split(linear(&self.qkv_proj, x), self.heads + 2 * self.kv_heads);
        let turned = |x: Tensor<4>| match rotation {
            Some(rotation) => rotation.apply(x),
            None => x,
        };
        let query = turned(parts.clone().narrow(1, 0, self.heads));
        let key = turned(parts.clone().narrow(1, self.heads, self.kv_heads));
        let value = parts.narrow(1, self.heads + self.kv_heads, self.kv_heads);
        let (key, value) = match cache {
            Some(cache) => cache.extend(key, value),
            None => (key, value),
        };
        attend(query, key, value, visible, self.scale, None)
    }
}

impl Phi3Mlp {
    /// act(gate x) · up x, before `down_proj`.
    fn hidden(&self, x: Tensor<3>) -> Tensor<3> {
        let both = linear(&self.gate_up_proj, x);
        let hidden = both.dims()[2] / 2;
        let (gate, up) = (both.clone().narrow(2, 0, hidden), both.narrow(2, hidden, hidden));
        self.activation.gated(gate, up)
    }
}

pub(crate) fn config(fields: &Fields) -> Result<DecoderConfig, String> {
    let d_model = fields.count("hidden_size")?;
    let heads = fields.count("num_attention_heads")?;
    let head_dim = fields.count_or("head_dim", d_model / heads.max(1))?;
    let max_positions = fields.count_or("max_position_embeddings", 4096)?;
    let kind = LayerKind {
        window: fields.maybe_count("sliding_window")?,
        rope: Some(0),
    };
    // Phi-4-mini's files name two fields that mean nothing at 1.
    for field in ["full_attn_mod", "interpolate_factor"] {
        let value = fields.count_or(field, 1)?;
        if value != 1 {
            return Err(format!("field '{field}' is {value}; implemented is 1"));
        }
    }
    Ok(DecoderConfig::new(
        Family::Phi3,
        fields.count("vocab_size")?,
        d_model,
        fields.count("intermediate_size")?,
        vec![kind; fields.count("num_hidden_layers")?],
        heads,
        fields.count_or("num_key_value_heads", heads)?,
        head_dim,
        max_positions,
    )
    .with_ropes(vec![RopeConfig::from_hf(fields, head_dim, max_positions, 1e4)?])
    .with_norm_eps(fields.number_or("rms_norm_eps", 1e-5)?)
    .with_tied(fields.flag_or("tie_word_embeddings", false)?)
    .with_activation(Activation::parse("hidden_act", fields.text_or("hidden_act", "silu")?)?)
    .with_initializer_range(fields.number_or("initializer_range", 0.02)?))
}
