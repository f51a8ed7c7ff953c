//! Times named workloads. Each measurement runs in its own child process, so that its peak memory can be measured;
//! several rounds alternate (A B A B), so that a slowdown of the machine affects all workloads.

pub mod adapter;
pub mod bandwidth;
pub mod choice;
pub mod clock;
pub mod compare;
pub mod count;
pub mod lm;
pub mod products;
pub mod scaling;
pub mod vit;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use burn::tensor::{Device, Tensor};
use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::cli::output::print;
use crate::run::memory::{device_mb, peak_rss_mb};
use crate::tools::flags::{Quantized, whole, within};
use crate::train::precision::Dtype;
use choice::{Method, Work, name};
use clock::Times;
use products::Product;

/// Default number of images per pass.
const BATCH: usize = 8;

/// Time forward passes and training steps on synthetic data
///
/// Prints one JSON object per line. gemm_seconds is the time of the workload's necessary matrix products alone,
/// memory_seconds the time of reading every weight once, first_seconds that of the first pass, which is not counted among
/// the others.
#[derive(Debug, Clone, Parser)]
pub struct Args {
    /// Workloads, separated by commas.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "vit-s-forward,vit-s-step,adapter"
    )]
    pub workload: Vec<Work>,
    /// Methods, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "frozen,lora,wegeft")]
    pub method: Vec<Method>,
    /// Images or rows of 197 tokens [default: 8], or texts [default: 4 for -step, otherwise 1].
    #[arg(long, alias = "batch-size", value_parser = whole(1..=65_536))]
    pub batch: Option<usize>,
    /// Tokens of a text; for -decode, tokens that were read before [default: 256].
    #[arg(long, alias = "max-length", value_parser = whole(1..=131_072))]
    pub tokens: Option<usize>,
    /// Language model for the workloads lm-…: a folder in Hugging Face's layout, or a hub name.
    #[arg(long, alias = "backbone")]
    pub model: Option<String>,
    /// Data type of a language model's weights [default: f32].
    #[arg(long, value_enum)]
    pub dtype: Option<Dtype>,
    /// Quantize the linear layers of --model.
    #[arg(long, value_enum)]
    pub quantize: Option<Quantized>,
    /// Rank of the adapters [default: 16].
    #[arg(long, value_parser = whole(1..=65_536))]
    pub r: Option<usize>,
    /// Threads [default: one per core].
    #[arg(long, value_parser = whole(1..=1024))]
    pub threads: Option<usize>,
    /// Seconds of each measurement; at least three passes are timed.
    #[arg(long, default_value_t = 5.0, value_parser = within("a number", 0.0..=86_400.0))]
    pub seconds: f64,
    /// Untimed passes before the timed ones.
    ///
    /// A GPU compiles and chooses its kernels in them and needs more, for example 20. --scaling has two such rounds of
    /// its own.
    #[arg(long, default_value_t = 2, value_parser = whole(0..=1_000_000))]
    pub warm_up: usize,
    /// How many times to run through the whole list.
    #[arg(long, default_value_t = 1, value_parser = whole(1..=1_000_000))]
    pub rounds: usize,
    /// Device: flex, ndarray, vulkan, cuda:1, …
    #[arg(long, default_value = crate::cli::device::DEFAULT)]
    pub device: String,
    /// Recompute activations in the backward pass of a -step instead of keeping them all.
    #[arg(long, alias = "gradient-checkpointing", value_enum, num_args = 0..=1, default_missing_value = "layers")]
    pub checkpointing: Option<Checkpointing>,
    /// Instead of the workloads, plot to this SVG file what more sites, ranks and generators cost in a training step.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = [
            "workload", "method", "tokens", "model", "dtype", "quantize", "warm_up", "rounds", "checkpointing"
        ]
    )]
    pub scaling: Option<PathBuf>,
    /// Measure PyTorch with Hugging Face PEFT too, alternating with ours, and print both in one table.
    ///
    /// PYTHON is an interpreter with torch, transformers and peft.
    #[arg(
        long,
        value_name = "PYTHON",
        num_args = 0..=1,
        default_missing_value = "python3",
        conflicts_with_all = ["scaling", "quantize", "checkpointing"]
    )]
    pub compare: Option<PathBuf>,
    /// Instead of the times, count the kernels that a pass launches and the bytes that it needs, on a GPU backend.
    ///
    /// Kernels are compiled and tuned, but not run, so that a Vulkan driver for the CPU is enough (docs/gpus.md); there,
    /// choose few --tokens, because tuning does run. launches are those of a pass when all is tuned,
    /// product_bytes what its matrix products read and write, tensor_bytes what is left after it.
    #[arg(long, conflicts_with_all = ["scaling", "compare", "seconds", "rounds"])]
    pub count: bool,
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
    /// Rank of the adapters.
    fn r(&self) -> usize {
        self.r.unwrap_or(16)
    }

    /// Tokens of a text.
    fn tokens(&self) -> usize {
        self.tokens.unwrap_or(256)
    }

    /// Data type of a language model's weights.
    fn dtype(&self) -> Dtype {
        self.dtype.unwrap_or(Dtype::F32)
    }

    /// Name of the type in which `work` keeps the weights.
    fn stored(&self, work: Work) -> String {
        match self.quantize.filter(|_| work.reads("--quantize")) {
            Some(quantized) => name(quantized),
            None if work.reads("--dtype") => name(self.dtype()),
            None => name(Dtype::F32),
        }
    }

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
    /// The first pass, seconds: a GPU compiles and chooses its kernels in it. Absent with --warm-up 0.
    #[serde(default)]
    pub first_seconds: Option<f64>,
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
/// A flag that nothing reads, a device that there is not; a child process that fails.
pub fn bench(args: &Args) -> Result<(), String> {
    if args.child {
        let (work, method) = (args.workload[0], args.method[0]);
        let line = match args.count {
            true => serde_json::to_string(&count::count(args, work, method)?),
            false => serde_json::to_string(&measure(args, work, method)?),
        };
        return print(line.map_err(|e| e.to_string())?);
    }
    if let Some(file) = &args.scaling {
        set_threads(args)?;
        return scaling::scaling(args, file);
    }
    choice::check(args)?;
    // Before a process is started for it.
    let device = crate::cli::device::device(&args.device)?;
    if args.count {
        count::check(&args.device, &device)?;
    }
    if let Some(python) = &args.compare {
        return compare::compare(args, python);
    }
    for _ in 0..args.rounds {
        for work in &args.workload {
            for method in &args.method {
                print(in_a_child(args, *work, *method)?)?;
            }
        }
    }
    Ok(())
}

