//! Makes the small vision transformer that ships with the repository, from formulas alone.

use std::path::PathBuf;
use std::sync::Arc;

use backbones::VitConfig;
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, TensorData};
use clap::Parser;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;
use wegeft::storage::{collect, write_tensors};

use crate::cli::output::print;
use crate::run::files::write_json;
use crate::tools::pretrain::checks::{check_lr, check_out, check_positive};
use crate::tools::pretrain::formulas::{Formula, categories, render};
use crate::tools::pretrain::session::Pretraining;
use crate::train::stream::{Plan, Source};
use crate::train::trainer::Measured;
use crate::vision::data::{Batch, Values};
use crate::vision::objective::CrossEntropy;

/// Pretrain a small vision transformer on fractals, outlines and textures rendered on the fly
#[derive(Debug, Parser, Serialize)]
#[command(name = "pretrain")]
pub struct Args {
    /// Folder for config.json (timm's fields) and model.safetensors.
    #[arg(long, default_value = "runs/pretrain")]
    out: PathBuf,
    /// Optimizer steps.
    #[arg(long, default_value_t = 1500)]
    steps: usize,
    /// Images per step.
    #[arg(long, default_value_t = 128)]
    batch_size: usize,
    /// Peak learning rate; 5 % warm-up, then cosine decay to 0.
    #[arg(long, alias = "learning-rate", default_value_t = 1e-3, allow_negative_numbers = true)]
    lr: f64,
    /// Categories.
    #[arg(long, default_value_t = 120)]
    classes: usize,
    /// Width of the model.
    #[arg(long, default_value_t = 128)]
    d_model: usize,
    /// Blocks.
    #[arg(long, default_value_t = 4)]
    depth: usize,
    /// Seed of categories, weights and images.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Device: flex, ndarray, vulkan, cuda:1, …; a+b splits the training over both.
    #[arg(long, default_value = crate::cli::device::DEFAULT)]
    device: String,
}

/// Heads of the model.
const HEADS: usize = 4;

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

/// Side of the images, pixels.
const SIZE: usize = 32;

/// Runs the program.
///
/// # Errors
/// One sentence: flags that cannot be, a loss that is not a number, an interruption, a file that cannot be written.
pub fn pretrain(args: &Args) -> Result<(), String> {
    args.check()?;
    let devices: Vec<Device> = crate::cli::device::devices(&args.device)?
        .into_iter()
        .map(Device::autodiff)
        .collect();
    let device = &devices[0];
    device.seed(args.seed);
    let config = VitConfig::new(SIZE, 8, args.d_model, args.depth, HEADS).with_num_classes(args.classes);
    let model = config.init(device);
    let pretraining = Pretraining {
        out: &args.out,
        flags: json!(args),
        steps: args.steps,
        batch_size: args.batch_size,
        learning_rate: args.lr,
        weight_decay: 0.05,
        beta_2: 0.999,
        max_grad_norm: 0.0,
        measured: Measured::Images,
        seed: args.seed,
    };
    let formulas = Formulas {
        categories: Arc::new(categories(args.classes, args.seed)),
        seed: args.seed,
        count: args.steps * args.batch_size,
    };
    let none = Formulas {
        count: 0,
        ..formulas.clone()
    };
    let objective = CrossEntropy { checkpointing: false };
    let trained = pretraining.run(model, objective, formulas, none, &devices)?;
    let mut model = trained.model;
    model.head = None;
    let names = backbones::import::names(&model);
    let tensors = collect(&model, &names);
    if tensors
        .values()
        .flat_map(|stored| &stored.values)
        .any(|value| !value.is_finite())
    {
        return Err("the weights are NaN or infinite; lower --lr, nothing was written".into());
    }
    write_tensors(&args.out.join("model.safetensors"), &tensors).map_err(|e| e.to_string())?;
    let seconds = trained.seconds;
    let description = json!({
        "architecture": "vit_formula_patch8_32", "num_heads": HEADS, "global_pool": "token", "layer_norm_eps": 1e-6,
        "pretraining": {
            "data": "fractals, outlines and textures from formulas", "categories": args.classes, "steps": args.steps,
            "batch_size": args.batch_size, "learning_rate": args.lr, "weight_decay": 0.05, "seed": args.seed,
            "seconds": seconds.round(), "train_loss": trained.last["loss"], "train_top1": trained.last["accuracy"],
        },
    });
    write_json(&args.out.join("config.json"), &description)?;
    pretraining.clean()?;
    let (steps, out) = (args.steps, args.out.display());
    print(format_args!("{steps} steps in {seconds:.0} s; written to {out}"))
}

/// Images rendered on the fly, each once.
#[derive(Clone)]
struct Formulas {
    categories: Arc<Vec<Formula>>,
    seed: u64,
    count: usize,
}

impl Source for Formulas {
    type Host = Values;
    type Batch = Batch;

    fn count(&self) -> usize {
        self.count
    }

    /// In their order: every image is new.
    fn epoch(&self, plan: &Plan, _epoch: usize) -> Vec<Vec<usize>> {
        let order: Vec<usize> = (0..self.count).collect();
        order.chunks(plan.batch_size).map(<[usize]>::to_vec).collect()
    }

    fn read(&self, items: &[usize], _seed: Option<u64>) -> Result<Values, DatasetError> {
        let made = items.par_iter().map(|item| {
            let mut rng = StdRng::seed_from_u64(self.seed ^ (*item as u64 + 1) << 8);
            let class = rng.random_range(0..self.categories.len());
            let grey = render(&self.categories[class], SIZE, &mut rng);
            let normal: Vec<f32> = grey.iter().map(|value| value * 2.0 - 1.0).collect();
            (normal.repeat(3), class as i64)
        });
        let (pixels, labels): (Vec<_>, Vec<_>) = made.collect::<Vec<_>>().into_iter().unzip();
        let pixels = TensorData::new(pixels.concat(), [items.len(), 3, SIZE, SIZE]);
        Ok(Values::plain(pixels, labels))
    }

    fn on_device(&self, host: Values, device: &Device) -> Batch {
        host.on_device(device)
    }
}
