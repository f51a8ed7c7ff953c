//! Time and peak memory of one training step of each method on a stack of linear layers, beside Burn's own
//! `apply_lora` and the frozen forward pass: `cargo bench -p wegeft --features flex`, or `-- 768 512` for one point.
//!
//! A harness of our own, because what is wanted are ratios: the methods take turns, step by step, so that a slow minute
//! of the machine falls on all of them. Without `--bench` (as under `cargo test`) only the smallest point runs, once.

use std::time::{Duration, Instant};

use burn::module::{Lora, Module};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Distribution, Tensor};
use comfy_table::{CellAlignment, Table, presets};
use peak_alloc::PeakAlloc;
use wegeft::{Adapted, AdapterConfig, linear};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

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
}

/// Something that can take a step.
#[allow(clippy::large_enum_variant)] // a handful of them
enum Runner {
    Frozen(Stack),
    Burn(Stack, ModuleOptimizer),
    Ours(Adapted<Stack>, ModuleOptimizer),
}

impl Runner {
    fn step(self, x: &Tensor<2>) -> Self {
        let loss = |model: &Stack| model.forward(x.clone()).powi_scalar(2).mean();
        match self {
            Self::Frozen(model) => {
                loss(&model).into_scalar::<f32>();
                Self::Frozen(model)
            }
            Self::Burn(model, mut optim) => {
                let grads = GradientsParams::from_grads(loss(&model).backward(), &model);
                Self::Burn(optim.step(1e-3, model, grads), optim)
            }
            Self::Ours(adapted, mut optim) => {
                let grads = GradientsParams::from_grads(loss(&adapted.bind()).backward(), &adapted);
                Self::Ours(optim.step(1e-3, adapted, grads), optim)
            }
        }
    }
}

/// One method and what was measured of it.
struct Measured {
    name: &'static str,
    runner: Option<Runner>,
    times: Vec<Duration>,
    peak: usize,
}

impl Measured {
    fn step(&mut self, x: &Tensor<2>) {
        let Some(runner) = self.runner.take() else { return };
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let start = Instant::now();
        self.runner = Some(runner.step(x));
        self.times.push(start.elapsed());
        self.peak = self.peak.max(MEMORY.peak_usage().saturating_sub(before));
    }

    fn median(&mut self) -> f64 {
        self.times.sort();
        self.times[self.times.len() / 2].as_secs_f64()
    }
}

fn methods(d: usize, device: &Device) -> Vec<Measured> {
    let stack = Stack {
        layers: (0..LAYERS).map(|_| LinearConfig::new(d, d).init(device)).collect(),
    };
    let optim = || AdamWConfig::new().init();
    let ours = [
        ("LoRA", AdapterConfig::lora(RANK)),
        ("WeGeFT", AdapterConfig::wegeft(RANK)),
        ("DoRA", AdapterConfig::dora(RANK)),
        ("VeRA", AdapterConfig::vera(RANK)),
        ("IA3", AdapterConfig::ia3(Vec::<String>::new())),
        ("BitFit", AdapterConfig::bitfit()),
    ];
    let mut runners = vec![
        ("frozen forward", Runner::Frozen(stack.clone().no_grad())),
        (
            "LoRA, Burn's apply_lora",
            Runner::Burn(stack.clone().apply_lora(Lora::new(RANK, 1.0)), optim()),
        ),
    ];
    for (name, config) in ours {
        let config = config.with_target_regex(r"layers\.\d+");
        let adapted = config
            .init(stack.clone())
            .expect("the stack's layers take every method");
        runners.push((name, Runner::Ours(adapted, optim())));
    }
    runners
        .into_iter()
        .map(|(name, runner)| Measured {
            name,
            runner: Some(runner),
            times: Vec::new(),
            peak: 0,
        })
        .collect()
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
        let mut methods = methods(d, &device);
        // The first step allocates the optimizer's state; small points are repeated for longer.
        let rounds = (2_000_000_000 / (d * d * n)).clamp(5, 60);
        for round in 0..=rounds {
            for method in &mut methods {
                method.step(&x);
                if round == 0 {
                    method.times.clear();
                    method.peak = 0;
                }
            }
        }
        print(d, n, methods);
    }
}

fn print(d: usize, n: usize, mut methods: Vec<Measured>) {
    let lora = methods.iter_mut().find(|method| method.name == "LoRA");
    let (lora_time, lora_peak) = lora.map_or((1.0, 1), |lora| (lora.median(), lora.peak));
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["method", "ms a step", "time / LoRA", "peak MB", "memory / LoRA"]);
    for method in &mut methods {
        let (time, peak) = (method.median(), method.peak);
        table.add_row([
            method.name.to_string(),
            format!("{:.2}", 1e3 * time),
            format!("{:.3}", time / lora_time),
            format!("{:.2}", peak as f64 / 1e6),
            format!("{:.3}", peak as f64 / lora_peak as f64),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{LAYERS} layers, d = {d}, {n} tokens, rank {RANK}\n{table}\n");
}
