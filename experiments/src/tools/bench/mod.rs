//! Times named workloads. Each measurement runs in its own child process, so that its peak memory can be measured;
//! several rounds alternate (A B A B), so that a slowdown of the machine affects all workloads.

pub mod adapter;
pub mod bandwidth;
pub mod clock;
pub mod compare;
pub mod lm;
pub mod products;
pub mod scaling;
pub mod vit;

use std::path::PathBuf;
use std::process::Command;

use burn::tensor::{Device, Tensor};
use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::cli::output::print;
use crate::run::memory::{device_mb, peak_rss_mb};
use clock::Times;
use products::Product;

/// Default number of images per pass.
const BATCH: usize = 8;

/// Times forward passes and training steps on synthetic data and prints one JSON object per line.
///
/// Workloads: vit-tiny, vit-s and vit-b (12 blocks, 224 pixels, patches of 16), each with -forward (evaluation) or
/// -step (loss, backward pass, AdamW); adapter (one adapted layer of 384 x 384, forward and backward); llama-100m
/// (random weights) and lm (the folder --model), each with -step, -prefill (a prompt, up to the logits after it) or
/// -decode (one more token). Methods: frozen (vit-…-step trains only the head; the other -step workloads do not support
/// it), lora and wegeft (on attn.proj, or on the q, k, v, up and down projections), full, and burn-lora (Burn's own
/// apply_lora; vit only). gemm_seconds is the time of the workload's necessary matrix products alone, memory_seconds
/// the time of reading every weight once.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Args {
    /// Workloads.
    #[arg(long, value_delimiter = ',', default_value = "vit-s-forward,vit-s-step,adapter")]
    pub workload: Vec<String>,
    /// Methods.
    #[arg(long, value_delimiter = ',', default_value = "frozen,lora,wegeft")]
    pub method: Vec<String>,
    /// Images or rows of 197 tokens (by default 8), or texts (by default 4 for -step, otherwise 1).
    #[arg(long)]
    pub batch: Option<usize>,
    /// Tokens of a text; for -decode, tokens that were read before.
    #[arg(long, default_value_t = 256)]
    pub tokens: usize,
    /// Folder of a language model in Hugging Face's layout, for the workloads lm-….
    #[arg(long)]
    pub model: Option<String>,
    /// Data type of a language model's weights: f32, bf16 or f16.
    #[arg(long, default_value = "f32")]
    pub dtype: String,
    /// Quantize the linear layers of --model to int8 or int4.
    #[arg(long)]
    pub quantize: Option<String>,
    /// Rank of the adapters.
    #[arg(long, default_value_t = 16)]
    pub r: usize,
    /// Threads; by default one per core.
    #[arg(long)]
    pub threads: Option<usize>,
    /// Seconds of each measurement; at least three passes are timed.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Untimed passes before the timed ones (--scaling has two such rounds of its own); a GPU compiles and chooses its
    /// kernels in them and needs more, for example 20.
    #[arg(long, default_value_t = 2)]
    pub warm_up: usize,
    /// How many times to run through the whole list.
    #[arg(long, default_value_t = 1)]
    pub rounds: usize,
    /// Device.
    #[arg(long, default_value = crate::cli::device::DEFAULT)]
    pub device: String,
    /// Recompute activations in the backward pass of a -step instead of keeping them all.
    #[arg(long, value_enum)]
    pub checkpointing: Option<Checkpointing>,
    /// Instead, measure what additional sites, ranks and generators cost in a training step, and plot it to this file
    /// (SVG).
    #[arg(long, value_name = "FILE")]
    pub scaling: Option<PathBuf>,
    /// Measure PyTorch with Hugging Face PEFT on the same workloads, alternating with ours, and print both in one
    /// table; PYTHON is an interpreter with torch, transformers and peft.
    #[arg(
        long,
        value_name = "PYTHON",
        num_args = 0..=1,
        default_missing_value = "python3",
        conflicts_with_all = ["scaling", "quantize", "checkpointing"]
    )]
    pub compare: Option<PathBuf>,
    /// Set in the child processes.
    #[arg(long, hide = true)]
    pub child: bool,
}

/// Which part of a forward pass is recomputed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Checkpointing {
    /// Each layer, from its input, as with the programs' --gradient-checkpointing.
    Layers,
    /// What Burn's balanced checkpointing recomputes.
    Balanced,
}

