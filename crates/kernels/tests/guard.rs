//! Memory and time of the fused operations. Peak bytes are asserted; times are printed next to those of the plain definitions
//! and not asserted, because they depend on other load on the machine.

use std::time::Instant;

use burn::tensor::{DType, Device, Distribution, Int, Tensor};
use kernels::{LmHead, linear_cross_entropy};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Peak bytes that `work` allocates, and its seconds, fastest of three.
fn measured<R>(mut work: impl FnMut() -> R) -> (usize, f64) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let mut fastest = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        drop(work());
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    (MEMORY.peak_usage() - before, fastest)
}

/// A single test, so that nothing else allocates meanwhile.
#[test]
fn neither_an_f32_weight_nor_logits_are_materialized() {
    let device = Device::flex();
    let random = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);

    let weight = random([2048, 4096]).cast(DType::BF16);
    for rows in [1, 64] {
        let x = random([rows, 2048]);
        let (ours, seconds) = measured(|| kernels::linear(x.clone(), weight.clone(), None));
        let (_, plain) = measured(|| x.clone().matmul(weight.clone().cast(DType::F32)));
        println!(
            "{rows} rows with a bf16 weight: {:.2} of the plain time",
            seconds / plain
        );
        // The block upcast to f32, what gemm packs of it (all of it if the cache is large), and the product.
        let whole = 4 * 2048 * 4096;
        assert!(ours < whole / 3, "{ours} bytes beside a weight of {whole} as f32");
    }

    let (rows, words) = (512, 20_000);
    let head = LmHead {
        weight: random([words, 64]).transpose(),
        softcap: None,
        trained: false,
    };
    let hidden = random([rows, 64]);
    let targets = Tensor::<1, Int>::arange(0..rows as i64, &device);
    let training = |trained: bool| {
        let hidden = Tensor::from_inner(hidden.clone()).require_grad();
        let head = LmHead {
            weight: Tensor::from_inner(head.weight.clone()),
            trained,
            ..head
        };
        let loss = linear_cross_entropy(hidden, &head, Tensor::from_inner(targets.clone()), 1.0);
        loss.backward();
    };
    let (ours, seconds) = measured(|| training(false));
    let (_, plain) = measured(|| training(true));
    println!("cross-entropy: {:.2} of the plain time", seconds / plain);
    let logits = 4 * rows * words;
    assert!(ours < logits / 4, "{ours} bytes; the logits alone would have {logits}");
}
