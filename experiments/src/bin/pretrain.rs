//! Makes the small vision transformer that ships with the repository, from formulas alone.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use backbones::VitConfig;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Int, Tensor, TensorData};
use clap::Parser;
use experiments::formulas::{categories, render};
use experiments::output::{end, print, tell};
use experiments::pretraining::{check_loss, check_lr, check_out, check_positive};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;
use serde_json::json;
use wegeft::storage::{collect, write_tensors};

/// Pretrains a small vision transformer on fractals, outlines and textures rendered on the fly.
#[derive(Parser)]
struct Args {
    /// Folder for config.json (timm's fields) and model.safetensors.
    #[arg(long, default_value = "runs/pretrain")]
    out: PathBuf,
    /// Optimizer steps.
    #[arg(long, default_value_t = 1500)]
    steps: usize,
    /// Pictures a step.
    #[arg(long, default_value_t = 128)]
    batch_size: usize,
    /// Peak learning rate; warm-up of 5 %, then cosine to 0.
    #[arg(long, default_value_t = 1e-3, allow_negative_numbers = true)]
    lr: f64,
    /// Categories.
    #[arg(long, default_value_t = 120)]
    classes: usize,
    /// Width.
    #[arg(long, default_value_t = 128)]
    d_model: usize,
    /// Blocks.
    #[arg(long, default_value_t = 4)]
    depth: usize,
    /// Seed of categories, weights and pictures.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Device, as in the other programs.
    #[arg(long, default_value = experiments::device::DEFAULT)]
    device: String,
}

/// Heads of the model.
const HEADS: usize = 4;

fn main() -> ExitCode {
    end("pretrain", run(Args::parse()))
}

impl Args {
    /// What would otherwise be found out after the training, or by a panic.
    fn check(&self) -> Result<(), String> {
        check_positive(&[
            ("classes", self.classes),
            ("batch-size", self.batch_size),
            ("depth", self.depth),
            ("steps", self.steps),
            ("d-model", self.d_model),
        ])?;
        if !self.d_model.is_multiple_of(HEADS) {
            return Err(format!(
                "--d-model {} is no multiple of {HEADS}, the number of heads",
                self.d_model
            ));
        }
        check_lr(self.lr)?;
        check_out(&self.out)
    }
}

fn run(args: Args) -> Result<(), String> {
    const SIZE: usize = 32;
    args.check()?;
    let device = experiments::device::device(&args.device)?.autodiff();
    device.seed(args.seed);
    let config = VitConfig::new(SIZE, 8, args.d_model, args.depth, HEADS).with_num_classes(args.classes);
    let mut model = config.init(&device);
    let formulas = categories(args.classes, args.seed);
    let mut optim = AdamWConfig::new().with_weight_decay(0.05).with_epsilon(1e-8).init();
    let loss_fn = CrossEntropyLossConfig::new().init(&device);
    let (start, mut shown) = (Instant::now(), (0.0, 0.0));
    for step in 0..args.steps {
        let made: Vec<(Vec<f32>, i64)> = (0..args.batch_size)
            .into_par_iter()
            .map(|i| {
                let mut rng = StdRng::seed_from_u64(args.seed ^ ((step * args.batch_size + i) as u64 + 1) << 8);
                let class = rng.random_range(0..formulas.len());
                let grey = render(&formulas[class], SIZE, &mut rng);
                let normal: Vec<f32> = grey.iter().map(|value| value * 2.0 - 1.0).collect();
                (normal.repeat(3), class as i64)
            })
            .collect();
        let (pixels, labels): (Vec<_>, Vec<_>) = made.into_iter().unzip();
        let pixels = Tensor::<4>::from_data(
            TensorData::new(pixels.concat(), [args.batch_size, 3, SIZE, SIZE]),
            &device,
        );
        let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [args.batch_size]), &device);
        let logits = model.forward(pixels);
        let loss = loss_fn.forward(logits.clone(), labels.clone());
        if step % 20 == 0 {
            let right = logits
                .detach()
                .argmax(1)
                .reshape([args.batch_size])
                .equal(labels)
                .int()
                .sum()
                .into_scalar::<i64>();
            let now = (
                loss.clone().into_scalar::<f32>() as f64,
                right as f64 / args.batch_size as f64,
            );
            check_loss(now.0, step)?;
            shown = if step == 0 {
                now
            } else {
                (0.9 * shown.0 + 0.1 * now.0, 0.9 * shown.1 + 0.1 * now.1)
            };
            if step % 100 == 0 {
                tell(format_args!(
                    "step {step}: loss {:.3}, top-1 {:.3}, {:.0} s",
                    shown.0,
                    shown.1,
                    start.elapsed().as_secs_f64()
                ));
            }
        }
        let warm = (args.steps / 20).max(1);
        let lr = if step < warm {
            args.lr * (step + 1) as f64 / warm as f64
        } else {
            let t = (step - warm) as f64 / (args.steps - warm).max(1) as f64;
            args.lr * 0.5 * (1.0 + (std::f64::consts::PI * t).cos())
        };
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optim.step(lr, model, grads);
    }
    let seconds = start.elapsed().as_secs_f64();
    model.head = None;
    let names = backbones::import::names(&model);
    let tensors = collect(&model, &names);
    if tensors
        .values()
        .flat_map(|stored| &stored.values)
        .any(|value| !value.is_finite())
    {
        return Err("the weights are no numbers any more; lower --lr, nothing was written".into());
    }
    write_tensors(&args.out.join("model.safetensors"), &tensors).map_err(|e| e.to_string())?;
    let description = json!({
        "architecture": "vit_formula_patch8_32", "num_heads": HEADS, "global_pool": "token", "layer_norm_eps": 1e-6,
        "pretraining": {
            "data": "fractals, outlines and textures from formulas", "categories": args.classes, "steps": args.steps,
            "batch_size": args.batch_size, "learning_rate": args.lr, "weight_decay": 0.05, "seed": args.seed, "seconds": seconds.round(), "train_loss": shown.0, "train_top1": shown.1,
        },
    });
    let text = serde_json::to_string_pretty(&description).map_err(|e| e.to_string())?;
    wegeft::storage::write_then_rename(&args.out.join("config.json"), text.as_bytes()).map_err(|e| e.to_string())?;
    let (steps, out) = (args.steps, args.out.display());
    print(format_args!("{steps} steps in {seconds:.0} s; written to {out}"))
}
