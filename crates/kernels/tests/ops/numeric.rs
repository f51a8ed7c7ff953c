//! Gradients against central differences, in f32: the step balances truncation and rounding errors.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use kernels::{AttentionOptions, Visible};

use super::{normal, seed};

/// Checks the gradient of `f`, a function of a tensor to one number.
fn check(name: &str, shape: [usize; 2], f: impl Fn(Tensor<2>) -> Tensor<1>) {
    const STEP: f32 = 5e-3;
    let device = Device::flex().autodiff();
    seed(11);
    let x = normal(shape, 1.0, &device).require_grad();
    let grads = f(x.clone()).backward();
    let grad = x.grad(&grads).unwrap().into_data().try_to_vec::<f32>().unwrap();
    let values = x.into_data().try_to_vec::<f32>().unwrap();
    for index in (0..values.len()).step_by(values.len().div_ceil(24)) {
        let at = |shift: f32| -> f32 {
            let mut values = values.clone();
            values[index] += shift;
            f(Tensor::from_data(TensorData::new(values, shape), &Device::flex())).into_scalar()
        };
        let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        assert!(
            (slope - grad[index]).abs() < 5e-3 * (1.0 + slope.abs()),
            "{name}, value {index}: slope {slope}, gradient {}",
            grad[index]
        );
    }
}

/// `Σ cos(i)·x_i`: all gradients differ.
fn project(x: Tensor<2>) -> Tensor<1> {
    let [rows, columns] = x.dims();
    let weights = (0..rows * columns).map(|i| (i as f32).cos()).collect::<Vec<_>>();
    (x.clone() * Tensor::from_data(TensorData::new(weights, [rows, columns]), &x.device())).sum()
}

/// The same elements in every run, whatever other tests draw.
pub fn fixed<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let count = shape.iter().product::<usize>();
    let values = (0..count).map(|i| (1.7 * i as f32).sin() * 0.5).collect::<Vec<_>>();
    Tensor::from_data(TensorData::new(values, shape), device)
}

#[test]
fn gelu() {
    check("gelu", [3, 8], |x| project(kernels::gelu(x)));
}

#[test]
fn linear() {
    check("linear_gelu", [5, 6], |x| {
        let (weight, bias) = (fixed([6, 4], &x.device()), fixed([4], &x.device()));
        project(kernels::linear_gelu(x, weight, Some(bias)))
    });
    check("linear_add", [5, 4], |x| {
        let (weight, input) = (fixed([6, 4], &x.device()), fixed([5, 6], &x.device()));
        project(kernels::linear_add(input, weight, None, x))
    });
    check("weight of linear", [6, 4], |x| {
        let input = fixed([5, 6], &x.device());
        project(kernels::linear(input, x, None))
    });
}

#[test]
fn residual_add() {
    let three = |x: Tensor<2>| x.reshape([2, 3, 4]);
    let back = |x: Tensor<3>| project(x.reshape([6, 4]));
    check("branch of residual_add", [6, 4], |x| {
        let (residual, scale, keep) = (
            fixed([2, 3, 4], &x.device()),
            fixed([4], &x.device()),
            fixed([2], &x.device()),
        );
        back(kernels::residual_add(residual, three(x), Some(scale), Some(keep)))
    });
    check("residual of residual_add", [6, 4], |x| {
        let (branch, scale) = (fixed([2, 3, 4], &x.device()), fixed([4], &x.device()));
        back(kernels::residual_add(three(x), branch, Some(scale), None))
    });
    check("scale of residual_add", [1, 4], |x| {
        let (branch, keep) = (fixed([2, 3, 4], &x.device()), fixed([2], &x.device()));
        let scale = x.reshape([4]);
        back(kernels::residual_add(branch.clone(), branch, Some(scale), Some(keep)))
    });
}

#[test]
fn patch_embed() {
    check("images of patch_embed", [12, 4], |x| {
        let (weight, bias) = (fixed([5, 3, 2, 2], &x.device()), fixed([5], &x.device()));
        let tokens = kernels::patch_embed(x.reshape([1, 3, 4, 4]), weight, Some(bias));
        project(tokens.squeeze_dim(0))
    });
    check("weight of patch_embed", [5, 12], |x| {
        let images = fixed([1, 3, 4, 4], &x.device());
        let tokens = kernels::patch_embed(images, x.reshape([5, 3, 2, 2]), None);
        project(tokens.squeeze_dim(0))
    });
}

