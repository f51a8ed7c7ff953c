//! The fused operations against their plain definitions, against finite differences, and one thread against many.

mod attention;
mod gated;
mod gelu;
mod input_form;
mod linear;
mod narrow;
mod norm;
mod numeric;
mod patch_embed;
mod residual;
mod rope;
mod threads;

use burn::tensor::{DType, Device, Distribution, Tensor};

/// Values of N(0, spread).
fn normal<const D: usize>(shape: [usize; D], spread: f64, device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, spread), device)
}

/// Largest difference, over the largest of `expected` or 1.
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

/// The same values as a leaf of that type, with a gradient if `grad`. For f64 there are no kernels: every function is
/// its plain definition then, and more exact than what it judges.
fn leaf<const D: usize>(x: &Tensor<D>, dtype: DType, grad: bool) -> Tensor<D> {
    let x = Tensor::from_data(x.to_data(), (&Device::flex().autodiff(), dtype));
    if grad { x.require_grad() } else { x }
}
