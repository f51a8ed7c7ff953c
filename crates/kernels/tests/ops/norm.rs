use burn::tensor::{DType, Device, Tensor};
use proptest::prelude::*;

use super::{distance, leaf, normal, seed};

/// Output and the gradients of x, gamma and beta, where required.
fn run(centered: bool, parts: &(Tensor<3>, Tensor<1>, Tensor<1>), dtype: DType, frozen: bool) -> Vec<Tensor<1>> {
    let x = leaf(&parts.0, dtype, true);
    let gamma = leaf(&parts.1, dtype, !frozen);
    let beta = leaf(&parts.2, dtype, !frozen);
    // A view that is not contiguous.
    let view = x.clone().swap_dims(0, 1);
    let out = match centered {
        true => kernels::layer_norm(view, gamma.clone(), Some(beta.clone()), 1e-6),
        false => kernels::rms_norm(view, gamma.clone(), 1.0, 1e-6),
    };
    let weights = out.clone().detach().mul_scalar(3.0).cos();
    let grads = (out.clone() * weights).sum().backward();
    let flat = |x: Tensor<3>| {
        let count = x.dims().iter().product::<usize>();
        x.reshape([count])
    };
    let mut results = vec![flat(out.inner()), flat(x.grad(&grads).unwrap())];
    assert_eq!(gamma.grad(&grads).is_none(), frozen);
    assert_eq!(beta.grad(&grads).is_none(), frozen || !centered);
    results.extend(gamma.grad(&grads));
    results.extend(beta.grad(&grads));
    results
}

/// The largest difference between f32 and f64, in units of the condition number of the worst row: its elements are
/// divided by their spread, and the gradient once more.
fn compare(centered: bool, shape: [usize; 3], offset: f64, frozen: bool) -> f32 {
    let flex = Device::flex().autodiff();
    seed((shape[0] * 7919 + shape[1] * 104_729 + shape[2]) as u64);
    let width = shape[2];
    let parts = (
        normal(shape, 2.0, &flex).add_scalar(offset),
        normal([width], 1.0, &flex),
        normal([width], 1.0, &flex),
    );
    let ours = run(centered, &parts, DType::F32, frozen);
    let theirs = run(centered, &parts, DType::F64, frozen);
    assert_eq!(ours.len(), theirs.len());
    let pairs = ours.into_iter().zip(theirs);
    let worst = pairs.map(|(ours, theirs)| distance(ours, theirs)).fold(0.0, f32::max);
    worst / spread(&parts.0, centered).powi(-2).max(1.0)
}

/// The smallest root mean square of a row, or its smallest standard deviation for a norm that subtracts the mean.
fn spread(x: &Tensor<3>, centered: bool) -> f32 {
    let x = match centered {
        true => x.clone() - x.clone().mean_dim(2),
        false => x.clone(),
    };
    x.square().mean_dim(2).min().into_scalar::<f32>().sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn agrees(
        batch in 1usize..5,
        tokens in 1usize..30,
        width in prop_oneof![2usize..6, 30usize..200, Just(384usize)],
        centered: bool,
        frozen: bool,
    ) {
        let worst = compare(centered, [batch, tokens, width], 0.5, frozen);
        prop_assert!(worst < 2e-5, "{worst:e}");
    }
}

#[test]
fn a_large_mean_is_subtracted_before_squares_are_summed() {
    let worst = compare(true, [2, 9, 384], 1000.0, false);
    assert!(worst < 5e-4, "{worst:e}");
}

#[test]
fn rows_of_equal_values_give_beta() {
    let device = Device::flex();
    let one = Tensor::<1>::ones([7], &device);
    let out = kernels::layer_norm(Tensor::<2>::full([3, 7], 5.0, &device), one.clone(), Some(one), 1e-6);
    assert_eq!(out.into_data().try_to_vec::<f32>().unwrap(), vec![1.0; 21]);
}

#[test]
fn nan_stays_nan() {
    let device = Device::flex();
    let x = Tensor::<2>::from_floats([[1.0, f32::NAN, 2.0], [1.0, 2.0, 3.0]], &device);
    let out = kernels::rms_norm(x, Tensor::ones([3], &device), 0.0, 1e-6)
        .into_data()
        .try_to_vec::<f32>()
        .unwrap();
    assert!(out[..3].iter().all(|x| x.is_nan()) && out[3..].iter().all(|x| x.is_finite()));
}

#[test]
fn a_half_precision_scale_gets_a_gradient_of_its_dtype() {
    let device = Device::flex().autodiff();
    seed(9);
    let x = normal([5, 33], 1.0, &device);
    let gamma = normal([33], 1.0, &device).cast(DType::BF16).detach();
    let run = |gamma: Tensor<1>| {
        let gamma = gamma.require_grad();
        let out = kernels::rms_norm(x.clone(), gamma.clone(), 1.0, 1e-6);
        let grads = out.clone().square().sum().backward();
        (out.inner(), gamma.grad(&grads).unwrap())
    };
    let (narrow, narrow_grad) = run(gamma.clone());
    let (wide, wide_grad) = run(gamma.cast(DType::F32).detach());
    narrow.into_data().assert_eq(&wide.into_data(), true);
    assert_eq!(narrow_grad.dtype(), DType::BF16);
    let wide_grad = wide_grad.cast(DType::BF16);
    narrow_grad.into_data().assert_eq(&wide_grad.into_data(), true);
}
