//! Empty operands and operands with one element: outputs and gradients are those of the plain definitions in f64.

use burn::tensor::{DType, Device, Int, Tensor};
use kernels::{AttentionOptions, Gate, InputEdit, LmHead};
use proptest::prelude::*;

use super::{distance, leaf, normal, seed};

/// `out`, and the gradients of `leaves` where one arrived.
fn flat(out: Tensor<2>, leaves: &[Tensor<2>]) -> Vec<Tensor<2>> {
    // An empty result need not depend on anything.
    let tracked = leaves.iter().map(|leaf| leaf.clone().sum().mul_scalar(0.0));
    let loss = tracked.fold((out.clone() * out.clone().detach().cos()).sum(), |sum, leaf| sum + leaf);
    let grads = loss.backward();
    let mut results = vec![out.inner()];
    results.extend(leaves.iter().map(|leaf| match leaf.grad(&grads) {
        Some(grad) => grad,
        None => Tensor::zeros(leaf.dims(), &leaf.device().inner()),
    }));
    results
}

/// `x` in another shape. Burn's `reshape` reads a 0 as "that dimension as it is", so an empty one is made anew.
fn shaped<const D: usize>(x: &Tensor<2>, shape: [usize; D]) -> Tensor<D> {
    match shape.contains(&0) {
        true => Tensor::zeros(shape, (&x.device(), x.dtype())),
        false => x.clone().reshape(shape),
    }
}

/// `x` as a matrix.
fn matrix<const D: usize>(x: Tensor<D>, shape: [usize; 2]) -> Tensor<2> {
    match shape.contains(&0) {
        true => Tensor::zeros(shape, (&x.device(), x.dtype())),
        false => x.reshape(shape),
    }
}

/// What `run` gives for leaves of these shapes, in f32 and in f64.
fn compare(name: &str, shapes: &[[usize; 2]], run: impl Fn(&[Tensor<2>]) -> Tensor<2>) {
    let device = Device::flex();
    seed(shapes.iter().flatten().sum::<usize>() as u64);
    let values: Vec<Tensor<2>> = shapes.iter().map(|shape| normal(*shape, 1.0, &device)).collect();
    let [ours, theirs] = [DType::F32, DType::F64].map(|dtype| {
        let leaves: Vec<Tensor<2>> = values.iter().map(|value| leaf(value, dtype, true)).collect();
        flat(run(&leaves), &leaves)
    });
    for (index, (ours, theirs)) in ours.into_iter().zip(theirs).enumerate() {
        assert_eq!(ours.dims(), theirs.dims(), "{name} {shapes:?}, result {index}");
        let worst = distance(ours, theirs);
        assert!(worst < 2e-5, "{name} {shapes:?}, result {index}: {worst:e}");
    }
}

fn linear_layers([n, d_in, d_out, r]: [usize; 4]) {
    let layer = [[n, d_in], [d_in, d_out], [1, d_out], [n, d_out]];
    let bias = |x: &Tensor<2>| shaped(x, [d_out]);
    compare("linear", &layer[..3], |x| {
        kernels::linear(x[0].clone(), x[1].clone(), Some(bias(&x[2])))
    });
    compare("linear_gelu", &layer[..3], |x| {
        kernels::linear_gelu(x[0].clone(), x[1].clone(), Some(bias(&x[2])))
    });
    compare("linear_add", &layer, |x| {
        kernels::linear_add(x[0].clone(), x[1].clone(), Some(bias(&x[2])), x[3].clone())
    });
    let edited = [[n, d_in], [d_in, d_out], [d_in, r], [r, d_in]];
    compare("input_form", &edited, |x| {
        let edit = InputEdit {
            phi: x[2].clone(),
            psi: x[3].clone(),
            scale: 0.5,
        };
        kernels::input_form(x[0].clone(), edit, x[1].clone(), None, None)
    });
}

fn rows([n, width]: [usize; 2]) {
    compare("gelu", &[[n, width]], |x| kernels::gelu(x[0].clone()));
    for act in [Gate::Silu, Gate::GeluTanh] {
        compare("gated", &[[n, width]; 2], |x| {
            kernels::gated(x[0].clone(), x[1].clone(), act)
        });
    }
    compare("residual_add", &[[n, width], [n, width], [1, width]], |x| {
        let three = |x: &Tensor<2>| shaped(x, [1, n, width]);
        let scale = shaped(&x[2], [width]);
        matrix(
            kernels::residual_add(three(&x[0]), three(&x[1]), Some(scale), None),
            [n, width],
        )
    });
    compare("rope", &[[n, width]], |x| {
        let angles = Tensor::<4>::ones([1, 1, n, width / 2], (&x[0].device(), x[0].dtype()));
        let out = kernels::rope(shaped(&x[0], [1, 1, n, width]), angles.clone(), angles);
        matrix(out, [n, width])
    });
}

