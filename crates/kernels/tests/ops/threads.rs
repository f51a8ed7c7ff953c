//! Results do not depend on the number of threads, to the last bit.

use burn::tensor::{DType, Device, Tensor};
use kernels::{AttentionOptions, Gate, LmHead, Visible};

use super::numeric::fixed;

fn results() -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let x = fixed([450, 96], &device).require_grad();
    let weight = fixed([96, 96], &device).require_grad();
    let gamma = fixed([96], &device).require_grad();
    let options = AttentionOptions {
        visible: Visible::Causal { window: None },
        ..AttentionOptions::default()
    };
    let images = fixed([7, 3, 48, 40], &device);
    let patches = kernels::patch_embed(images, fixed([24, 3, 8, 8], &device), None);
    let stream = fixed([45, 10, 96], &device);
    let scaled = kernels::residual_add(stream, x.clone().reshape([45, 10, 96]), Some(gamma.clone()), None);
    let h = kernels::layer_norm(x.clone(), gamma.clone(), None, 1e-6);
    let h = kernels::linear_gelu(h, weight.clone(), None);
    let h: Tensor<2> = kernels::attention_qkv(h.clone().unsqueeze::<3>(), 4, h.dims()[0], &options).squeeze_dim(0);
    let y = kernels::rms_norm(h, gamma.clone().narrow(0, 0, 32), 0.0, 1e-6);
    let factor = weight.clone().narrow(1, 0, 8);
    let edit = kernels::InputEdit {
        phi: factor.clone().narrow(0, 0, 32),
        psi: factor.narrow(0, 32, 32).transpose(),
        scale: 0.5,
    };
    let y = kernels::input_form(y, edit, fixed([32, 24], &device), None, None);
    let deep = kernels::linear(fixed([1700, 1100], &device), fixed([1100, 40], &device), None);
    // Blocks of which the last one would be small, products with few columns.
    let odd = kernels::linear(
        fixed([201, 768], &device),
        fixed([768, 96], &device),
        Some(fixed([96], &device)),
    );
    let edited = [1, 2, 8].map(|rank| {
        let edit = kernels::InputEdit {
            phi: fixed([768, rank], &device),
            psi: fixed([rank, 768], &device),
            scale: 0.5,
        };
        let x = fixed([820, 768], &device).require_grad();
        let out = kernels::input_form(x.clone(), edit, fixed([768, 24], &device), None, None);
        let grads = out.clone().square().sum().backward();
        Tensor::cat(vec![out.inner(), x.grad(&grads).unwrap()], 1)
    });
    let narrow = fixed([96, 300], &device).cast(DType::BF16);
    let one_row = kernels::linear(x.clone().narrow(0, 0, 1), fixed([96, 6000], &device), None);
    let of_narrow = kernels::linear(x.clone(), narrow.clone(), None);
    let words = fixed([96, 6000], &device).cast(DType::BF16);
    let few = [
        kernels::linear(x.clone().narrow(0, 0, 3), words.clone(), None),
        kernels::linear(fixed([3, 6000], &device), words.transpose(), None),
    ];
    let heads = |x: Tensor<2>, heads: usize| x.reshape([1, 450, heads, 12]).swap_dims(1, 2);
    let angles: Tensor<4> = fixed([1, 1, 450, 6], &device);
    let turned = kernels::rope(heads(x.clone(), 8), angles.clone().cos(), angles.sin());
    let shared = heads(x.clone().narrow(1, 0, 24), 2);
    let grouped = kernels::attention(turned, shared.clone(), shared, &options);
    let grouped = grouped.swap_dims(1, 2).reshape([450, 96]);
    let gated = kernels::gated(grouped.clone(), x.clone(), Gate::Silu);
    let added = kernels::linear_add(gated, narrow.clone().narrow(1, 0, 96), None, grouped);
    let head = LmHead {
        weight: narrow,
        softcap: None,
        trained: false,
    };
    let targets = Tensor::arange(0..450, &device).remainder_scalar(300);
    let loss = kernels::linear_cross_entropy(x.clone(), &head, targets, 450.0);
    let grads = (added.clone().square().sum()
        + y.clone().square().mean()
        + scaled.clone().square().sum()
        + one_row.clone().square().sum()
        + loss.clone())
    .backward();
    let values = |x: Tensor<2>| x.into_data().try_to_vec::<f32>().unwrap();
    let [by_rows, by_columns] = few.map(|few| values(few.inner()));
    vec![
        by_rows,
        by_columns,
        values(added.inner()),
        values(y.inner()),
        values(patches.inner().flatten(0, 1)),
        values(scaled.inner().flatten(0, 1)),
        values(deep.inner()),
        values(odd.inner()),
        values(Tensor::cat(edited.to_vec(), 1)),
        values(one_row.inner()),
        values(of_narrow.inner()),
        values(loss.inner().unsqueeze()),
        values(x.grad(&grads).unwrap()),
        values(weight.grad(&grads).unwrap()),
        values(gamma.grad(&grads).unwrap().unsqueeze()),
    ]
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(results)
    };
    let one = with(1);
    for threads in [2, 3, 16] {
        for (index, (one, many)) in one.iter().zip(with(threads)).enumerate() {
            assert!(*one == many, "result {index} of {threads} threads");
        }
    }
}
