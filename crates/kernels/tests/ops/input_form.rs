use burn::tensor::{DType, Device, Tensor};
use kernels::InputEdit;
use proptest::prelude::*;

use super::{distance, leaf, normal, seed};

/// Which of x, phi and psi, weight and bias, and the residual require a gradient.
#[derive(Debug, Clone, Copy)]
struct Requires {
    x: bool,
    factors: bool,
    weight: bool,
    residual: Option<bool>,
}

/// Output and the gradients of x, phi, psi, weight, bias and residual, where required.
fn run(required: Requires, parts: &[Tensor<2>; 6], dtype: DType, views: bool) -> Vec<Tensor<2>> {
    let wanted = [
        required.x,
        required.factors,
        required.factors,
        required.weight,
        required.weight,
        required.residual == Some(true),
    ];
    let leaves: [Tensor<2>; 6] = std::array::from_fn(|i| leaf(&parts[i], dtype, wanted[i]));
    let [x, phi, psi, weight, bias, residual] = leaves.clone();
    // As views of other shapes: these are transposed in memory.
    let [x, phi, psi, weight] = match views {
        true => [x, phi, psi, weight].map(|tensor| tensor.transpose()),
        false => [x, phi, psi, weight],
    };
    let width = bias.dims()[1];
    let edit = InputEdit { phi, psi, scale: 0.75 };
    let residual = required.residual.map(|_| residual);
    let out = kernels::input_form(x, edit, weight, Some(bias.reshape([width])), residual);
    let mut results = vec![out.clone()];
    if wanted.contains(&true) {
        let weights = out.clone().detach().cos();
        let grads = (out * weights).sum().backward();
        for i in 0..6 {
            let grad = leaves[i].grad(&grads);
            assert_eq!(grad.is_some(), wanted[i], "gradient {i}");
            results.extend(grad);
        }
    }
    results
}

fn compare(required: Requires, [n, d_in, d_out, r]: [usize; 4], views: bool) {
    let flex = Device::flex().autodiff();
    seed((n * 7919 + d_in * 104_729 + d_out * 31 + r) as u64);
    let swap = |[a, b]: [usize; 2]| if views { [b, a] } else { [a, b] };
    let spread = (d_in as f64).powf(-0.5);
    let parts = [
        normal(swap([n, d_in]), 1.0, &flex),
        normal(swap([d_in, r]), spread, &flex),
        normal(swap([r, d_in]), spread, &flex),
        normal(swap([d_in, d_out]), spread, &flex),
        normal([1, d_out], 1.0, &flex),
        normal([n, d_out], 1.0, &flex),
    ];
    let ours = run(required, &parts, DType::F32, views);
    let theirs = run(required, &parts, DType::F64, views);
    // Gradients of factors sum over the rows, and the terms of long sums may cancel.
    let bound = 3e-5 * (n as f32 / 16.0).sqrt().max(1.0);
    for (index, (ours, theirs)) in ours.into_iter().zip(theirs).enumerate() {
        let worst = distance(ours, theirs);
        assert!(
            worst < bound,
            "{required:?} {n} {d_in} {d_out} {r}, result {index}: {worst:e}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn agrees(
        n in prop_oneof![1usize..12, 100usize..700],
        d_in in 1usize..60,
        d_out in 1usize..60,
        r in 1usize..20,
        x: bool,
        factors: bool,
        weight: bool,
        residual: Option<bool>,
        views: bool,
    ) {
        compare(Requires { x, factors, weight, residual }, [n, d_in, d_out, r], views);
    }
}

#[test]
fn a_large_layer_with_and_without_an_input_gradient() {
    for x in [false, true] {
        let required = Requires {
            x,
            factors: true,
            weight: false,
            residual: Some(true),
        };
        compare(required, [450, 300, 310, 16], false);
    }
}
