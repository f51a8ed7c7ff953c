//! Scaled dot-product attention that never stores more than one tile of a head's `[queries, keys]` matrix (Dao et al. 2022,
//! arXiv 2205.14135): the backward pass recomputes the probabilities.

use burn::tensor::activation::softmax;
use burn::tensor::{DType, Tensor};

use crate::attention_options::{AttentionOptions, Visible};
use crate::dtype::upcast;
use crate::operands::Operands;
use crate::unsaved_attention::unsaved;

/// `softmax(scale·query·keyᵀ)·value`.
///
/// `query`: `[batch, heads, queries, width]`, `key` and `value`: `[batch, kv_heads, keys, width]`, where `kv_heads` divides
/// `heads` and consecutive heads share a key (grouped-query attention); the result has the shape of `query`. On flex, views
/// such as `x.reshape([batch, tokens, heads, width]).swap_dims(1, 2)` are read without a copy, and the result is stored as
/// `[batch, queries, heads, width]`, so that `swap_dims(1, 2).reshape(..)` of it costs nothing.
///
/// # Panics
/// Operands that differ in dtype or device, or whose shapes do not match; [`Visible::Ranges`] without one range per query.
#[track_caller]
pub fn attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, options: &AttentionOptions) -> Tensor<4> {
    let ([batch, heads, queries, width], [_, kv_heads, keys, _]) = (query.dims(), key.dims());
    let operands = Operands::of("attention", "query", &query);
    operands
        .same("key", &key)
        .same("value", &value)
        .shape(
            "key",
            &key.dims(),
            &[batch, kv_heads, keys, width],
            "[batch, kv_heads, keys, width]",
        )
        .shape("value", &value.dims(), &key.dims(), "the shape of `key`")
        .require(heads == 0 || kv_heads > 0 && heads.is_multiple_of(kv_heads), || {
            format!("`query` has {heads} heads, `key` {kv_heads}; expected a divisor of {heads}")
        });
    options.visible.check(&operands, batch, queries);
    if query.shape().num_elements() == 0 || keys == 0 {
        return Tensor::zeros(query.dims(), (&query.device(), query.dtype()));
    }
    #[cfg(feature = "flex")]
    if [&query, &key, &value].into_iter().all(crate::flex::supports) {
        return crate::flex::attention::attention(query, key, value, options.unshared());
    }
    plain(query, key, value, options)
}

/// [`attention`] on a fused projection. `qkv`: `[batch, tokens, 3·d_model]`, the queries of all heads, then the keys, then
/// the values. Only the first `queries` tokens are used as queries; result `[batch, queries, d_model]`. With
/// [`Visible::Causal`], which aligns the last query with the last key, `queries` must be `tokens`.
///
/// # Panics
/// `qkv` is not a float tensor, its last dimension is not divisible by 3·heads, or `queries` is too large.
#[track_caller]
pub fn attention_qkv(qkv: Tensor<3>, heads: usize, queries: usize, options: &AttentionOptions) -> Tensor<3> {
    let [batch, tokens, width] = qkv.dims();
    let operands = Operands::of("attention_qkv", "qkv", &qkv);
    let causal = matches!(options.visible.unshared(), Visible::Causal { .. });
    operands
        .require(heads > 0 && width.is_multiple_of(3 * heads), || {
            format!("`qkv` has {width} channels; expected a multiple of 3 x {heads} heads")
        })
        .require(queries == tokens || queries < tokens && !causal, || {
            let most = if causal {
                "all of them with a causal mask"
            } else {
                "at most all of them"
            };
            format!("{queries} queries of {tokens} tokens; expected {most}")
        });
    options.visible.check(&operands, batch, queries);
    if qkv.shape().num_elements() == 0 || queries == 0 {
        return Tensor::zeros([batch, queries, width / 3], (&qkv.device(), qkv.dtype()));
    }
    #[cfg(feature = "flex")]
    if crate::flex::supports(&qkv) {
        return crate::flex::attention::attention_qkv(qkv, heads, queries, options.unshared());
    }
    let d_model = width / 3;
    let qkv = qkv
        .reshape([batch, tokens, 3, heads, d_model / heads])
        .permute([2, 0, 3, 1, 4]);
    let part = |i: usize| qkv.clone().narrow(0, i, 1).squeeze_dim::<4>(0);
    plain(part(0).narrow(2, 0, queries), part(1), part(2), options)
        .swap_dims(1, 2)
        .reshape([batch, queries, d_model])
}

fn plain(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, options: &AttentionOptions) -> Tensor<4> {
    let ([_, _, queries, _], [_, _, keys, _]) = (query.dims(), key.dims());
    if let (Visible::Causal { window }, 1) = (options.visible.unshared(), queries)
        && *window != Some(0)
    {
        // The newest token needs no mask.
        let visible_keys = window.map_or(keys, |window| window.min(keys));
        let options = AttentionOptions {
            visible: Visible::All,
            ..options.clone()
        };
        let latest = |past: Tensor<4>| past.narrow(2, keys - visible_keys, visible_keys);
        return plain(query, latest(key), latest(value), &options);
    }
    match unsaved(&query, &key, &value, options, whole) {
        Some(out) => out,
        None => whole(query, key, value, options),
    }
}

/// [`attention`] by plain operations, all scores at once.
pub(crate) fn whole(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, options: &AttentionOptions) -> Tensor<4> {
    let [batch, heads, queries, width] = query.dims();
    let [_, kv_heads, keys, _] = key.dims();
    let scale = options.scale(width);
    // In f16, products overflow unless their operand is scaled; elsewhere their kernel scales them on the way out.
    let (query, factor) = match query.dtype() {
        DType::F16 => (query.mul_scalar(scale), None),
        _ => (query, Some(scale)),
    };
    // Heads that share a key become rows of one product.
    let rows = heads / kv_heads * queries;
    let scores = query
        .reshape([batch, kv_heads, rows, width])
        .matmul(key.swap_dims(2, 3))
        .reshape([batch, heads, queries, keys]);
    let scores = match factor {
        Some(scale) => scores.mul_scalar(scale),
        None => scores,
    };
    let scores = match options.softcap {
        Some(cap) => scores.div_scalar(cap).tanh().mul_scalar(cap),
        None => scores,
    };
    let dtype = scores.dtype();
    let scores = upcast(scores);
    let mask = options.visible.mask(queries, keys, &scores.device(), scores.dtype());
    let (bias, seeing) = mask.map_or((None, None), |mask| (Some(mask.bias), mask.seeing));
    let scores = match bias {
        Some(bias) => scores + bias,
        None => scores,
    };
    let out = softmax(scores, 3)
        .cast(dtype)
        .reshape([batch, kv_heads, rows, keys])
        .matmul(value)
        .reshape([batch, heads, queries, width]);
    match seeing {
        Some(seeing) => out * seeing.cast(dtype),
        None => out,
    }
}
