use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor};
use kernels::{AttentionOptions, Visible, attention, attention_qkv};
use proptest::prelude::*;

use super::{distance, leaf, normal, seed};

#[derive(Debug, Clone, Copy)]
struct Size {
    batch: usize,
    kv_heads: usize,
    groups: usize,
    queries: usize,
    keys: usize,
    width: usize,
}

/// Memory layout of the tensors.
#[derive(Debug, Clone, Copy)]
enum MemoryLayout {
    /// `[batch, heads, tokens, width]`
    Plain,
    /// `[batch, tokens, heads, width]`, seen through a view.
    ByToken,
    /// The width is not the last dimension in memory.
    Scattered,
}

/// Output and the gradients of query, key and value.
fn run(parts: &[Tensor<4>; 3], dtype: DType, layout: MemoryLayout, options: &AttentionOptions) -> Vec<Tensor<4>> {
    let leaves = parts.clone().map(|part| leaf(&part, dtype, true));
    let [query, key, value] = leaves.clone().map(|part| match layout {
        MemoryLayout::Plain => part,
        MemoryLayout::ByToken => part.swap_dims(1, 2),
        MemoryLayout::Scattered => part.swap_dims(2, 3),
    });
    let out = attention(query, key, value, options);
    let weights = out.clone().detach().mul_scalar(2.0).cos();
    let grads = (out.clone() * weights).sum().backward();
    let mut results = vec![out.inner()];
    results.extend(leaves.iter().map(|leaf| leaf.grad(&grads).unwrap()));
    results
}

fn inputs(size: Size, layout: MemoryLayout, spread: f64, device: &Device) -> [Tensor<4>; 3] {
    let Size {
        batch,
        kv_heads,
        groups,
        queries,
        keys,
        width,
    } = size;
    [(kv_heads * groups, queries), (kv_heads, keys), (kv_heads, keys)].map(|(heads, tokens)| {
        let shape = match layout {
            MemoryLayout::Plain => [batch, heads, tokens, width],
            MemoryLayout::ByToken => [batch, tokens, heads, width],
            MemoryLayout::Scattered => [batch, heads, width, tokens],
        };
        normal(shape, spread, device)
    })
}

fn compare(size: Size, layout: MemoryLayout, options: &AttentionOptions) -> f32 {
    let flex = Device::flex().autodiff();
    seed((size.queries * 7919 + size.keys * 104_729 + size.width) as u64);
    compare_on(&inputs(size, layout, 1.0, &flex), layout, options)
}

fn compare_on(parts: &[Tensor<4>; 3], layout: MemoryLayout, options: &AttentionOptions) -> f32 {
    let ours = run(parts, DType::F32, layout, options);
    let theirs = run(parts, DType::F64, layout, options);
    let pairs = ours.into_iter().zip(theirs);
    pairs.map(|(ours, theirs)| distance(ours, theirs)).fold(0.0, f32::max)
}

fn ranges(size: Size, seed: u64) -> Visible {
    let mut state = seed;
    let mut below = |limit: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % (limit + 1)
    };
    let ranges: Arc<[Range<usize>]> = (0..size.batch * size.queries)
        .map(|_| {
            let from = below(size.keys);
            from..from + below(size.keys - from)
        })
        .collect();
    Visible::Ranges(ranges)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn agrees(
        batch in 1usize..3,
        kv_heads in 1usize..3,
        groups in 1usize..4,
        queries in prop_oneof![1usize..5, 20usize..60],
        more in 0usize..40,
        width in prop_oneof![Just(1usize), Just(7), Just(16), Just(33)],
        layout in prop_oneof![Just(MemoryLayout::Plain), Just(MemoryLayout::ByToken), Just(MemoryLayout::Scattered)],
        mask in 0usize..4,
        window in 1usize..30,
        softcap in prop::option::of(1.0f64..20.0),
        scale in prop::option::of(0.1f64..1.0),
        seed: u64,
    ) {
        let size = Size { batch, kv_heads, groups, queries, keys: queries + more, width };
        let visible = match mask {
            0 => Visible::All,
            1 => Visible::Causal { window: None },
            2 => Visible::Causal { window: Some(window) },
            _ => ranges(size, seed),
        };
        let worst = compare(size, layout, &AttentionOptions { scale, softcap, visible });
        prop_assert!(worst < 2e-5, "{worst:e}");
    }
}

