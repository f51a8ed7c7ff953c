//! Gemma 2 (arXiv 2408.00118) and Gemma 3 (arXiv 2503.19786), text: four norms a layer that multiply by 1 + w, scaled
//! embeddings, sliding windows in most layers; soft-capping in 2, norms of queries and keys and two rotations in 3.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use kernels::Visible;
use wegeft::linear;

use super::attention::Attention;
use super::cache::LayerCache;
use super::config::{DecoderConfig, Family, LayerKind};
use super::fields::Fields;
use super::llama::layer_types;
use super::mlp::{Activation, GatedMlp};
use super::norm::RmsNorm;
use super::rope::{RopeConfig, Rotation};
use super::stack::Block;

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
}

impl Block for GemmaLayer {
    const UNIT_OFFSET: bool = true;

    fn new(config: &DecoderConfig, device: &Device) -> Self {
        let norm = || RmsNorm::new(config.d_model, config.norm_eps, Self::UNIT_OFFSET, device);
        Self {
            self_attn: Attention::new(config, Self::UNIT_OFFSET, device),
            mlp: GatedMlp::new(config, device),
            input_layernorm: norm(),
            post_attention_layernorm: norm(),
            pre_feedforward_layernorm: norm(),
            post_feedforward_layernorm: norm(),
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
        let attended = linear(&self.self_attn.o_proj, mixed);
        let x = x + self.post_attention_layernorm.forward(attended);
        let normed = self.pre_feedforward_layernorm.forward(x.clone());
        let out = linear(&self.mlp.down_proj, self.mlp.hidden(normed));
        x + self.post_feedforward_layernorm.forward(out)
    }
}

pub(crate) fn config(kind: &str, fields: &Fields) -> Result<DecoderConfig, String> {
    let three = kind == "gemma3_text";
    let d_model = fields.count_or("hidden_size", 2304)?;
    let depth = fields.count_or("num_hidden_layers", 26)?;
    let head_dim = fields.count_or("head_dim", 256)?;
    let max_positions = fields.count_or("max_position_embeddings", if three { 131_072 } else { 8192 })?;
    let ropes = if three {
        ropes(fields, head_dim, max_positions)?
    } else {
        vec![RopeConfig::from_hf(fields, head_dim, max_positions, 1e4)?]
    };
    // Every sixth layer of Gemma 3 and every second of Gemma 2 sees everything.
    let pattern = match fields.maybe_count("sliding_window_pattern")? {
        Some(pattern) => pattern,
        None => fields.count_or("_sliding_window_pattern", if three { 6 } else { 2 })?,
    };
    let sliding: Vec<bool> = match fields.maybe_texts("layer_types")? {
        Some(types) => layer_types(&types)?,
        None => (1..=depth).map(|layer| layer % pattern.max(1) != 0).collect(),
    };
    if sliding.len() != depth {
        return Err(format!(
            "field 'layer_types' has {} entries, expected one for each of the {depth} layers of 'num_hidden_layers'",
            sliding.len()
        ));
    }
    let window = fields.count_or("sliding_window", 4096)?;
    let layers = sliding.into_iter().map(|sliding| LayerKind {
        window: sliding.then_some(window),
        rope: Some(usize::from(sliding && three)),
    });
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
    let activation = fields.text_or("hidden_act", "gelu_pytorch_tanh")?;
    let activation = fields.text_or("hidden_activation", activation)?;
    let bias = fields.flag_or("attention_bias", false)?;
    Ok(DecoderConfig::new(
        Family::Gemma,
        fields.count_or("vocab_size", if three { 262_208 } else { 256_000 })?,
        d_model,
        fields.count_or("intermediate_size", 9216)?,
        layers.collect(),
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

/// Gemma 3's two rotations: of layers that see everything, then of those with a window.
fn ropes(fields: &Fields, head_dim: usize, max_positions: usize) -> Result<Vec<RopeConfig>, String> {
    const GLOBAL: f64 = 1e6;
    const LOCAL: f64 = 1e4;
    let theta = fields.number_or("rope_theta", GLOBAL)?;
    let local = fields.number_or("rope_local_base_freq", LOCAL)?;
    let positions = max_positions as f64;
    if let Some(nested) = fields.get("rope_parameters") {
        let nested = Fields::new(nested)?;
        let one = |name: &str, theta: f64| match nested.get(name) {
            Some(json) => RopeConfig::parse(json, theta, 1.0, head_dim, positions, None),
            None => Ok(RopeConfig::new(theta, head_dim)),
        };
        let ropes = vec![one("full_attention", theta)?, one("sliding_attention", local)?];
        nested.finish()?;
        return Ok(ropes);
    }
    let full = match fields.get("rope_scaling") {
        Some(json) => RopeConfig::parse(json, theta, 1.0, head_dim, positions, None)?,
        None => RopeConfig::new(theta, head_dim),
    };
    Ok(vec![full, RopeConfig::new(local, head_dim)])
}
