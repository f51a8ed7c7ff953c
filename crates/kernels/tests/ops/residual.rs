use burn::tensor::{DType, Device, Tensor};
use kernels::residual_add;
use proptest::prelude::*;

use super::{distance, leaf, normal, seed};

/// Output and the gradients of residual, branch and, if required, scale.
fn run(parts: &[Tensor<3>; 2], factors: [Option<&Tensor<1>>; 2], trained: bool, dtype: DType) -> Vec<Tensor<3>> {
    let [residual, branch] = parts.each_ref().map(|part| leaf(part, dtype, true));
    let [scale, keep] = factors;
    let scale = scale.map(|scale| leaf(scale, dtype, trained));
    let keep = keep.map(|keep| leaf(keep, dtype, false));
    let out = residual_add(residual.clone(), branch.clone(), scale.clone(), keep);
    let weights = out.clone().detach().cos();
    let grads = (out.clone() * weights).sum().backward();
    let mut results = vec![
        out.inner(),
        residual.grad(&grads).unwrap(),
        branch.grad(&grads).unwrap(),
    ];
    if let Some(scale) = scale.filter(|_| trained) {
        results.push(scale.grad(&grads).unwrap().unsqueeze());
    }
    results
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn agrees(
        batch in 1usize..5,
        tokens in 1usize..60,
        width in prop_oneof![1usize..40, 300usize..700],
        scaled: bool,
        drops: bool,
        trained: bool,
    ) {
        let device = Device::flex();
        seed((batch * 7919 + tokens * 104_729 + width) as u64);
        let parts = [(); 2].map(|()| normal([batch, tokens, width], 1.0, &device));
        let scale = scaled.then(|| normal([width], 1.0, &device));
        // Some samples are dropped, the others scaled.
        let keep = drops.then(|| normal([batch], 1.0, &device).greater_elem(0.0).float().mul_scalar(1.25));
        let both = [DType::F32, DType::F64].map(|dtype| run(&parts, [scale.as_ref(), keep.as_ref()], trained, dtype));
        let [ours, theirs] = both;
        prop_assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            let worst = distance(ours, theirs);
            prop_assert!(worst < 3e-6, "{worst:e}");
        }
    }
}

#[test]
fn views_are_read_in_place() {
    let device = Device::flex();
    let [residual, branch] = [(); 2].map(|()| normal([3, 5, 4], 1.0, &device).swap_dims(0, 1));
    let keep = Tensor::from_floats([0.0, 2.0, 1.0, 0.0, 0.5], &device);
    let out = residual_add(residual.clone(), branch.clone(), None, Some(keep.clone()));
    let expected = residual + branch * keep.reshape([5, 1, 1]);
    assert!(distance(out, expected) < 1e-6);
}
