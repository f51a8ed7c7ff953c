//! Attention of forward passes, where no backward pass needs the scores: they are not all stored at once.

use burn::tensor::module::attention as of_backend;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{DType, Tensor};

use crate::attention_options::{AttentionOptions, Visible};

/// Scores that are stored at once: 256 MB in f32.
const SCORES: usize = 1 << 26;

/// Attention by the backend's own operation or, for many scores, for some queries at a time, each by `whole`. `None` where
/// the scores are few, or a backward pass needs them.
pub(crate) fn unsaved(
    query: &Tensor<4>,
    key: &Tensor<4>,
    value: &Tensor<4>,
    options: &AttentionOptions,
    whole: impl Fn(Tensor<4>, Tensor<4>, Tensor<4>, &AttentionOptions) -> Tensor<4>,
) -> Option<Tensor<4>> {
    let ([batch, heads, queries, width], [_, _, keys, _]) = (query.dims(), key.dims());
    let causal = match options.visible.unshared() {
        Visible::All => false,
        Visible::Causal { window } if queries <= keys && window.is_none_or(|window| window > 0) => true,
        _ => return None,
    };
    if [query, key, value].into_iter().any(Tensor::is_autodiff) {
        return None;
    }
    let is_usual = !causal || queries == keys && options.visible.unshared() == &Visible::Causal { window: None };
    // Burn's flash attention multiplies in f16 whatever it is given, which would be a silent loss in f32. With few queries
    // the scores are small, and a few fused operations are faster.
    let is_half = matches!(query.dtype(), DType::F16 | DType::BF16 | DType::Flex32);
    // Flex computes in f32, from half-precision operands too.
    #[cfg(feature = "flex")]
    let is_half = is_half && !crate::flex::on_flex(query);
    if is_half && is_usual && options.softcap.is_none() && queries > width {
        return Some(by_backend(
            query.clone(),
            key.clone(),
            value.clone(),
            causal,
            options.scale(width),
        ));
    }
    let rows = (SCORES / (batch * heads * keys)).max(1);
    (queries > rows).then(|| {
        let parts = [query, key, value].map(Tensor::clone);
        in_blocks(parts, causal, options, rows, whole)
    })
}

/// Burn's operation, which has no heads that share a key.
fn by_backend(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, causal: bool, scale: f64) -> Tensor<4> {
    let [batch, heads, queries, width] = query.dims();
    let [_, kv_heads, keys, _] = key.dims();
    let default = (width as f64).powf(-0.5);
    // Its fast kernels have the usual scale only.
    let query = match scale == default {
        true => query,
        false => query.mul_scalar(scale / default),
    };
    let options = AttentionModuleOptions {
        is_causal: causal,
        ..AttentionModuleOptions::default()
    };
    if !causal {
        // Heads that share a key become queries of one head.
        let query = query.reshape([batch, kv_heads, heads / kv_heads * queries, width]);
        return of_backend(query, key, value, None, None, options).reshape([batch, heads, queries, width]);
    }
    let repeated = |x: Tensor<4>| match heads == kv_heads {
        true => x,
        false => x
            .unsqueeze_dim::<5>(2)
            .expand([batch, kv_heads, heads / kv_heads, keys, width])
            .reshape([batch, heads, keys, width]),
    };
    of_backend(query, repeated(key), repeated(value), None, None, options)
}

/// `whole` of `rows` queries at a time.
fn in_blocks(
    [query, key, value]: [Tensor<4>; 3],
    causal: bool,
    options: &AttentionOptions,
    rows: usize,
    whole: impl Fn(Tensor<4>, Tensor<4>, Tensor<4>, &AttentionOptions) -> Tensor<4>,
) -> Tensor<4> {
    let ([_, _, queries, _], [_, _, keys, _]) = (query.dims(), key.dims());
    // Every block has a mask of its own.
    let options = options.unshared();
    let blocks = (0..queries).step_by(rows).map(|from| {
        let count = rows.min(queries - from);
        // Later keys are hidden from all queries of the block.
        let seen = if causal { keys - (queries - from - count) } else { keys };
        let [key, value] = [&key, &value].map(|x| x.clone().narrow(2, 0, seen));
        whole(query.clone().narrow(2, from, count), key, value, &options)
    });
    Tensor::cat(blocks.collect(), 2)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::attention::whole;

    fn random(shape: [usize; 4]) -> Tensor<4> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    fn assert_close(got: Tensor<4>, expected: Tensor<4>) {
        assert_eq!(got.dims(), expected.dims());
        let difference = (got - expected).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-5, "{difference}");
    }

    #[test]
    fn some_queries_at_a_time_give_what_all_of_them_give() {
        for (visible, keys) in [
            (Visible::All, 11),
            (Visible::Causal { window: None }, 7),
            (Visible::Causal { window: None }.shared(), 11),
            (Visible::Causal { window: Some(3) }, 9),
        ] {
            let parts = [random([2, 4, 7, 8]), random([2, 2, keys, 8]), random([2, 2, keys, 8])];
            let options = AttentionOptions {
                softcap: Some(2.0),
                visible,
                ..AttentionOptions::default()
            };
            let [query, key, value] = parts.clone();
            let expected = whole(query, key, value, &options);
            let causal = options.visible != Visible::All;
            for rows in [1, 3, 7] {
                assert_close(
                    in_blocks(parts.clone(), causal, &options, rows, whole),
                    expected.clone(),
                );
            }
        }
    }

    #[test]
    fn the_operation_of_the_backend_gives_the_same() {
        for kv_heads in [1, 2, 4] {
            for (visible, keys) in [(Visible::All, 12), (Visible::Causal { window: None }, 7)] {
                let [query, key, value] = [
                    random([2, 4, 7, 8]),
                    random([2, kv_heads, keys, 8]),
                    random([2, kv_heads, keys, 8]),
                ];
                let causal = visible != Visible::All;
                let options = AttentionOptions {
                    scale: Some(0.2),
                    visible,
                    ..AttentionOptions::default()
                };
                let expected = whole(query.clone(), key.clone(), value.clone(), &options);
                assert_close(by_backend(query, key, value, causal, 0.2), expected);
            }
        }
    }

    #[test]
    fn few_scores_and_those_with_a_gradient_are_computed_as_a_whole() {
        let of = |device: &Device| {
            let x = Tensor::zeros([1, 1, 9, 4], device);
            unsaved(&x, &x, &x, &AttentionOptions::default(), whole).is_some()
        };
        assert!(!of(&Device::flex()) && !of(&Device::flex().autodiff()));
    }
}
