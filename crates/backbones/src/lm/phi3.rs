//! Phi-3 (arXiv 2404.14219) and Phi-4-mini: Llama's layer with queries, keys and values in one weight, gate and up
//! projection in another.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use kernels::Visible;
use serde_json::Value;
use wegeft::{Hook, Prompts, linear};

use super::activation::Activation;
use super::attention::{attend, split};
use super::cache::Past;
use super::config::{DecoderConfig, LayerKind};
use super::dense::dense;
use super::edited::joined;
use super::family::Family;
use super::fields::Fields;
use super::norm::RmsNorm;
use super::rope::{RopeConfig, RopeSource, Rotation, rope_parameters, within};
use super::stack::Block;
use crate::error::ConfigError;

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
    /// What attention adds to the residual stream.
    pub attn_out: Hook,
    /// What the MLP adds to it.
    pub mlp_out: Hook,
    /// The residual stream after the layer.
    pub output: Hook,
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
        let hook = || Hook::new(d, device);
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

impl Phi3Attention {
    /// What the heads mix, before `o_proj`.
    fn mixed(&self, x: Tensor<3>, rotation: Option<&Rotation>, visible: &Visible, past: Past<'_>) -> Tensor<3> {
        let parts = split(linear(&self.qkv_proj, x), self.heads + 2 * self.kv_heads);
        let turned = |x: Tensor<4>| match rotation {
            Some(rotation) => rotation.apply(x),
            None => x,
        };
        let query = turned(parts.clone().narrow(1, 0, self.heads));
        let key = turned(parts.clone().narrow(1, self.heads, self.kv_heads));
        let value = parts.narrow(1, self.heads + self.kv_heads, self.kv_heads);
        let (key, value) = past.extend(key, value);
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

pub(crate) const FAMILY: Family = Family {
    name: "phi3",
    model_types: &["phi3"],
    base: "model.",
    conv1d: false,
    config,
};

/// What Phi3ForCausalLM reads; it has no biases whatever config.json says.
fn config(_: &str, fields: &Fields) -> Result<DecoderConfig, ConfigError> {
    let d_model = fields.count_or("hidden_size", 3072)?;
    let heads = fields.count_or("num_attention_heads", 32)?;
    let head_dim = fields.count_or("head_dim", d_model / heads.max(1))?;
    let max_positions = fields.maybe_length("max_position_embeddings")?.unwrap_or(4096);
    let kind = LayerKind {
        window: fields.maybe_length("sliding_window")?,
        rope: Some(0),
    };
    Ok(DecoderConfig::new(
        FAMILY.name.into(),
        fields.count_or("vocab_size", 32_064)?,
        d_model,
        fields.count_or("intermediate_size", 8192)?,
        LayerKind::repeated(kind, fields.count_or("num_hidden_layers", 32)?)?,
        heads,
        fields.count_or("num_key_value_heads", heads)?,
        head_dim,
        max_positions,
    )
    .with_ropes(vec![rope(fields, head_dim, max_positions)?])
    .with_norm_eps(fields.number_or("rms_norm_eps", 1e-5)?)
    .with_tied(fields.flag_or("tie_word_embeddings", false)?)
    .with_activation(Activation::parse("hidden_act", fields.text_or("hidden_act", "silu")?)?)
    .with_initializer_range(fields.number_or("initializer_range", 0.02)?))
}

/// Unscaled or LongRoPE, under three names. The length before the stretch stands beside the parameters, not inside.
fn rope(fields: &Fields, head_dim: usize, max_positions: usize) -> Result<RopeConfig, ConfigError> {
    let given = rope_parameters(fields);
    let from = RopeSource {
        theta: fields.number_or("rope_theta", 1e4)?,
        head_dim,
        max_positions,
        partial: Some(fields.number_or("partial_rotary_factor", 1.0)?),
        original: Some(fields.number_or("original_max_position_embeddings", 4096.0)?),
    };
    let mut given = given.cloned();
    if let Some(json) = &mut given {
        let kind = json.get("rope_type").or(json.get("type")).and_then(Value::as_str);
        match kind.unwrap_or("default") {
            "default" => {}
            "longrope" | "su" | "yarn" => json["rope_type"] = "longrope".into(),
            other => {
                let problem = format!("is '{other}'; a phi3 model has default or longrope");
                return Err(within(ConfigError::field("rope_type", problem)));
            }
        }
    }
    from.parse(fields, given.as_ref())
}
