use burn::tensor::{Device, Tensor, Tolerance, activation};
use proptest::prelude::*;

use super::{normal, seed};

fn compare(device: &Device, rows: usize, columns: usize, transposed: bool) {
    seed((rows * 1000 + columns) as u64);
    let x = normal([rows, columns], 2.5, device).require_grad();
    let weight = normal([rows, columns], 1.0, device);
    let view = |x: &Tensor<2>| if transposed { x.clone().transpose() } else { x.clone() };
    let run = |gelu: fn(Tensor<2>) -> Tensor<2>| {
        let y = gelu(view(&x));
        let grads = (y.clone() * view(&weight)).sum().backward();
        (y.into_data(), x.grad(&grads).unwrap().into_data())
    };
    let (ours, our_grad) = run(kernels::gelu);
    let (theirs, their_grad) = run(activation::gelu);
    ours.assert_approx_eq::<f32>(&theirs, Tolerance::absolute(1e-6));
    our_grad.assert_approx_eq::<f32>(&their_grad, Tolerance::absolute(2e-6));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn on_flex(rows in 1usize..40, columns in 1usize..700, transposed: bool) {
        compare(&Device::flex().autodiff(), rows, columns, transposed);
    }
}

#[test]
#[allow(deprecated)] // Burn deprecates ndarray; here it stands for the backends without a kernel
fn on_other_backends_it_is_burn_s_own() {
    compare(&Device::ndarray().autodiff(), 7, 33, true);
}

#[test]
fn without_autodiff_too() {
    let x = Tensor::<1>::from_floats([-3.0, -0.5, 0.0, 0.5, 3.0], &Device::flex());
    let theirs = activation::gelu(x.clone()).into_data();
    kernels::gelu(x)
        .into_data()
        .assert_approx_eq::<f32>(&theirs, Tolerance::absolute(1e-6));
}
