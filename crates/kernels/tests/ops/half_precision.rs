//! Half-precision activations, as on GPUs: sums and exponentials are computed in f32.

use burn::tensor::{DType, Device, Distribution, Int, Tensor};
use kernels::{AttentionOptions, LmHead, Visible, attention, layer_norm, linear_cross_entropy, linear_nll, rms_norm};

use super::{normal, seed};

/// Largest difference of two tensors relative to the largest element of the second.
fn relative<const D: usize>(ours: Tensor<D>, exact: Tensor<D>) -> f32 {
    let [ours, exact] = [ours, exact].map(|x| x.without_autodiff().cast(DType::F32));
    let largest: f32 = exact.clone().abs().max().into_scalar();
    let worst: f32 = (ours - exact).abs().max().into_scalar();
    worst / largest
}

/// `x` as a leaf of that dtype.
fn leaf<const D: usize>(x: &Tensor<D>, dtype: DType) -> Tensor<D> {
    x.clone().cast(dtype).detach().require_grad()
}

#[test]
fn the_loss_is_taken_in_f32() {
    let device = Device::flex().autodiff();
    seed(5);
    let hidden = normal([30, 16], 2.0, &device).cast(DType::BF16);
    let weight = normal([16, 500], 1.0, &device).cast(DType::BF16);
    let labels = Tensor::<1, Int>::arange(0..30, &device);
    let run = |dtype: DType, trained: bool| {
        let (hidden, weight) = (leaf(&hidden, dtype), leaf(&weight, dtype));
        let head = LmHead {
            weight: weight.clone().set_require_grad(trained),
            softcap: Some(20.0),
            trained,
        };
        let weight = head.weight.clone();
        let loss = linear_cross_entropy(hidden.clone(), &head, labels.clone(), 30.0);
        assert_eq!(loss.dtype(), DType::F32);
        assert_eq!(linear_nll(hidden.clone(), &head, labels.clone()).dtype(), DType::F32);
        let grads = loss.backward();
        let of_hidden = hidden.grad(&grads).unwrap();
        assert_eq!(of_hidden.dtype(), dtype);
        assert_eq!(weight.grad(&grads).is_some(), trained);
        (loss.inner().into_scalar::<f32>(), of_hidden, weight.grad(&grads))
    };
    for trained in [false, true] {
        let (loss, of_hidden, of_weight) = run(DType::BF16, trained);
        let (exact, exact_of_hidden, exact_of_weight) = run(DType::F32, trained);
        // A logit of some ten is rounded to 1/16 or so, the mean of 30 of them to less.
        assert!((loss - exact).abs() < 0.02, "{loss} for {exact}");
        assert!(relative(of_hidden, exact_of_hidden) < 0.04);
        if let Some((ours, exact)) = of_weight.zip(exact_of_weight) {
            assert!(relative(ours, exact) < 0.04);
        }
    }
}

/// 300² overflows f16.
#[test]
fn norms_of_large_values_are_finite() {
    let device = Device::flex().autodiff();
    let x = Tensor::<2>::random([6, 40], Distribution::Uniform(-900.0, 900.0), &device).cast(DType::F16);
    let gamma = Tensor::<1>::random([40], Distribution::Uniform(0.5, 2.0), &device);
    let run = |dtype: DType, centered: bool| {
        let (x, gamma) = (leaf(&x, dtype), leaf(&gamma, DType::F32));
        let out = match centered {
            true => layer_norm(x.clone(), gamma.clone(), Some(gamma.clone()), 1e-6),
            false => rms_norm(x.clone(), gamma.clone(), 1.0, 1e-6),
        };
        assert_eq!(out.dtype(), dtype);
        let grads = out.clone().cast(DType::F32).powi_scalar(3).sum().backward();
        (out, gamma.grad(&grads).unwrap())
    };
    for centered in [false, true] {
        let ((out, grad), (exact, exact_grad)) = (run(DType::F16, centered), run(DType::F32, centered));
        assert!(relative(out, exact) < 2e-3);
        assert!(relative(grad, exact_grad) < 5e-3);
    }
}

#[test]
fn a_query_without_visible_keys_gives_zeros_and_no_nan() {
    let device = Device::flex().autodiff();
    seed(8);
    let [query, key, value] = std::array::from_fn(|_| normal([1, 2, 4, 8], 1.0, &device).cast(DType::F16));
    let run = |dtype: DType| {
        let [query, key, value] = [&query, &key, &value].map(|x| leaf(x, dtype));
        let options = AttentionOptions {
            visible: Visible::Ranges([0..1, 0..2, 1..3, 0..0].into()),
            ..AttentionOptions::default()
        };
        let out = attention(query.clone(), key.clone(), value.clone(), &options);
        assert_eq!(out.dtype(), dtype);
        let grads = out.clone().cast(DType::F32).square().sum().backward();
        let of = |x: &Tensor<4>| x.grad(&grads).unwrap();
        [out.inner(), of(&query), of(&key), of(&value)]
    };
    for (ours, exact) in run(DType::F16).into_iter().zip(run(DType::F32)) {
        assert!(relative(ours, exact) < 5e-3);
    }
}