#[test]
fn many_tiles() {
    let size = Size {
        batch: 1,
        kv_heads: 1,
        groups: 2,
        queries: 450,
        keys: 500,
        width: 16,
    };
    for visible in [
        Visible::All,
        Visible::Causal { window: None },
        Visible::Causal { window: Some(20) },
        ranges(size, 3),
    ] {
        let options = AttentionOptions {
            visible,
            ..AttentionOptions::default()
        };
        let worst = compare(size, MemoryLayout::ByToken, &options);
        assert!(worst < 2e-5, "{worst:e}");
    }
}

#[test]
fn decoding_with_many_keys() {
    for (kv_heads, groups) in [(1, 4), (3, 1)] {
        let size = Size {
            batch: 2,
            kv_heads,
            groups,
            queries: 1,
            keys: 611,
            width: 24,
        };
        for (visible, softcap) in [
            (Visible::All, None),
            (Visible::Causal { window: Some(300) }, Some(3.0)),
            (ranges(size, 5), None),
            // One sequence sees no keys, the other only the last of three chunks.
            (Visible::Ranges(Arc::new([7..7, 500..600])), None),
        ] {
            let options = AttentionOptions {
                softcap,
                visible,
                ..AttentionOptions::default()
            };
            for layout in [MemoryLayout::Plain, MemoryLayout::ByToken] {
                let worst = compare(size, layout, &options);
                assert!(worst < 2e-5, "{worst:e}");
            }
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let size = Size {
        batch: 1,
        kv_heads: 2,
        groups: 1,
        queries: 9,
        keys: 300,
        width: 8,
    };
    // Integers, so that both precisions find the same scores.
    let parts = inputs(size, MemoryLayout::Plain, 30.0, &Device::flex()).map(|part| part.round());
    let options = AttentionOptions {
        scale: Some(1.0),
        ..AttentionOptions::default()
    };
    let worst = compare_on(&parts, MemoryLayout::Plain, &options);
    // Gradients near zero are differences of numbers in the hundreds here.
    assert!(worst < 2e-3, "{worst:e}");
}

#[test]
fn a_query_without_visible_keys_gives_zeros_and_no_gradient() {
    let device = Device::flex().autodiff();
    let [query, key, value] = [0; 3].map(|_| normal([1, 1, 2, 4], 1.0, &device).require_grad());
    let options = AttentionOptions {
        visible: Visible::Ranges(Arc::new([0..0, 0..2])),
        ..AttentionOptions::default()
    };
    let out = attention(query.clone(), key, value, &options);
    let grads = out.clone().sum().backward();
    let out = out.into_data().try_to_vec::<f32>().unwrap();
    let grad = query.grad(&grads).unwrap().into_data().try_to_vec::<f32>().unwrap();
    assert_eq!((&out[..4], &grad[..4]), ([0.0; 4].as_slice(), [0.0; 4].as_slice()));
    assert!(out[4..].iter().all(|x| *x != 0.0));
}

#[test]
fn nan_stays_nan() {
    let device = Device::flex();
    let query = Tensor::<4>::full([1, 1, 2, 4], f32::NAN, &device);
    let key = normal([1, 1, 3, 4], 1.0, &device);
    let out = attention(query, key.clone(), key, &AttentionOptions::default());
    assert!(out.into_data().iter::<f32>().all(f32::is_nan));
}

#[test]
fn a_fused_projection_equals_separate_ones() {
    let flex = Device::flex().autodiff();
    seed(5);
    let [batch, tokens, heads, width] = [3, 50, 4, 6];
    let data = normal([batch, tokens, 3 * heads * width], 1.0, &flex);
    let run = |queries: usize, visible: &Visible, dtype: DType| {
        let qkv = leaf(&data, dtype, true);
        let options = AttentionOptions {
            visible: visible.clone(),
            ..AttentionOptions::default()
        };
        let out = attention_qkv(qkv.clone(), heads, queries, &options);
        let weights = out.clone().detach().cos();
        let grads = (out.clone() * weights).sum().backward();
        [out.inner(), qkv.grad(&grads).unwrap()]
    };
    let causal = Visible::Causal { window: Some(9) };
    for (queries, visible) in [
        (tokens, causal),
        (tokens, Visible::All),
        (1, Visible::All),
        (7, Visible::All),
    ] {
        let both = [DType::F32, DType::F64].map(|dtype| run(queries, &visible, dtype));
        let [ours, theirs] = both;
        assert_eq!(ours[0].dims(), [batch, queries, heads * width]);
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            assert!(distance(ours, theirs) < 1e-5);
        }
    }
}
