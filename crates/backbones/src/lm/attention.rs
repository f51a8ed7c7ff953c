//! Self-attention of a decoder: grouped queries, soft-capping, norms of queries and keys.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use kernels::{AttentionOptions, Visible};
use wegeft::linear_many;

use super::cache::Past;
use super::config::DecoderConfig;
use super::dense::dense;
use super::norm::RmsNorm;
use super::rope::Rotation;

/// Scaled dot-product attention. `query`: `[batch, heads, queries, head_dim]`, `key` and `value`:
/// `[batch, kv_heads, keys, head_dim]`; result `[batch, queries, heads·head_dim]`.
///
/// The probabilities are computed in f32 whatever the type of the tensors, as in transformers.
pub fn attend(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    visible: &Visible,
    scale: f64,
    softcap: Option<f64>,
) -> Tensor<3> {
    let [batch, heads, queries, width] = query.dims();
    let dtype = query.dtype();
    let options = AttentionOptions {
        scale: Some(scale),
        softcap,
        visible: visible.clone(),
    };
    let compute = kernels::compute_dtype(&query);
    let [query, key, value] = [query, key, value].map(|tensor| tensor.cast(compute));
    kernels::attention(query, key, value, &options)
        .swap_dims(1, 2)
        .reshape([batch, queries, heads * width])
        .cast(dtype)
}

/// `[batch, tokens, heads·head_dim]` to `[batch, heads, tokens, head_dim]`.
pub fn split(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, tokens, width] = x.dims();
    x.reshape([batch, tokens, heads, width / heads]).swap_dims(1, 2)
}

/// Self-attention with separate projections, as Llama and Gemma have it.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[d_model, heads·head_dim]`
    pub q_proj: Linear,
    /// `[d_model, kv_heads·head_dim]`
    pub k_proj: Linear,
    /// `[d_model, kv_heads·head_dim]`
    pub v_proj: Linear,
    /// `[heads·head_dim, d_model]`
    pub o_proj: Linear,
    /// Norm of each query head.
    pub q_norm: Option<RmsNorm>,
    /// Norm of each key head.
    pub k_norm: Option<RmsNorm>,
    heads: usize,
    kv_heads: usize,
    scale: f64,
    softcap: Option<f64>,
}

impl Attention {
    /// `unit_offset`: see [`RmsNorm`].
    pub(crate) fn new(config: &DecoderConfig, unit_offset: bool, device: &Device) -> Self {
        let (d, width) = (config.d_model, config.head_dim);
        let norm = || {
            config
                .qk_norm
                .then(|| RmsNorm::new(width, config.norm_eps, unit_offset, device))
        };
        let kv = config.kv_heads * width;
        Self {
            q_proj: dense(config, d, config.heads * width, config.qkv_bias, device),
            k_proj: dense(config, d, kv, config.qkv_bias, device),
            v_proj: dense(config, d, kv, config.qkv_bias, device),
            o_proj: dense(config, config.heads * width, d, config.o_bias, device),
            q_norm: norm(),
            k_norm: norm(),
            heads: config.heads,
            kv_heads: config.kv_heads,
            scale: config.attention_scale(),
            softcap: config.attention_softcap,
        }
    }

    /// The outputs of all heads, side by side, before `o_proj`. `x`: `[batch, tokens, d_model]`, result `[batch, tokens,
    /// heads·head_dim]`.
    pub fn mixed(&self, x: Tensor<3>, rotation: Option<&Rotation>, visible: &Visible, past: Past<'_>) -> Tensor<3> {
        let prepare = |x: Tensor<4>, norm: &Option<RmsNorm>| {
            let x = match norm {
                Some(norm) => norm.forward(x),
                None => x,
            };
            match rotation {
                Some(rotation) => rotation.apply(x),
                None => x,
            }
        };
        let [query, key, value] = linear_many([&self.q_proj, &self.k_proj, &self.v_proj], x);
        let query = prepare(split(query, self.heads), &self.q_norm);
        let key = prepare(split(key, self.kv_heads), &self.k_norm);
        let value = split(value, self.kv_heads);
        let (key, value) = past.extend(key, value);
        attend(query, key, value, visible, self.scale, self.softcap)
    }
}
