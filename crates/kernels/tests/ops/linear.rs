use burn::tensor::{DType, Device, Tensor};
use proptest::prelude::*;

use super::{distance, leaf, normal, seed};

#[derive(Debug, Clone, Copy)]
enum Kind {
    Bias,
    NoBias,
    Gelu,
    Add,
}

/// Output and the gradients of x, weight, bias and residual, where required.
fn run(kind: Kind, parts: &[Tensor<2>; 4], dtype: DType, frozen: bool, views: bool) -> Vec<Tensor<2>> {
    let required = [true, !frozen, !frozen, true];
    let leaves: [Tensor<2>; 4] = std::array::from_fn(|i| leaf(&parts[i], dtype, required[i]));
    let [x, weight, bias, residual] = leaves.clone();
    // As views of other shapes: both matrices are transposed in memory.
    let (x, weight) = match views {
        true => (x.transpose(), weight.transpose()),
        false => (x, weight),
    };
    let width = bias.dims()[1];
    let bias = bias.reshape([width]);
    let out = match kind {
        Kind::Bias => kernels::linear(x, weight, Some(bias)),
        Kind::NoBias => kernels::linear(x, weight, None),
        Kind::Gelu => kernels::linear_gelu(x, weight, Some(bias)),
        Kind::Add => kernels::linear_add(x, weight, Some(bias), residual),
    };
    let weights = out.clone().detach().cos();
    let grads = (out.clone() * weights).sum().backward();
    let used = [true, true, !matches!(kind, Kind::NoBias), matches!(kind, Kind::Add)];
    let mut results = vec![out];
    for i in 0..4 {
        let grad = leaves[i].grad(&grads);
        assert_eq!(grad.is_some(), required[i] && used[i], "gradient {i}");
        results.extend(grad);
    }
    results
}

fn compare(kind: Kind, [n, d_in, d_out]: [usize; 3], frozen: bool, views: bool) {
    let flex = Device::flex().autodiff();
    seed((n * 7919 + d_in * 104_729 + d_out) as u64);
    let swap = |[a, b]: [usize; 2]| if views { [b, a] } else { [a, b] };
    let parts = [
        normal(swap([n, d_in]), 1.0, &flex),
        normal(swap([d_in, d_out]), (d_in as f64).powf(-0.5), &flex),
        normal([1, d_out], 1.0, &flex),
        normal([n, d_out], 1.0, &flex),
    ];
    let ours = run(kind, &parts, DType::F32, frozen, views);
    let theirs = run(kind, &parts, DType::F64, frozen, views);
    for (index, (ours, theirs)) in ours.into_iter().zip(theirs).enumerate() {
        let worst = distance(ours, theirs);
        assert!(worst < 2e-5, "{kind:?} {n} {d_in} {d_out}, result {index}: {worst:e}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn agrees(
        n in prop_oneof![1usize..8, 100usize..700],
        d_in in 1usize..80,
        d_out in 1usize..80,
        kind in prop_oneof![Just(Kind::Bias), Just(Kind::NoBias), Just(Kind::Gelu), Just(Kind::Add)],
        frozen: bool,
        views: bool,
    ) {
        compare(kind, [n, d_in, d_out], frozen, views);
    }
}

#[test]
fn one_large_product_on_all_cores() {
    compare(Kind::Gelu, [100, 300, 300], true, false);
}

#[test]
fn nothing_is_tracked_without_need() {
    let device = Device::flex().autodiff();
    let x = normal([3, 4], 1.0, &device);
    let weight = normal([4, 5], 1.0, &device);
    assert!(!kernels::linear_gelu(x, weight, None).is_require_grad());
}

#[test]
fn no_rows_give_no_rows() {
    let device = Device::flex();
    let out = kernels::linear(Tensor::zeros([0, 4], &device), Tensor::zeros([4, 5], &device), None);
    assert_eq!(out.dims(), [0, 5]);
}
