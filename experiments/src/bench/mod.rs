//! Times named workloads: one child process for each measurement, so that its peak memory is its own, in turn
//! (A B A B) if there are several rounds, so that a machine that slows down does so for all.

pub mod adapter;
pub mod clock;
pub mod products;
pub mod vit;

use std::process::Command;

use clap::Parser;
use serde::{Deserialize, Serialize};

use crate::memory::peak_rss_mb;
use crate::output::print;
use clock::Times;
use products::Product;

/// Workloads that a run without `--workload` measures.
const DEFAULT_WORKLOADS: [&str; 3] = ["vit-s-forward", "vit-s-step", "adapter"];

/// Times forward passes and training steps on synthetic data and prints a JSON object a line.
///
/// Workloads: vit-tiny, vit-s and vit-b (12 blocks, 224 pixels, patches of 16), each with -forward (evaluation) or -step
/// (loss, backward pass, AdamW); adapter (one adapted layer of 384 x 384, forward and backward). Methods: frozen (for
/// -step: only the head is trained), lora and wegeft (on attn.proj), full, and burn-lora (Burn's own apply_lora).
/// gemm_seconds is the time of the matrix products alone that the workload cannot do without.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Args {
    /// Workloads.
    #[arg(long, value_delimiter = ',', default_values_t = DEFAULT_WORKLOADS.map(String::from))]
    pub workload: Vec<String>,
    /// Methods.
    #[arg(long, value_delimiter = ',', default_values_t = ["frozen", "lora", "wegeft"].map(String::from))]
    pub method: Vec<String>,
    /// Pictures, or rows of 197 tokens.
    #[arg(long, default_value_t = 8)]
    pub batch: usize,
    /// Rank of the adapters.
    #[arg(long, default_value_t = 16)]
    pub r: usize,
    /// Threads; as many as there are cores if absent.
    #[arg(long)]
    pub threads: Option<usize>,
    /// Seconds of each measurement, after two passes to warm up; at least three passes are timed.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Times that the whole list is gone through.
    #[arg(long, default_value_t = 1)]
    pub rounds: usize,
    /// Device.
    #[arg(long, default_value = crate::device::DEFAULT)]
    pub device: String,
    /// Recompute what Burn's balanced checkpointing leaves out, instead of keeping every activation.
    #[arg(long)]
    pub checkpointing: bool,
    /// Set in the child processes.
    #[arg(long, hide = true)]
    pub child: bool,
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
    /// Threads.
    pub threads: usize,
    /// Pictures.
    pub batch: usize,
    /// Tokens of a picture.
    pub tokens: usize,
    /// Passes timed.
    pub passes: usize,
    /// Median of a pass, seconds.
    pub median_seconds: f64,
    /// Fastest pass, seconds.
    pub min_seconds: f64,
    /// Processor time of a pass, all threads together, seconds: steadier than wall time on a machine with other work.
    pub processor_seconds: Option<f64>,
    /// Cores busy on average: processor time over wall time; absent where the system does not tell.
    pub cores_busy: Option<f64>,
    /// Products alone: the sum of the fastest of each, seconds.
    pub gemm_seconds: f64,
    /// Peak resident memory of the process before the products alone, MB.
    pub peak_rss_mb: Option<f64>,
}

/// A workload that is ready to run.
pub struct Workload {
    /// One pass.
    pub pass: Box<dyn FnMut()>,
    /// The products that a pass cannot do without.
    pub products: Vec<Product>,
    /// Tokens of a picture.
    pub tokens: usize,
}

/// Measures what `args` name and prints a line for each.
///
/// # Errors
/// An unknown workload, method or device; a child process that fails.
pub fn bench(args: &Args) -> Result<(), String> {
    if args.child {
        let line = measure(args, &args.workload[0], &args.method[0])?;
        return print(serde_json::to_string(&line).map_err(|e| e.to_string())?);
    }
    let program = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    for _ in 0..args.rounds {
        for workload in &args.workload {
            for method in &args.method {
                let mut child = Command::new(&program);
                child.args([
                    "--child",
                    "--workload",
                    workload,
                    "--method",
                    method,
                    "--device",
                    &args.device,
                ]);
                child.args([
                    "--batch".into(),
                    args.batch.to_string(),
                    "--r".into(),
                    args.r.to_string(),
                ]);
                child.args(["--seconds".into(), args.seconds.to_string()]);
                child.args(args.threads.map(|threads| format!("--threads={threads}")));
                child.args(args.checkpointing.then_some("--checkpointing"));
                let status = child.status().map_err(|e| format!("cannot start a child: {e}"))?;
                if !status.success() {
                    return Err(format!("{workload} with {method} gave no result"));
                }
            }
        }
    }
    Ok(())
}

fn measure(args: &Args, workload: &str, method: &str) -> Result<Line, String> {
    if let Some(threads) = args.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build_global().map_err(|e| format!("--threads {threads}: {e}"))?;
    }
    let device = crate::device::device(&args.device)?;
    device.seed(0);
    let mut ready = match workload.strip_prefix("vit-") {
        Some(name) => vit::workload(args, name, method, &device)?,
        None if workload == "adapter" => adapter::workload(args, method, &device)?,
        None => {
            return Err(format!(
                "--workload {workload}: unknown; choose vit-tiny, vit-s or vit-b with -forward or -step, or adapter"
            ));
        }
    };
    let times = Times::of(&mut ready.pass, args.seconds);
    let peak_rss_mb = peak_rss_mb();
    drop(ready.pass);
    Ok(Line {
        workload: workload.into(),
        method: method.into(),
        device: args.device.clone(),
        threads: rayon::current_num_threads(),
        batch: args.batch,
        tokens: ready.tokens,
        passes: times.passes,
        median_seconds: times.median,
        min_seconds: times.min,
        processor_seconds: times.processor,
        cores_busy: times.cores_busy,
        gemm_seconds: ready.products.iter().map(|product| product.seconds(&device)).sum(),
        peak_rss_mb,
    })
}
