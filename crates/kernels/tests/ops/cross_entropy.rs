//! The chunked cross-entropy against Burn's own on the full logits.

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{DType, Device, Int, Tensor, TensorData, Tolerance};
use kernels::{LmHead, linear_cross_entropy, linear_nll};
use proptest::prelude::*;

use super::{distance, leaf, normal, seed};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Logits up to a few hundred.
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
                softcap: cap,
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
        // The rounding error of a logit is the relative error of its probability; a logit is a sum of `d` terms of that spread.
        let bound = 3e-6 + 1e-7 * spread as f32 * d as f32;
        let pairs = run(DType::F32).into_iter().flatten().zip(run(DType::F64).into_iter().flatten());
        for (ours, theirs) in pairs {
            let worst = distance(ours, theirs);
            prop_assert!(worst < bound, "{worst:e}");
        }
    }
}

fn compare(n: usize, d: usize, vocab: usize, softcap: Option<f64>, trained: bool) {
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
        softcap,
        trained,
    };
    let ours = linear_cross_entropy(hidden.clone(), &head, labels.clone(), n as f64);
    let whole = head.logits(hidden.clone());
    let theirs = CrossEntropyLossConfig::new()
        .init(&device)
        .forward(whole, labels.clone());
    // Sums over 600,000 tokens have errors up to this where registers are narrow (x86-64-v2).
    let close = |a: Tensor<2>, b: Tensor<2>| {
        a.into_data()
            .assert_approx_eq::<f32>(&b.into_data(), Tolerance::rel_abs(4e-6, 1e-5))
    };
    close(ours.clone().reshape([1, 1]), theirs.clone().reshape([1, 1]));
    let mean = linear_nll(hidden.clone(), &head, labels).mean();
    close(mean.reshape([1, 1]), theirs.clone().inner().reshape([1, 1]));
    // A factor after the loss reaches the gradients.
    let (ours, theirs) = (ours.mul_scalar(3.0).backward(), theirs.mul_scalar(3.0).backward());
    close(hidden.grad(&ours).unwrap(), hidden.grad(&theirs).unwrap());
    assert_eq!(weight.grad(&ours).is_some(), trained);
    if trained {
        close(weight.grad(&ours).unwrap(), weight.grad(&theirs).unwrap());
    }
}

#[test]
fn value_and_gradients_are_those_of_the_full_logits() {
    compare(5, 8, 33, None, false);
    compare(7, 8, 33, Some(3.0), false);
    compare(7, 8, 33, Some(3.0), true);
}

#[test]
fn more_rows_than_a_task_and_more_tokens_than_a_block() {
    compare(600, 5, 700, None, false);
    compare(600, 5, 700, Some(2.0), false);
    compare(3, 16, 5000, None, false);
    compare(1, 4, 2, None, false);
}

#[test]
fn a_half_precision_head_is_read_as_it_is() {
    let device = Device::flex().autodiff();
    seed(3);
    let random = |shape: [usize; 2]| normal(shape, 1.0, &device);
    let hidden = random([40, 24]);
    // Tied to an embedding: a transposed view of it.
    let weight = random([900, 24]).cast(DType::BF16).transpose();
    let labels = Tensor::<1, Int>::arange(0..40, &device);
    let value = |weight: Tensor<2>, trained: bool| {
        let head = LmHead {
            weight,
            softcap: None,
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
fn more_rows_than_a_chunk() {
    // 2^25 / 600,000 = 55 rows per chunk.
    compare(60, 2, 600_000, None, false);
    compare(60, 2, 600_000, None, true);
}

/// Ignoring rows equals Burn's own cross-entropy of the remaining rows.
#[test]
fn ignored_rows_add_nothing() {
    let device = Device::flex().autodiff();
    seed(31);
    let [d, vocab] = [6, 40];
    for (n, every) in [(9, 2), (9, 1), (400, 3), (5, 9)] {
        let hidden = normal([n, d], 1.0, &device);
        let weight = normal([d, vocab], 1.0, &device);
        let labels: Vec<i64> = (0..n)
            .map(|i| {
                if (i + 1) % every == 0 {
                    kernels::IGNORE_INDEX
                } else {
                    (i * 7 % vocab) as i64
                }
            })
            .collect();
        let counted: Vec<i64> = (0..n as i64).filter(|i| labels[*i as usize] >= 0).collect();
        let count = counted.len();
        let targets = Tensor::<1, Int>::from_data(TensorData::new(labels, [n]), &device);
        let counted = Tensor::<1, Int>::from_data(TensorData::new(counted, [count]), &device);
        for (trained, softcap) in [(false, None), (true, None), (false, Some(2.0)), (true, Some(2.0))] {
            let leaves = || {
                let hidden = hidden.clone().detach().require_grad();
                let weight = weight.clone().detach();
                (hidden, if trained { weight.require_grad() } else { weight })
            };
            let (our_hidden, our_weight) = leaves();
            let head = |weight: &Tensor<2>| LmHead {
                weight: weight.clone(),
                softcap,
                trained,
            };
            let denominator = count.max(1) as f64;
            let ours = linear_cross_entropy(our_hidden.clone(), &head(&our_weight), targets.clone(), denominator);
            let grads = ours.backward();
            let ours = ours.inner().into_scalar::<f32>();
            let of_hidden = our_hidden.grad(&grads).unwrap();
            let nll = linear_nll(our_hidden, &head(&our_weight), targets.clone()).into_data();
            let ignored = targets.to_data();
            for (nll, target) in nll.iter::<f32>().zip(ignored.iter::<i64>()) {
                assert_eq!(nll == 0.0, target < 0, "{nll} for {target}");
            }
            if count == 0 {
                assert_eq!(ours, 0.0);
                assert!(of_hidden.into_data().iter::<f32>().all(|x| x == 0.0));
                continue;
            }
            let (their_hidden, their_weight) = leaves();
            let logits = head(&their_weight).logits(their_hidden.clone().select(0, counted.clone()));
            let loss = CrossEntropyLossConfig::new().init(&device);
            let theirs = loss.forward(logits, targets.clone().select(0, counted.clone()));
            let their_grads = theirs.backward();
            assert!((ours - theirs.inner().into_scalar::<f32>()).abs() < 1e-5);
            assert!(distance(of_hidden, their_hidden.grad(&their_grads).unwrap()) < 1e-5);
            if trained {
                let pair = [&our_weight, &their_weight].map(|weight| weight.clone());
                let [ours, theirs] = [pair[0].grad(&grads), pair[1].grad(&their_grads)].map(Option::unwrap);
                assert!(distance(ours, theirs) < 1e-5);
            }
        }
    }
}
