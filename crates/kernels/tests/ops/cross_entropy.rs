//! The chunked cross-entropy against Burn's own on whole logits.

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{DType, Device, Int, Tensor, TensorData, Tolerance};
use kernels::{LmHead, linear_cross_entropy, linear_nll};
use proptest::prelude::*;

use super::{distance, leaf, normal, seed};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Up to logits of some hundreds.
    #[test]
    fn agrees(
        n in 1usize..40,
        d in 1usize..24,
        vocab in 2usize..700,
        spread in 0.1f64..60.0,
        cap in proptest::option::of(1.0f64..50.0),
        trained: bool,
        tied: bool,
    ) {
        let device = Device::flex();
        seed((n * 1000 + d + vocab) as u64);
        let hidden = normal([n, d], spread, &device);
        let weight = normal(if tied { [vocab, d] } else { [d, vocab] }, 1.0, &device);
        let labels: Vec<i64> = (0..n).map(|i| (i * 31 % vocab) as i64).collect();
        let labels = TensorData::new(labels, [n]);
        let run = |dtype: DType| {
            let (hidden, weight) = (leaf(&hidden, dtype, true), leaf(&weight, dtype, trained));
            let labels = Tensor::<1, Int>::from_data(labels.clone(), &hidden.device());
            let head = LmHead {
                weight: if tied { weight.clone().transpose() } else { weight.clone() },
                soft_cap: cap,
                trained,
            };
            let loss = match dtype {
                DType::F32 => linear_cross_entropy(hidden.clone(), &head, labels, n as f64),
                _ => CrossEntropyLossConfig::new().init(&hidden.device()).forward(head.logits(hidden.clone()), labels),
            };
            let grads = loss.backward();
            let of_weight = weight.grad(&grads);
            assert_eq!(of_weight.is_some(), trained);
            let of_hidden = hidden.grad(&grads).unwrap();
            [Some(loss.inner().unsqueeze()), Some(of_hidden), of_weight]
        };
        // What a logit is rounded by, its probability is off by, relatively: a logit is a sum of `d` terms of that spread.
        let bound = 3e-6 + 1e-7 * spread as f32 * d as f32;
        let pairs = run(DType::F32).into_iter().flatten().zip(run(DType::F64).into_iter().flatten());
        for (ours, theirs) in pairs {
            let worst = distance(ours, theirs);
            prop_assert!(worst < bound, "{worst:e}");
        }
    }
}

fn compare(n: usize, d: usize, vocab: usize, soft_cap: Option<f64>, trained: bool) {
    let device = Device::flex().autodiff();
    seed(7);
    let random = |shape: [usize; 2]| normal(shape, 1.0, &device);
    let hidden = random([n, d]).require_grad();
    let weight = random([d, vocab]);
    let weight = if trained { weight.require_grad() } else { weight };
    let labels: Vec<i64> = (0..n).map(|i| (i * 31 % vocab) as i64).collect();
    let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [n]), &device);
    let head = LmHead {
        weight: weight.clone(),
        soft_cap,
        trained,
    };
    let ours = linear_cross_entropy(hidden.clone(), &head, labels.clone(), n as f64);
    // In f64, so that only our own rounding is judged.
    let (exact_hidden, exact_weight) = (leaf(&hidden, DType::F64, true), leaf(&weight, DType::F64, trained));
    let exact_head = LmHead {
        weight: exact_weight.clone(),
        ..head
    };
    let theirs = CrossEntropyLossConfig::new()
        .init(&device)
        .forward(exact_head.logits(exact_hidden.clone()), labels.clone());
    let close = |a: Tensor<2>, b: Tensor<2>| {
        a.into_data()
            .assert_approx_eq::<f32>(&b.into_data().convert::<f32>(), Tolerance::rel_abs(2e-6, 3e-6))
    };
    close(ours.clone().reshape([1, 1]), theirs.clone().reshape([1, 1]));
    let mean = linear_nll(hidden.clone(), &head, labels).mean();
    close(mean.reshape([1, 1]), theirs.clone().inner().reshape([1, 1]));
    // A factor after the loss reaches the gradients.
    let (ours, theirs) = (ours.mul_scalar(3.0).backward(), theirs.mul_scalar(3.0).backward());
    close(hidden.grad(&ours).unwrap(), exact_hidden.grad(&theirs).unwrap());
    assert_eq!(weight.grad(&ours).is_some(), trained);
    if trained {
        close(weight.grad(&ours).unwrap(), exact_weight.grad(&theirs).unwrap());
    }
}

#[test]
fn value_and_gradients_are_those_of_whole_logits() {
    compare(5, 8, 33, None, false);
    compare(7, 8, 33, Some(3.0), false);
    compare(7, 8, 33, Some(3.0), true);
}

#[test]
fn more_rows_than_a_task_has_and_more_words_than_a_block() {
    compare(600, 5, 700, None, false);
    compare(600, 5, 700, Some(2.0), false);
    compare(3, 16, 5000, None, false);
    compare(1, 4, 2, None, false);
}

#[test]
fn a_head_of_half_precision_stays_as_it_is() {
    let device = Device::flex().autodiff();
    seed(3);
    let random = |shape: [usize; 2]| normal(shape, 1.0, &device);
    let hidden = random([40, 24]);
    // Tied to an embedding: a view of it.
    let weight = random([900, 24]).cast(DType::BF16).transpose();
    let labels = Tensor::<1, Int>::arange(0..40, &device);
    let value = |weight: Tensor<2>, trained: bool| {
        let head = LmHead {
            weight,
            soft_cap: None,
            trained,
        };
        let hidden = hidden.clone().detach().require_grad();
        let loss = linear_cross_entropy(hidden.clone(), &head, labels.clone(), 40.0);
        let grads = loss.backward();
        (loss.inner().into_data(), hidden.grad(&grads).unwrap().into_data())
    };
    let (exact, exact_grad) = value(weight.clone().cast(DType::F32), false);
    for trained in [false, true] {
        let (found, grad) = value(weight.clone(), trained);
        found.assert_approx_eq::<f32>(&exact, Tolerance::absolute(1e-5));
        grad.assert_approx_eq::<f32>(&exact_grad, Tolerance::absolute(1e-6));
    }
}

#[test]
fn more_rows_than_a_chunk_holds() {
    // 2^25 / 600,000 = 55 rows a chunk.
    compare(60, 2, 600_000, None, false);
    compare(60, 2, 600_000, None, true);
}
