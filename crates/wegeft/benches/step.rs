//! Time and peak memory of one training step of each method on a stack of linear layers, beside Burn's own
//! `apply_lora` and the frozen forward pass: `cargo bench -p wegeft --bench step`, or `-- 768 512` for one point.
//!
//! A harness of our own, because what is wanted are ratios. Without `--bench` (as under `cargo test`) only the smallest
//! point runs, once.

mod measured;

use burn::module::{Lora, Module};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor};
use measured::{Measured, print, take_turns};
use wegeft::{AdapterConfig, linear};

const LAYERS: usize = 4;
const RANK: usize = 16;
const D: [usize; 3] = [384, 768, 2048];
const TOKENS: [usize; 3] = [64, 512, 2048];

#[derive(Module, Debug)]
struct Stack {
    layers: Vec<Linear>,
}

impl Stack {
    /// `x`: `[tokens, d]`, result the same.
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.layers.iter().fold(x, |x, layer| linear(layer, x).tanh())
    }

    fn loss(&self, x: &Tensor<2>) -> Tensor<1> {
        self.forward(x.clone()).powi_scalar(2).mean()
    }
}

fn methods(d: usize, x: &Tensor<2>, device: &Device) -> Vec<Measured> {
    let stack = Stack {
        layers: (0..LAYERS).map(|_| LinearConfig::new(d, d).init(device)).collect(),
    };
    let (frozen, input) = (stack.clone().no_grad(), x.clone());
    let forward = Measured::new("frozen forward", move || {
        frozen.loss(&input).into_scalar::<f32>();
    });
    let (mut model, mut optim, input) = (
        Some(stack.clone().apply_lora(Lora::new(RANK, 1.0))),
        AdamWConfig::new().init(),
        x.clone(),
    );
    let burns = Measured::new("LoRA, Burn's apply_lora", move || {
        if let Some(before) = model.take() {
            let grads = GradientsParams::from_grads(before.loss(&input).backward(), &before);
            model = Some(optim.step(1e-3, before, grads));
        }
    });
    let ours = [
        ("LoRA", AdapterConfig::lora(RANK)),
        ("WeGeFT", AdapterConfig::wegeft(RANK)),
        ("DoRA", AdapterConfig::dora(RANK)),
        ("VeRA", AdapterConfig::vera(RANK)),
        ("IA3", AdapterConfig::ia3(Vec::<String>::new())),
        ("BitFit", AdapterConfig::bitfit()),
    ];
    let ours = ours.map(|(name, config)| {
        let adapted = config.with_target_regex(r"layers\.\d+").init(stack.clone());
        let mut adapted = Some(adapted.expect("the stack's layers take every method"));
        let (mut optim, input) = (AdamWConfig::new().init(), x.clone());
        Measured::new(name, move || {
            if let Some(before) = adapted.take() {
                let grads = GradientsParams::from_grads(before.bind().loss(&input).backward(), &before);
                adapted = Some(optim.step(1e-3, before, grads));
            }
        })
    });
    [forward, burns].into_iter().chain(ours).collect()
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<usize> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    let points: Vec<(usize, usize)> = match (numbers[..].first(), numbers.get(1)) {
        (Some(d), Some(n)) => vec![(*d, *n)],
        _ if args.iter().any(|arg| arg == "--bench") => D.iter().flat_map(|d| TOKENS.map(|n| (*d, n))).collect(),
        _ => vec![(D[0], TOKENS[0])],
    };
    let device = Device::flex().autodiff();
    for (d, n) in points {
        device.seed(0);
        let x = Tensor::random([n, d], Distribution::Normal(0.0, 1.0), &device);
        let mut methods = methods(d, &x, &device);
        // Small points are repeated for longer.
        take_turns(&mut methods, (2_000_000_000 / (d * d * n)).clamp(5, 60));
        let title = format!("{LAYERS} layers, d = {d}, {n} tokens, rank {RANK}");
        print(&title, &mut methods, "LoRA");
    }
}
