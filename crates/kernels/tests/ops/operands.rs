//! Wrong operands are refused before anything is read, with a message that names the operation and the operand.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::quantization::{QuantValue, ScaleDtype};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use kernels::{AttentionOptions, Gate, InputEdit, LmHead, Visible};

use super::{distance, normal, seed};

/// `call` panics, and its message has all of `parts`.
#[track_caller]
fn refused<R>(parts: &[&str], call: impl FnOnce() -> R) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(call)) else {
        panic!("not refused; expected a message with {parts:?}");
    };
    let text = panic.downcast_ref::<String>().expect("a formatted message");
    for part in parts {
        assert!(text.contains(part), "{text:?} has no {part:?}");
    }
}

fn x<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    normal(shape, 1.0, &Device::flex())
}

#[test]
fn linear_layers() {
    refused(&["linear: `weight`", "[4, 5]", "d_in = 3"], || {
        kernels::linear(x([2, 3]), x([4, 5]), None)
    });
    refused(&["linear: `bias`", "[4]", "[d_out] = [5]"], || {
        kernels::linear(x([2, 3]), x([3, 5]), Some(x([4])))
    });
    refused(&["linear_gelu: `weight`"], || {
        kernels::linear_gelu(x([2, 3]), x([4, 5]), None)
    });
    refused(&["linear_add: `residual`", "[2, 4]", "[n, d_out] = [2, 5]"], || {
        kernels::linear_add(x([2, 3]), x([3, 5]), None, x([2, 4]))
    });
    let edit = |phi: [usize; 2], psi: [usize; 2]| InputEdit {
        phi: x(phi),
        psi: x(psi),
        scale: 1.0,
    };
    for n in [2, 20] {
        refused(&["input_form: `phi`", "[d_in, r] = [3, 2]"], || {
            kernels::input_form(x([n, 3]), edit([4, 2], [2, 3]), x([3, 5]), None, None)
        });
        refused(&["input_form: `psi`", "[r, d_in] = [2, 3]"], || {
            kernels::input_form(x([n, 3]), edit([3, 2], [1, 3]), x([3, 5]), None, None)
        });
        refused(&["input_form: `residual`"], || {
            kernels::input_form(x([n, 3]), edit([3, 2], [2, 3]), x([3, 5]), None, Some(x([n, 3])))
        });
    }
}

#[test]
fn attention() {
    let options = AttentionOptions::default();
    refused(&["attention: `value`", "the shape of `key`"], || {
        kernels::attention(x([1, 2, 3, 4]), x([1, 2, 5, 4]), x([1, 2, 6, 4]), &options)
    });
    refused(&["attention: `key`", "[1, 2, 5, 4]"], || {
        kernels::attention(x([1, 2, 3, 4]), x([1, 2, 5, 3]), x([1, 2, 5, 3]), &options)
    });
    refused(&["attention: `query` has 4 heads, `key` 3"], || {
        kernels::attention(x([1, 4, 3, 4]), x([1, 3, 5, 4]), x([1, 3, 5, 4]), &options)
    });
    refused(&["attention: `key` has dtype BF16, `query` has F32"], || {
        kernels::attention(
            x([1, 2, 3, 4]),
            x([1, 2, 5, 4]).cast(DType::BF16),
            x([1, 2, 5, 4]),
            &options,
        )
    });
    let ranges = AttentionOptions {
        visible: Visible::Ranges([0..1, 0..1].into()),
        ..AttentionOptions::default()
    };
    refused(&["attention: `visible` has 2 ranges", "3"], || {
        kernels::attention(x([1, 2, 3, 4]), x([1, 2, 5, 4]), x([1, 2, 5, 4]), &ranges)
    });
    refused(&["attention_qkv: `qkv` has 10 channels", "3 x 2 heads"], || {
        kernels::attention_qkv(x([1, 3, 10]), 2, 3, &options)
    });
    refused(&["attention_qkv: 4 queries of 3 tokens"], || {
        kernels::attention_qkv(x([1, 3, 12]), 2, 4, &options)
    });
}

