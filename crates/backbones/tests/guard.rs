//! A training step held to numbers: counted bytes must stay small, and WeGeFT's must not exceed LoRA's. Times are printed
//! and never judged, since other work on the machine decides them too.

use std::time::Instant;

use backbones::VitConfig;
use burn::tensor::{Device, Distribution, Tensor};
use peak_alloc::PeakAlloc;
use wegeft::AdapterConfig;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const D_MODEL: usize = 192;
const DEPTH: usize = 6;
const BATCH: usize = 8;

/// Bytes that a step needs at most beside the model, and its seconds, by the fastest of five.
fn step(adapter: AdapterConfig) -> (usize, f64) {
    let device = Device::flex().autodiff();
    let model = VitConfig::new(64, 8, D_MODEL, DEPTH, 3)
        .with_num_classes(10)
        .init(&device);
    let adapted = adapter.with_modules_to_save(["head"]).init(model).unwrap();
    let images = Tensor::<4>::random([BATCH, 3, 64, 64], Distribution::Normal(0.0, 1.0), &device);
    let pass = || drop(adapted.bind().forward(images.clone()).square().mean().backward());
    pass();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let mut fastest = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        pass();
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    (MEMORY.peak_usage() - before, fastest)
}

/// One test and one thread: how much the threads of a pool hold at once would depend on what else the machine does.
#[test]
fn a_step_keeps_what_its_backward_pass_reads() {
    let sites = ["attn.proj"];
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let step = |adapter: AdapterConfig| pool.install(|| step(adapter));
    let (lora, lora_seconds) = step(AdapterConfig::lora(8).with_target_modules(sites));
    let (wegeft, wegeft_seconds) = step(AdapterConfig::wegeft(8).with_target_modules(sites));
    println!(
        "WeGeFT / LoRA: {:.3} of the bytes, {:.2} of the time",
        wegeft as f64 / lora as f64,
        wegeft_seconds / lora_seconds
    );
    assert!(wegeft as f64 <= 1.01 * lora as f64, "{wegeft} bytes, LoRA {lora}");
    // Of a token and layer: two norms' inputs, queries, keys, values, what the heads mix, the argument of the GELU.
    let kept = 4 * D_MODEL * (2 + 3 + 1 + 4) * DEPTH * BATCH * 65;
    println!("{:.2} of what is kept", wegeft as f64 / kept as f64);
    assert!((wegeft as f64) < 1.25 * kept as f64, "{wegeft} bytes; kept are {kept}");
}
