//! Causal attention of a decoder: grouped queries, masks of padding, packing and sliding windows, soft-capping.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::softmax;
use burn::tensor::{DType, Device, Tensor, TensorData};
use wegeft::linear;

use super::cache::LayerCache;
use super::config::DecoderConfig;
use super::dense;
use super::layout::Layout;
use super::norm::RmsNorm;
use super::rope::Rotation;

/// Added to the scores of what a token must not see; finite, so that a row of padding, which sees nothing, has no NaN.
const HIDDEN: f32 = -1e30;

/// What the queries of one forward pass must not see: f32 `[batch or 1, 1, queries, keys]` to add to the scores.
/// `None` if they see everything.
#[derive(Debug, Clone)]
pub struct Mask(Option<Tensor<4>>);

impl Mask {
    /// The mask of `queries` over `keys` (what was cached, then the queries themselves) with a sliding window.
    pub fn new(queries: &Layout, keys: &Layout, window: Option<usize>, device: &Device) -> Self {
        let (count, total) = (queries.tokens(), keys.tokens());
        let window = window.unwrap_or(usize::MAX);
        let plain = keys.is_plain();
        if plain && count == 1 && window >= total {
            return Self(None);
        }
        let rows = if plain { 1 } else { queries.rows() };
        let mut values = Vec::with_capacity(rows * count * total);
        for row in 0..rows {
            for query in 0..count {
                let place = total - count + query;
                values.extend((0..total).map(|key| {
                    let seen = match plain {
                        true => key <= place && place - key < window,
                        false => queries.sees(row, query, keys, key, window),
                    };
                    if seen { 0.0 } else { HIDDEN }
                }));
            }
        }
        let data = TensorData::new(values, [rows, 1, count, total]);
        Self(Some(Tensor::from_data(data, (device, DType::F32))))
    }
}

/// Scaled dot-product attention. `query`: `[batch, heads, queries, head_dim]`, `key` and `value`:
/// `[batch, kv_heads, keys, head_dim]`; result `[batch, queries, heads·head_dim]`.
///
/// Heads that share a key are rows of one product: keys and values are never repeated in memory.
pub fn attend(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    mask: &Mask,
    scale: f64,
    softcap: Option<f64>,
) -> Tensor<3> {
    let [batch, heads, queries, width] = query.dims();
    let [_, kv_heads, keys, _] = key.dims();
    let dtype = query.dtype();
    let rows = heads / kv_heads * queries;
    let scores = query
        .mul_scalar(scale)
        .reshape([batch, kv_heads, rows, width])
        .matmul(key.swap_dims(2, 3))
        .cast(DType::F32);
    let scores = match softcap {
        Some(cap) => scores.div_scalar(cap).tanh().mul_scalar(cap),
        None => scores,
    };
    let scores = match &mask.0 {
        Some(hidden) => {
            (scores.reshape([batch, heads, queries, keys]) + hidden.clone()).reshape([batch, kv_heads, rows, keys])
        }
        None => scores,
    };
    softmax(scores, 3)
        .cast(dtype)
        .matmul(value)
        .reshape([batch, heads, queries, width])
        .swap_dims(1, 2)
        .reshape([batch, queries, heads * width])
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

    /// `[batch, tokens, d_model]` to the same.
    pub fn forward(
        &self,
        x: Tensor<3>,
        rotation: Option<&Rotation>,
        mask: &Mask,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
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
        let query = prepare(split(linear(&self.q_proj, x.clone()), self.heads), &self.q_norm);
        let key = prepare(split(linear(&self.k_proj, x.clone()), self.kv_heads), &self.k_norm);
        let value = split(linear(&self.v_proj, x), self.kv_heads);
        let (key, value) = match cache {
            Some(cache) => cache.extend(key, value),
            None => (key, value),
        };
        let mixed = attend(query, key, value, mask, self.scale, self.softcap);
        linear(&self.o_proj, mixed)
    }
}