#[test]
fn norms_and_activations() {
    refused(&["layer_norm: `gamma`", "[d_model] = [3]"], || {
        kernels::layer_norm(x([2, 3]), x([4]), None, 1e-6)
    });
    refused(&["layer_norm: `beta`", "[d_model] = [3]"], || {
        kernels::layer_norm(x([2, 3]), x([3]), Some(x([1])), 1e-6)
    });
    refused(&["rms_norm: `gamma`"], || {
        kernels::rms_norm(x([2, 3]), x([1]), 0.0, 1e-6)
    });
    refused(&["gated: `up`", "[3, 2]", "[2, 3]"], || {
        kernels::gated(x([2, 3]), x([3, 2]), Gate::Silu)
    });
    refused(&["gated: `up` has dtype F16"], || {
        kernels::gated(x([2, 3]), x([2, 3]).cast(DType::F16), Gate::Silu)
    });
    refused(&["residual_add: `residual`", "the shape of `branch`"], || {
        kernels::residual_add(x([1, 2, 3]), x([1, 3, 3]), None, None)
    });
    refused(&["residual_add: `scale`", "[d] = [3]"], || {
        kernels::residual_add(x([1, 2, 3]), x([1, 2, 3]), Some(x([2])), None)
    });
    refused(&["residual_add: `keep`", "[batch] = [1]"], || {
        kernels::residual_add(x([1, 2, 3]), x([1, 2, 3]), None, Some(x([2])))
    });
}

/// A table of the wrong shape would be read with the wrong stride.
#[test]
fn rotary_tables() {
    let queries = || x([2, 3, 5, 8]);
    for (table, parts) in [
        ([1, 1, 4, 4], ["`cos` has shape [1, 1, 4, 4]", "[1, 1, 5, 4]"]),
        ([1, 1, 6, 4], ["`cos` has shape [1, 1, 6, 4]", "[1, 1, 5, 4]"]),
        ([1, 3, 5, 4], ["`cos` has shape [1, 3, 5, 4]", "[1, 1, 5, 4]"]),
        ([3, 1, 5, 4], ["`cos` has shape [3, 1, 5, 4]", "the batch of `x`"]),
        ([1, 1, 5, 5], ["`cos` has 5 angles", "8 channels"]),
    ] {
        refused(&[&["rope:"][..], &parts[..]].concat(), || {
            kernels::rope(queries(), x(table), x(table))
        });
    }
    refused(&["rope: `sin`", "the shape of `cos`"], || {
        kernels::rope(queries(), x([1, 1, 5, 4]), x([2, 1, 5, 4]))
    });
}

#[test]
fn patches() {
    refused(&["patch_embed: `weight`", "channels = 3"], || {
        kernels::patch_embed(x([1, 3, 4, 4]), x([5, 1, 2, 2]), None)
    });
    refused(&["patch_embed: `pixels`", "multiples of the patch size 3"], || {
        kernels::patch_embed(x([1, 3, 4, 4]), x([5, 3, 3, 3]), None)
    });
    refused(&["patch_embed: `weight`"], || {
        kernels::patch_embed(x([1, 3, 4, 4]), x([5, 3, 2, 4]), None)
    });
    refused(&["patch_embed: `bias`", "[d] = [5]"], || {
        kernels::patch_embed(x([1, 3, 4, 4]), x([5, 3, 2, 2]), Some(x([4])))
    });
}

#[test]
fn targets() {
    let targets =
        |values: &[i64]| Tensor::<1, Int>::from_data(TensorData::new(values.to_vec(), [values.len()]), &Device::flex());
    let head = |trained: bool| LmHead {
        weight: x([4, 7]),
        softcap: None,
        trained,
    };
    for trained in [false, true] {
        for wrong in [7, -1, -99, i64::from(i32::MAX)] {
            let call = || kernels::linear_cross_entropy(x([2, 4]), &head(trained), targets(&[0, wrong]), 1.0);
            refused(
                &[
                    "linear_cross_entropy: target",
                    &wrong.to_string(),
                    "row 1",
                    "below 7",
                    "-100",
                ],
                call,
            );
        }
    }
    refused(&["linear_nll: `targets`", "[n] = [2]"], || {
        kernels::linear_nll(x([2, 4]), &head(false), targets(&[0]))
    });
    refused(&["linear_nll: `head.weight`", "[5, 7]"], || {
        kernels::linear_nll(x([2, 5]), &head(false), targets(&[0, 0]))
    });
    let scheme = Device::flex().settings().quantization.scheme;
    let quantized = LmHead {
        weight: x([4, 8]).quantize_dynamic(&scheme.with_value(QuantValue::Q8S).per_block([8], ScaleDtype::F32)),
        softcap: None,
        trained: true,
    };
    refused(&["linear_cross_entropy: `head.weight` is trained", "QFloat"], || {
        kernels::linear_cross_entropy(x([2, 4]), &quantized, targets(&[0, 0]), 1.0)
    });
}