/// The line of one measurement, made in a process of its own.
fn in_a_child(args: &Args, work: Work, method: Method) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let mut child = Command::new(program);
    child.args(crate::cli::program::prefix()).arg("--child");
    child.args([
        format!("--workload={}", work.name()),
        format!("--method={}", method.name()),
        format!("--device={}", args.device),
        format!("--warm-up={}", args.warm_up),
    ]);
    child.arg(match args.count {
        true => "--count".to_string(),
        false => format!("--seconds={}", args.seconds),
    });
    child.args(args.batch.map(|batch| format!("--batch={batch}")));
    child.args(args.model.as_ref().map(|model| format!("--model={model}")));
    child.args(args.quantize.map(|quantized| format!("--quantize={}", name(quantized))));
    child.args(args.r.map(|r| format!("--r={r}")));
    child.args(args.tokens.map(|tokens| format!("--tokens={tokens}")));
    child.args(args.dtype.map(|dtype| format!("--dtype={}", name(dtype))));
    child.args(args.threads.map(|threads| format!("--threads={threads}")));
    child.args(args.checkpointing.map(|kind| format!("--checkpointing={}", name(kind))));
    // Its errors are shown as they are; its line is printed here, where a full disk is told by its name.
    let done = child.stderr(Stdio::inherit()).output();
    let done = done.map_err(|e| format!("cannot start a child: {e}"))?;
    match done.status.success() {
        true => Ok(String::from_utf8_lossy(&done.stdout).trim_end().to_string()),
        false => Err(format!("{} with {} gave no result", work.name(), method.name())),
    }
}

fn set_threads(args: &Args) -> Result<(), String> {
    let Some(threads) = args.threads else { return Ok(()) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build_global().map_err(|e| format!("--threads {threads}: {e}"))
}

/// A workload on `device`.
///
/// # Errors
/// A method that the workload has not, an unusable --model.
fn ready(args: &Args, work: Work, method: Method, device: &Device) -> Result<Workload, String> {
    work.check(method)?;
    set_threads(args)?;
    device.seed(0);
    match work {
        Work::Adapter => adapter::workload(args, method, device),
        work if work.is_language() => lm::workload(args, work, method, device),
        work => vit::workload(args, work, method, device),
    }
}

fn measure(args: &Args, work: Work, method: Method) -> Result<Line, String> {
    let device = crate::cli::device::device(&args.device)?;
    let mut ready = ready(args, work, method, &device)?;
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
        return Err(format!(
            "{} with {}: what it computed is not finite",
            work.name(),
            method.name()
        ));
    }
    drop(ready.pass);
    Ok(Line {
        workload: work.name(),
        method: method.name(),
        device: args.device.clone(),
        threads: rayon::current_num_threads(),
        dtype: args.stored(work),
        batch: ready.batch,
        tokens: ready.tokens,
        passes: times.passes,
        median_seconds: times.median,
        min_seconds: times.min,
        first_seconds: times.first,
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