impl Args {
    /// The device for a training step.
    fn training(&self, device: &Device) -> Device {
        let device = device.clone().autodiff();
        match self.checkpointing {
            Some(Checkpointing::Balanced) => device.gradient_checkpointing(),
            _ => device,
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Workload.
    pub workload: String,
    /// Method.
    pub method: String,
    /// Device.
    pub device: String,
    /// Data type of the weights as stored.
    pub dtype: String,
    /// Threads.
    pub threads: usize,
    /// Images, or texts.
    pub batch: usize,
    /// Tokens of an image or text.
    pub tokens: usize,
    /// Passes timed.
    pub passes: usize,
    /// Median of a pass, seconds.
    pub median_seconds: f64,
    /// Fastest pass, seconds.
    pub min_seconds: f64,
    /// Tokens per second in the fastest pass.
    pub tokens_per_second: f64,
    /// Processor time of a pass over all threads, seconds; varies less than wall time on a busy machine.
    pub processor_seconds: Option<f64>,
    /// Cores busy on average: processor time over wall time; absent if the system does not report it.
    pub cores_busy: Option<f64>,
    /// Time of the matrix products alone: the sum of the fastest time of each, seconds.
    pub gemm_seconds: f64,
    /// For decoding: the time of reading all weights once at this machine's memory bandwidth, seconds.
    pub memory_seconds: Option<f64>,
    /// Peak resident memory of the process, before the products are measured alone, MB.
    pub peak_rss_mb: Option<f64>,
    /// Memory that the device's allocator held at that time, MB; absent on a CPU.
    pub device_mb: Option<f64>,
}

/// Computes something and returns it.
pub type Pass = Box<dyn FnMut() -> Tensor<1>>;

/// A workload that is ready to run.
pub struct Workload {
    /// One pass: returns its result or, for a training step, the loss before the step.
    pub pass: Pass,
    /// The matrix products that a pass needs.
    pub products: Vec<Product>,
    /// Images, or texts.
    pub batch: usize,
    /// Tokens of an image or text.
    pub tokens: usize,
    /// Tokens that a pass processes.
    pub read_tokens: usize,
    /// Bytes of weights, if reading them takes most of a pass.
    pub weight_bytes: Option<usize>,
}

/// Measures the workloads in `args` and prints one line for each.
///
/// # Errors
/// An unknown workload, method or device; a child process that fails.
pub fn bench(args: &Args) -> Result<(), String> {
    if args.child {
        let line = measure(args, &args.workload[0], &args.method[0])?;
        return print(serde_json::to_string(&line).map_err(|e| e.to_string())?);
    }
    if let Some(file) = &args.scaling {
        set_threads(args)?;
        return scaling::scaling(args, file);
    }
    if let Some(python) = &args.compare {
        return compare::compare(args, python);
    }
    let program = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    for _ in 0..args.rounds {
        for workload in &args.workload {
            for method in &args.method {
                let mut child = Command::new(&program);
                child.args(crate::cli::program::prefix());
                child.args([
                    "--child",
                    "--workload",
                    workload,
                    "--method",
                    method,
                    "--device",
                    &args.device,
                ]);
                child.args(args.batch.map(|batch| format!("--batch={batch}")));
                child.args(args.model.as_ref().map(|model| format!("--model={model}")));
                child.args(args.quantize.as_ref().map(|quantize| format!("--quantize={quantize}")));
                child.args([
                    format!("--r={}", args.r),
                    format!("--tokens={}", args.tokens),
                    format!("--dtype={}", args.dtype),
                    format!("--seconds={}", args.seconds),
                    format!("--warm-up={}", args.warm_up),
                ]);
                child.args(args.threads.map(|threads| format!("--threads={threads}")));
                let checkpointing = args.checkpointing.and_then(|kind| kind.to_possible_value());
                child.args(checkpointing.map(|kind| format!("--checkpointing={}", kind.get_name())));
                let status = child.status().map_err(|e| format!("cannot start a child: {e}"))?;
                if !status.success() {
                    return Err(format!("{workload} with {method} gave no result"));
                }
            }
        }
    }
    Ok(())
}

fn set_threads(args: &Args) -> Result<(), String> {
    let Some(threads) = args.threads else { return Ok(()) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build_global().map_err(|e| format!("--threads {threads}: {e}"))
}

/// The workload of that name on `device`.
fn ready(args: &Args, workload: &str, method: &str, device: &Device) -> Result<Workload, String> {
    match workload.rsplit_once('-') {
        Some((size @ ("vit-tiny" | "vit-s" | "vit-b"), kind @ ("forward" | "step"))) => {
            vit::workload(args, &size["vit-".len()..], kind, method, device)
        }
        Some((shape @ ("llama-100m" | "lm"), kind @ ("step" | "prefill" | "decode"))) => {
            lm::workload(args, shape, kind, method, device)
        }
        None if workload == "adapter" => adapter::workload(args, method, device),
        _ => Err(format!(
            "--workload {workload}: unknown; choose vit-tiny, vit-s or vit-b with -forward or -step, llama-100m or lm \
             with -step, -prefill or -decode, or adapter"
        )),
    }
}

fn measure(args: &Args, workload: &str, method: &str) -> Result<Line, String> {
    set_threads(args)?;
    let device = crate::cli::device::device(&args.device)?;
    device.seed(0);
    let mut ready = ready(args, workload, method, &device)?;
    let mut last = None;
    let pass = || {
        last = None;
        last = Some((ready.pass)());
        // A pass on a GPU is finished when its queue is empty.
        device.sync().expect("the device answers");
    };
    let times = Times::of(pass, args.warm_up, args.seconds);
    let (peak_rss_mb, device_mb) = (peak_rss_mb(), device_mb(&device));
    // Passes that failed on the device would look fast.
    if !last.is_some_and(|result| result.is_finite().all().into_scalar::<bool>()) {
        return Err(format!("{workload} with {method}: what it computed is not finite"));
    }
    drop(ready.pass);
    Ok(Line {
        workload: workload.into(),
        method: method.into(),
        device: args.device.clone(),
        threads: rayon::current_num_threads(),
        dtype: args.quantize.as_ref().unwrap_or(&args.dtype).clone(),
        batch: ready.batch,
        tokens: ready.tokens,
        passes: times.passes,
        median_seconds: times.median,
        min_seconds: times.min,
        tokens_per_second: ready.read_tokens as f64 / times.min,
        processor_seconds: times.processor,
        cores_busy: times.cores_busy,
        gemm_seconds: ready
            .products
            .iter()
            .map(|product| product.seconds(&device, args.warm_up))
            .sum(),
        // The memory bandwidth of a GPU is not measured.
        memory_seconds: ready
            .weight_bytes
            .filter(|_| device_mb.is_none())
            .map(|bytes| bytes as f64 / bandwidth::bytes_per_second()),
        peak_rss_mb,
        device_mb,
    })
}
