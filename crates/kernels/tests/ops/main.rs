//! The fused operations against their plain definitions and finite differences, and one thread against many.

mod attention;
mod cross_entropy;
mod edges;
mod gated;
mod gelu;
mod half_precision;
mod input_form;
mod linear;
mod norm;
mod numeric;
mod operands;
mod patch_embed;
mod residual;
mod rope;
mod threads;
mod weights;

use std::cell::RefCell;

use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Normal};

thread_local! {
    /// One per test: the generator of a device is shared by the process, so a test would depend on the others.
    static DRAWN_FROM: RefCell<StdRng> = RefCell::new(StdRng::seed_from_u64(1));
}

/// Seeds the generator of [`normal`].
fn seed(seed: u64) {
    DRAWN_FROM.set(StdRng::seed_from_u64(seed));
}

/// Samples of N(0, spread²).
fn normal<const D: usize>(shape: [usize; D], spread: f64, device: &Device) -> Tensor<D> {
    let distribution = Normal::new(0.0, spread as f32).unwrap();
    let count = shape.iter().product();
    let values: Vec<f32> = DRAWN_FROM.with_borrow_mut(|rng| distribution.sample_iter(rng).take(count).collect());
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Largest difference, relative to the largest element of `expected` or 1.
fn distance<const D: usize>(ours: Tensor<D>, expected: Tensor<D>) -> f32 {
    assert_eq!(ours.dims(), expected.dims());
    let (ours, expected) = (ours.into_data(), expected.into_data());
    let pairs = ours.iter::<f32>().zip(expected.iter::<f32>());
    let (mut worst, mut scale) = (0.0f32, 1.0f32);
    for (a, b) in pairs {
        assert!(a.is_finite() == b.is_finite(), "{a} for {b}");
        if b.is_finite() {
            worst = worst.max((a - b).abs());
            scale = scale.max(b.abs());
        }
    }
    worst / scale
}

/// `x` as a leaf of that dtype, with a gradient if `grad`. There are no kernels for f64: every function then is its plain
/// definition, and more exact than what is tested.
fn leaf<const D: usize>(x: &Tensor<D>, dtype: DType, grad: bool) -> Tensor<D> {
    let x = Tensor::from_data(x.to_data(), (&Device::flex().autodiff(), dtype));
    if grad { x.require_grad() } else { x }
}
