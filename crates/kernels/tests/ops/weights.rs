//! Weights stored in a narrower dtype than the computation, against the same values in f64.

use burn::tensor::quantization::{QuantValue, ScaleDtype};
use burn::tensor::{DType, Device, Tensor};
use proptest::prelude::*;

use super::{distance, leaf, normal, seed};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Storage {
    Float(DType),
    /// Bytes with one scale per this many elements of a row.
    Blocks(QuantValue, u8),
    /// Bytes with a single scale.
    Whole,
}

/// `weight` in its storage format, and the values left after rounding.
fn stored(weight: Tensor<2>, storage: Storage) -> (Tensor<2>, Tensor<2>) {
    let device = weight.device();
    let scheme = || device.settings().quantization.scheme;
    let stored = match storage {
        Storage::Float(dtype) => weight.cast(dtype),
        Storage::Blocks(value, size) => {
            let scheme = scheme().with_value(value).per_block([size], ScaleDtype::F32);
            weight.quantize_dynamic(&scheme)
        }
        Storage::Whole => weight.quantize_dynamic(&scheme().with_value(QuantValue::Q8S)),
    };
    let values = match storage {
        Storage::Float(_) => stored.clone().cast(DType::F32),
        _ => stored.clone().dequantize(),
    };
    (stored, values)
}

fn compare([n, d_in, d_out]: [usize; 3], storage: Storage, view: bool, add: bool) {
    let flex = Device::flex().autodiff();
    seed((n * 7919 + d_in * 104_729 + d_out) as u64);
    let size = if view { [d_out, d_in] } else { [d_in, d_out] };
    let weight = normal(size, (d_in as f64).powf(-0.5), &Device::flex());
    let (weight, values) = stored(weight, storage);
    let parts = [
        normal([n, d_in], 1.0, &flex),
        normal([1, d_out], 1.0, &flex),
        normal([n, d_out], 1.0, &flex),
    ];
    let run = |weight: Tensor<2>, dtype: DType| {
        let leaves = parts.each_ref().map(|part| leaf(part, dtype, true));
        let [x, bias, residual] = leaves.clone();
        let weight = if view { weight.transpose() } else { weight };
        let bias = Some(bias.reshape([d_out]));
        let out = match add {
            true => kernels::linear_add(x, weight, bias, residual),
            false => kernels::linear(x, weight, bias),
        };
        let factors = out.clone().detach().cos();
        let grads = (out.clone() * factors).sum().backward();
        let grads = leaves
            .iter()
            .take(if add { 3 } else { 2 })
            .map(|leaf| leaf.grad(&grads).unwrap());
        std::iter::once(out.inner()).chain(grads).collect::<Vec<_>>()
    };
    let ours = run(Tensor::from_inner(weight), DType::F32);
    let theirs = run(leaf(&values, DType::F64, false), DType::F64);
    for (index, (ours, theirs)) in ours.into_iter().zip(theirs).enumerate() {
        assert_eq!(ours.dtype(), DType::F32);
        let worst = distance(ours, theirs);
        assert!(
            worst < 2e-5,
            "{n} {d_in} {d_out} {storage:?} {view}, result {index}: {worst:e}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn agrees(
        n in prop_oneof![1usize..12, 100usize..500],
        d_in in 1usize..90,
        d_out in 1usize..90,
        dtype in prop_oneof![Just(DType::F32), Just(DType::BF16), Just(DType::F16)],
        view: bool,
        add: bool,
    ) {
        compare([n, d_in, d_out], Storage::Float(dtype), view, add);
    }

    #[test]
    fn agrees_with_bytes(
        n in prop_oneof![1usize..12, 100usize..300],
        d_in in 1usize..90,
        blocks in 1usize..5,
        storage in prop_oneof![
            Just(Storage::Blocks(QuantValue::Q8S, 32)),
            Just(Storage::Blocks(QuantValue::Q4S, 32)),
            Just(Storage::Blocks(QuantValue::Q8S, 8)),
            Just(Storage::Whole),
        ],
        add: bool,
    ) {
        compare([n, d_in, 32 * blocks], storage, false, add);
    }
}

#[test]
fn weights_that_are_read_in_several_parts() {
    for dtype in [DType::F32, DType::BF16] {
        for n in [1, 3, 8, 9, 300] {
            // By rows: two ranges of columns, several of rows; transposed: several ranges of columns.
            compare([n, 150, 5000], Storage::Float(dtype), false, false);
            compare([n, 700, 1500], Storage::Float(dtype), true, false);
            // With lines of odd length, every other line starts in the middle of a 32-bit word.
            compare([n, 150, 4999], Storage::Float(dtype), false, false);
            compare([n, 701, 1500], Storage::Float(dtype), true, false);
        }
    }
    compare([1, 150, 5024], Storage::Blocks(QuantValue::Q8S, 32), false, false);
    // More rows and columns than one block of the weight.
    compare([20, 5000, 700], Storage::Float(DType::BF16), true, false);
}

/// Slices of a larger weight: they start anywhere, and their stride is larger than their row length.
#[test]
fn views_that_start_inside_a_pair() {
    let device = Device::flex();
    for [outer, first] in [[701, 1], [702, 1], [702, 2], [701, 0]] {
        let stored = normal([1500, outer], 0.04, &device).cast(DType::BF16);
        let part = stored.narrow(1, first, 700);
        let values = part.clone().cast(DType::F64);
        for by_columns in [true, false] {
            let turn = |weight: Tensor<2>| if by_columns { weight.transpose() } else { weight };
            let (weight, values) = (turn(part.clone()), turn(values.clone()));
            let x = normal([2, weight.dims()[0]], 1.0, &device);
            let ours = kernels::linear(x.clone(), weight, None);
            let worst = distance(ours, x.cast(DType::F64).matmul(values));
            assert!(worst < 2e-5, "{outer} {first} {by_columns}: {worst:e}");
        }
    }
}

/// A weight whose rows are all the same memory.
#[test]
fn a_weight_with_stride_zero() {
    let device = Device::flex();
    let line = normal([1, 6], 1.0, &device).cast(DType::BF16);
    let weight = line.expand([40, 6]);
    let x = normal([1, 40], 1.0, &device);
    let theirs = x.clone().cast(DType::F64).matmul(weight.clone().cast(DType::F64));
    assert!(distance(kernels::linear(x, weight, None), theirs) < 2e-5);
}

#[test]
fn a_trained_half_precision_weight_gets_a_gradient_of_its_dtype() {
    let device = Device::flex().autodiff();
    let x = normal([5, 6], 1.0, &device);
    let weight = normal([6, 7], 1.0, &device).cast(DType::BF16).detach().require_grad();
    let grads = kernels::linear(x.clone(), weight.clone(), None).sum().backward();
    let found = weight.grad(&grads).unwrap();
    assert_eq!(found.dtype(), DType::BF16);
    let expected = x.inner().sum_dim(0).transpose().expand([6, 7]);
    assert!(distance(found.cast(DType::F32), expected) < 5e-3);
}

#[test]
fn activations_are_f32_next_to_half_precision_weights() {
    let half = normal([2, 2], 1.0, &Device::flex()).cast(DType::BF16);
    assert_eq!(kernels::compute_dtype(&half), DType::F32);
    assert_eq!(kernels::compute_dtype(&half.cast(DType::F64)), DType::F64);
}