#[test]
#[allow(deprecated)] // Burn deprecates ndarray; here it is another device
fn devices() {
    let elsewhere = x([3, 5]).to_device(&Device::ndarray());
    refused(&["linear: `weight` is on", "NdArray", "`x` is on", "Flex"], || {
        kernels::linear(x([2, 3]), elsewhere, None)
    });
    // One device, with and without autodiff.
    let tracked = Tensor::from_inner(x([2, 3])).require_grad();
    assert_eq!(kernels::linear(tracked, x([3, 5]), None).dims(), [2, 5]);
}

/// The documented mixtures: vectors, residuals, tables and weights of another float dtype, with gradients of their own dtype.
#[test]
fn half_precision_operands_next_to_f32() {
    let device = Device::flex().autodiff();
    seed(21);
    let make = |shape: [usize; 2]| normal(shape, 1.0, &device);
    let (input, stream, weight) = (make([4, 6]), make([4, 5]), make([6, 5]));
    let check = |name: &str, run: &dyn Fn(Tensor<2>) -> Tensor<2>, operand: &Tensor<2>| {
        let narrow = operand.clone().cast(DType::BF16).detach().require_grad();
        let exact = narrow.clone().detach().cast(DType::F32).detach().require_grad();
        let [(narrow_out, narrow_grad), (exact_out, exact_grad)] = [narrow, exact].map(|operand| {
            let out = run(operand.clone());
            assert_eq!(out.dtype(), DType::F32, "{name}");
            let grads = out.clone().square().sum().backward();
            (out.inner(), operand.grad(&grads).unwrap())
        });
        assert!(distance(narrow_out, exact_out) < 1e-6, "{name}");
        assert_eq!(narrow_grad.dtype(), DType::BF16, "{name}");
        assert!(distance(narrow_grad.cast(DType::F32), exact_grad) < 5e-3, "{name}");
    };
    check(
        "residual of linear_add",
        &|residual| kernels::linear_add(input.clone(), weight.clone(), None, residual),
        &stream,
    );
    let edit = InputEdit {
        phi: make([6, 2]),
        psi: make([2, 6]),
        scale: 0.5,
    };
    let rows = make([20, 6]);
    check(
        "residual of input_form",
        &|residual| kernels::input_form(rows.clone(), edit.clone(), weight.clone(), None, Some(residual)),
        &make([20, 5]),
    );
    let vector = |x: Tensor<2>| x.reshape([6]);
    let gamma = make([1, 6]);
    check(
        "beta of layer_norm",
        &|beta| kernels::layer_norm(input.clone(), vector(gamma.clone()), Some(vector(beta)), 1e-6),
        &make([1, 6]),
    );
    check(
        "gamma of layer_norm",
        &|gamma| kernels::layer_norm(input.clone(), vector(gamma), None, 1e-6),
        &gamma,
    );
    check(
        "gamma of rms_norm",
        &|gamma| kernels::rms_norm(input.clone(), vector(gamma), 0.0, 1e-6),
        &gamma,
    );
    let three = |x: Tensor<2>| x.unsqueeze::<3>();
    check(
        "residual of residual_add",
        &|residual| {
            kernels::residual_add(three(residual), three(input.clone()), Some(vector(gamma.clone())), None)
                .squeeze_dim(0)
        },
        &make([4, 6]),
    );
    check(
        "scale of residual_add",
        &|scale| {
            kernels::residual_add(three(input.clone()), three(input.clone()), Some(vector(scale)), None).squeeze_dim(0)
        },
        &gamma,
    );
    let image = make([4, 4]).reshape([1, 1, 4, 4]);
    check(
        "weight of patch_embed",
        &|weight| kernels::patch_embed(image.clone(), weight.reshape([3, 1, 2, 2]), None).squeeze_dim(0),
        &make([3, 4]),
    );
    // The table of a rotation has no gradient.
    let angles = normal([1, 1, 4, 3], 3.0, &device).cos().cast(DType::BF16);
    let heads = input.clone().reshape([1, 1, 4, 6]);
    let narrow = kernels::rope(heads.clone(), angles.clone(), angles.clone());
    let table = angles.cast(DType::F32);
    assert!(distance(narrow, kernels::rope(heads, table.clone(), table)) < 1e-6);
}
