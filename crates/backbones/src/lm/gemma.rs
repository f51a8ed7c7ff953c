//! Gemma 2 (arXiv 2408.00118) and Gemma 3 (arXiv 2503.19786), text: four norms per layer that multiply by 1 + w, scaled
//! embeddings, sliding windows in most layers; soft-capping in 2, norms of queries and keys and two rotations in 3.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use kernels::Visible;
use serde_json::Value;
use wegeft::{Hook, Prompts, linear};

use super::activation::Activation;
use super::attention::Attention;
use super::cache::Past;
use super::config::{DecoderConfig, LayerKind, sliding_layers};
use super::family::Family;
use super::fields::Fields;
use super::mlp::GatedMlp;
use super::norm::RmsNorm;
use super::rope::{RopeConfig, RopeSource, Rotation};
use super::stack::Block;
use crate::error::ConfigError;

/// One layer: each branch is normed on its way in and on its way out.
#[derive(Module, Debug)]
pub struct GemmaLayer {
    /// Self-attention.
    pub self_attn: Attention,
    /// MLP.
    pub mlp: GatedMlp,
    /// Norm before attention.
    pub input_layernorm: RmsNorm,
    /// Norm after attention.
    pub post_attention_layernorm: RmsNorm,
    /// Norm before the MLP.
    pub pre_feedforward_layernorm: RmsNorm,
    /// Norm after the MLP.
    pub post_feedforward_layernorm: RmsNorm,
    /// What attention adds to the residual stream.
    pub attn_out: Hook,
    /// What the MLP adds to it.
    pub mlp_out: Hook,
    /// The residual stream after the layer.
    pub output: Hook,
}

impl Block for GemmaLayer {
    const UNIT_OFFSET: bool = true;

    fn new(config: &DecoderConfig, device: &Device) -> Self {
        let norm = || RmsNorm::new(config.d_model, config.norm_eps, Self::UNIT_OFFSET, device);
        let hook = || Hook::new(config.d_model, device);
        Self {
            self_attn: Attention::new(config, Self::UNIT_OFFSET, device),
            mlp: GatedMlp::new(config, device),
            input_layernorm: norm(),
            post_attention_layernorm: norm(),
            pre_feedforward_layernorm: norm(),
            post_feedforward_layernorm: norm(),
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
        let attended = linear(&self.self_attn.o_proj, mixed);
        let attended = self.post_attention_layernorm.forward(attended);
        let x = x + self.attn_out.forward_in(attended, prompts);
        let normed = self.pre_feedforward_layernorm.forward(x.clone());
        let out = linear(&self.mlp.down_proj, self.mlp.hidden(normed));
        let out = self.post_feedforward_layernorm.forward(out);
        let x = x + self.mlp_out.forward_in(out, prompts);
        self.output.forward_in(x, prompts)
    }
}

pub(crate) const FAMILY: Family = Family {
    name: "gemma",
    model_types: &["gemma2", "gemma3_text"],
    base: "model.",
    conv1d: false,
    config,
};

/// What Gemma2ForCausalLM and Gemma3ForCausalLM read.
fn config(model_type: &str, fields: &Fields) -> Result<DecoderConfig, ConfigError> {
    let three = model_type == "gemma3_text";
    // An encoder's mask: EmbeddingGemma.
    fields.refuse("use_bidirectional_attention")?;
    let d_model = fields.count_or("hidden_size", 2304)?;
    let head_dim = fields.count_or("head_dim", 256)?;
    let default = if three { 131_072 } else { 8192 };
    let max_positions = fields.maybe_length("max_position_embeddings")?.unwrap_or(default);
    let ropes = if three {
        ropes(fields, head_dim, max_positions)?
    } else {
        vec![RopeConfig::from_hf(fields, head_dim, max_positions, 1e4)?]
    };
    // Absent means the family's own, null means none.
    let softcap = |field: &str, default: f64| match fields.has(field) {
        true => fields.maybe_number(field),
        false => Ok((!three).then_some(default)),
    };
    // Gemma 3's attention has none, whatever its config says.
    let attention_softcap = match three {
        true => None,
        false => softcap("attn_logit_softcapping", 50.0)?,
    };
    let activation = fields.text_or("hidden_activation", "gelu_pytorch_tanh")?;
    let bias = fields.flag_or("attention_bias", false)?;
    Ok(DecoderConfig::new(
        FAMILY.name.into(),
        fields.count_or("vocab_size", if three { 262_208 } else { 256_000 })?,
        d_model,
        fields.count_or("intermediate_size", 9216)?,
        layers(three, fields)?,
        fields.count_or("num_attention_heads", 8)?,
        fields.count_or("num_key_value_heads", 4)?,
        head_dim,
        max_positions,
    )
    .with_ropes(ropes)
    .with_norm_eps(fields.number_or("rms_norm_eps", 1e-6)?)
    .with_tied(fields.flag_or("tie_word_embeddings", true)?)
    .with_activation(Activation::parse("hidden_activation", activation)?)
    .with_qkv_bias(bias)
    .with_o_bias(bias)
    .with_qk_norm(three)
    .with_query_scalar(Some(fields.number_or("query_pre_attn_scalar", 256.0)?))
    .with_attention_softcap(attention_softcap)
    .with_final_softcap(softcap("final_logit_softcapping", 30.0)?)
    .with_embed_scale((d_model as f64).sqrt())
    .with_initializer_range(fields.number_or("initializer_range", 0.02)?))
}

/// Every second layer of Gemma 2 and every sixth of Gemma 3 sees everything, unless `layer_types` or, in 3,
/// `sliding_window_pattern` says otherwise.
fn layers(three: bool, fields: &Fields) -> Result<Vec<LayerKind>, ConfigError> {
    let depth = fields.count_or("num_hidden_layers", 26)?;
    LayerKind::check_depth(depth)?;
    let pattern = match three {
        true => fields.count_or("sliding_window_pattern", 6)?,
        false => 2,
    };
    let sliding: Vec<bool> = match sliding_layers(fields, depth)? {
        Some(listed) => listed,
        None if pattern == 0 => {
            return Err(ConfigError::field(
                "sliding_window_pattern",
                "is 0; expected at least 1",
            ));
        }
        None => (1..=depth).map(|layer| layer % pattern != 0).collect(),
    };
    let window = fields.maybe_length("sliding_window")?.unwrap_or(4096);
    let kind = |sliding: bool| LayerKind {
        window: sliding.then_some(window),
        rope: Some(usize::from(sliding && three)),
    };
    Ok(sliding.into_iter().map(kind).collect())
}

/// Gemma 3's two rotations: of layers that see everything, then of those with a window. `rope_scaling` is the former's.
fn ropes(fields: &Fields, head_dim: usize, max_positions: usize) -> Result<Vec<RopeConfig>, ConfigError> {
    let nested = fields.get("rope_parameters").map(Fields::new).transpose()?;
    let one = |name: &str, theta: f64, scaling: Option<&Value>| {
        let own = nested.as_ref().and_then(|nested| nested.get(name));
        let from = RopeSource {
            theta,
            head_dim,
            max_positions,
            partial: None,
            original: None,
        };
        from.parse(fields, scaling.or(own))
    };
    let ropes = vec![
        one(
            "full_attention",
            fields.number_or("rope_theta", 1e6)?,
            fields.get("rope_scaling"),
        )?,
        one(
            "sliding_attention",
            fields.number_or("rope_local_base_freq", 1e4)?,
            None,
        )?,
    ];
    if let Some(nested) = &nested {
        fields.ignore_of("rope_parameters", nested);
    }
    Ok(ropes)
}