fn norms([n, width]: [usize; 2]) {
    compare("layer_norm", &[[n, width], [1, width], [1, width]], |x| {
        let vector = |x: &Tensor<2>| shaped(x, [width]);
        kernels::layer_norm(x[0].clone(), vector(&x[1]), Some(vector(&x[2])), 1e-6)
    });
    compare("rms_norm", &[[n, width], [1, width]], |x| {
        kernels::rms_norm(x[0].clone(), shaped(&x[1], [width]), 1.0, 1e-6)
    });
}

fn attention([batch, heads, queries, keys, width]: [usize; 5]) {
    let shapes = [queries, keys, keys].map(|tokens| [batch * heads * tokens, width]);
    compare("attention", &shapes, |x| {
        let of = |index: usize, tokens: usize| shaped(&x[index], [batch, heads, tokens, width]);
        let out = kernels::attention(of(0, queries), of(1, keys), of(2, keys), &AttentionOptions::default());
        assert_eq!(out.dims(), [batch, heads, queries, width]);
        matrix(out, [batch * heads * queries, width])
    });
}

#[test]
fn no_rows() {
    linear_layers([0, 4, 5, 2]);
    rows([0, 6]);
    norms([0, 6]);
}

#[test]
fn no_columns() {
    linear_layers([3, 4, 0, 2]);
    linear_layers([20, 4, 0, 2]);
    linear_layers([3, 0, 5, 2]);
    linear_layers([20, 0, 5, 2]);
    linear_layers([20, 4, 5, 0]);
    rows([3, 0]);
}

#[test]
fn one_element() {
    linear_layers([1, 1, 1, 1]);
    rows([1, 1]);
    attention([1, 1, 1, 1, 1]);
}

#[test]
fn attention_without_queries_keys_or_heads() {
    attention([2, 2, 0, 3, 4]);
    attention([2, 2, 3, 0, 4]);
    attention([2, 2, 1, 0, 4]);
    attention([0, 2, 3, 3, 4]);
    attention([2, 0, 3, 3, 4]);
    attention([2, 2, 3, 3, 0]);
}

/// Regression: the gradient of the keys came from uninitialized memory.
#[test]
fn keys_without_queries_get_zero_gradients() {
    let device = Device::flex().autodiff();
    // So that recycled memory is not zero.
    drop(Tensor::<1>::full([1 << 16], 7.0, &device));
    let key = normal([1, 2, 64, 16], 1.0, &device).require_grad();
    let query = normal([1, 2, 0, 16], 1.0, &device).require_grad();
    let out = kernels::attention(query, key.clone(), key.clone(), &AttentionOptions::default());
    let grads = (out.sum() + key.clone().sum()).backward();
    let grad = key.grad(&grads).unwrap();
    assert!(grad.into_data().iter::<f32>().all(|x| x == 1.0));
}

#[test]
fn no_images_and_one_pixel() {
    for [batch, side, d] in [[0, 4, 3], [1, 0, 3], [1, 4, 0], [1, 1, 1]] {
        let patch = side.clamp(1, 2);
        let weight = [d, patch * patch];
        compare("patch_embed", &[[batch * side, side], weight, [1, d]], |x| {
            let pixels = shaped(&x[0], [batch, 1, side, side]);
            let weight = shaped(&x[1], [d, 1, patch, patch]);
            let tokens = kernels::patch_embed(pixels, weight, Some(shaped(&x[2], [d])));
            let [_, patches, _] = tokens.dims();
            matrix(tokens, [batch * patches, d])
        });
    }
}

#[test]
fn cross_entropy_of_no_rows_and_of_one_token() {
    for ([n, d, vocab], trained) in [
        ([0, 4, 5], false),
        ([0, 4, 5], true),
        ([1, 1, 1], false),
        ([2, 0, 3], true),
    ] {
        compare("cross-entropy", &[[n, d], [d, vocab]], |x| {
            let weight = if trained { x[1].clone() } else { x[1].clone().detach() };
            let head = LmHead {
                weight,
                softcap: None,
                trained,
            };
            let targets = Tensor::<1, Int>::zeros([n], &x[0].device());
            let loss = kernels::linear_cross_entropy(x[0].clone(), &head, targets.clone(), 2.0);
            assert_eq!(kernels::linear_nll(x[0].clone(), &head, targets).dims(), [n]);
            loss.reshape([1, 1])
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// All shapes of up to two rows and columns.
    #[test]
    fn small_shapes(n in 0usize..3, d_in in 0usize..3, d_out in 0usize..3, r in 0usize..3) {
        linear_layers([n, d_in, d_out, r]);
        rows([n, d_in]);
        // With one column LayerNorm is a quotient of rounding errors.
        norms([n, 3 + d_out]);
        attention([n, d_in, d_out, r, 3]);
    }
}