#[test]
fn input_form() {
    let edit = |device: &Device| kernels::InputEdit {
        phi: fixed([6, 2], device),
        psi: fixed([2, 6], device),
        scale: 0.5,
    };
    check("input of input_form", [10, 6], |x| {
        let (device, weight) = (x.device(), fixed([6, 4], &x.device()));
        project(kernels::input_form(x, edit(&device), weight, None, None))
    });
    for tracked in [false, true] {
        check("phi and psi of input_form", [6, 2], |phi| {
            let device = phi.device();
            let mut input = fixed([10, 6], &device);
            if tracked {
                // An input that asks for a gradient itself.
                input = input + phi.clone().sum().reshape([1, 1]);
            }
            let edit = kernels::InputEdit {
                psi: phi.clone().transpose(),
                phi,
                scale: 0.5,
            };
            project(kernels::input_form(input, edit, fixed([6, 4], &device), None, None))
        });
    }
}

#[test]
fn norms() {
    check("layer_norm", [4, 9], |x| {
        let (gamma, beta) = (fixed([9], &x.device()), fixed([9], &x.device()));
        project(kernels::layer_norm(x, gamma, Some(beta), 1e-6))
    });
    check("rms_norm", [4, 9], |x| {
        let gamma = fixed([9], &x.device());
        project(kernels::rms_norm(x, gamma, 1.0, 1e-6))
    });
}

#[test]
fn attention() {
    let options = AttentionOptions {
        softcap: Some(2.0),
        visible: Visible::Causal { window: Some(4) },
        ..AttentionOptions::default()
    };
    check("attention", [6, 24], |x| {
        let out = kernels::attention_qkv(x.clone().unsqueeze::<3>(), 2, x.dims()[0], &options);
        project(out.squeeze_dim(0))
    });
}

#[test]
fn attention_of_heads_that_share_keys() {
    // The second query has no visible keys.
    let ranges = [0..1, 0..0, 1..3, 0..4, 2..5, 0..6];
    let options = AttentionOptions {
        visible: Visible::Ranges(Arc::new(ranges)),
        ..AttentionOptions::default()
    };
    check("grouped attention", [6, 16], |x| {
        let heads = |x: Tensor<2>, heads: usize| x.reshape([1, 6, heads, 4]).swap_dims(1, 2);
        let (key, value) = (x.clone().narrow(1, 0, 8), x.clone().narrow(1, 8, 8));
        let out = kernels::attention(heads(x, 4), heads(key, 2), heads(value, 2), &options);
        project(out.swap_dims(1, 2).reshape([6, 16]))
    });
}

#[test]
fn biases() {
    check("biases", [1, 4], |x| {
        let (input, weight, bias) = (fixed([9, 6], &x.device()), fixed([6, 4], &x.device()), x.reshape([4]));
        let edit = kernels::InputEdit {
            phi: fixed([6, 2], &bias.device()),
            psi: fixed([2, 6], &bias.device()),
            scale: 0.5,
        };
        let parts = vec![
            kernels::linear(input.clone(), weight.clone(), Some(bias.clone())),
            kernels::linear_gelu(input.clone(), weight.clone(), Some(bias.clone())),
            kernels::linear_add(
                input.clone(),
                weight.clone(),
                Some(bias.clone()),
                fixed([9, 4], &bias.device()),
            ),
            kernels::input_form(input, edit, weight, Some(bias), None),
        ];
        project(Tensor::cat(parts, 1))
    });
}

#[test]
fn cross_entropy() {
    for softcap in [None, Some(1.0)] {
        check("cross-entropy", [5, 6], |x| {
            let head = kernels::LmHead {
                weight: fixed([6, 9], &x.device()),
                softcap,
                trained: false,
            };
            let targets = Tensor::arange(0..5, &x.device());
            kernels::linear_cross_entropy(x, &head, targets, 5.0).mul_scalar(10.0)
        });
    }
}

#[test]
fn gated() {
    for act in [kernels::Gate::Silu, kernels::Gate::GeluTanh] {
        check("gate", [3, 8], |x| {
            let up = fixed([3, 8], &x.device());
            project(kernels::gated(x, up, act))
        });
        check("up", [3, 8], |x| {
            let gate = fixed([3, 8], &x.device());
            project(kernels::gated(gate, x, act))
        });
    }
}

#[test]
fn rope() {
    check("rope", [4, 6], |x| {
        let angles: Tensor<4> = fixed([1, 1, 4, 2], &x.device());
        let out = kernels::rope(x.unsqueeze::<4>(), angles.clone().cos(), angles.sin());
        project(out.reshape([4, 6]))
    });
}
