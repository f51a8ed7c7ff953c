//! What the labs of all wings share: the trials of a run, and the device, session, adapter and memory limit of a trial.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::Device;
use wegeft::{AdapterConfig, Summary};

use crate::methods::{self, Adapter, NONE, OwnSettings, Wing};
use crate::run::args::Execution;
use crate::run::files::remove_folder;
use crate::run::grid::{Best, Tuned};
use crate::run::outcome::RunError;
use crate::run::suite::Program;
use crate::run::sweep::Sweep;
use crate::run::trial::{Plan, Rates, Stage, Trial};
use crate::train::estimate::Estimate;
use crate::train::settings::Training;
use crate::train::stream::{self, Seeding};
use crate::train::trainer::{Measured, Session};

/// Stands in for the name of a method when an existing adapter is evaluated.
pub const ADAPTER: &str = "adapter";

/// The method of an existing adapter that is trained further.
pub const CONTINUED: &str = "continued";

/// True if a trial of this method trains something.
pub fn trains(method: &str) -> bool {
    method != NONE && method != ADAPTER
}

/// True if model and files can be read without a network: a name on the hub may have to be asked for.
pub fn is_here(model: Option<&str>, files: &[PathBuf]) -> bool {
    model.is_none_or(|name| Path::new(name).exists()) && files.iter().all(|file| file.is_file())
}

/// The settings that all wings have.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    /// The program.
    pub program: &'a Program,
    /// The adapters.
    pub adapter: &'a Adapter,
    /// `[methods.NAME]`.
    pub methods: &'a OwnSettings,
    /// How they are trained.
    pub training: &'a Training,
    /// How they are tuned.
    pub sweep: &'a Sweep,
    /// Seeds and devices.
    pub execution: &'a Execution,
    /// What they are trained on.
    pub wing: Wing,
}

/// What is done with an existing adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is tested.
    Evaluated,
    /// It is trained further.
    Continued,
}

impl<'a> Shared<'a> {
    /// The trials on `tasks`: of all methods or, if there is one, of an existing adapter.
    pub fn plan(&self, tasks: Vec<String>, existing: Option<Existing>, best: Best) -> Plan {
        let of_method = |method: &String| Rates {
            method: method.clone(),
            fixed: methods::rates(self.training, self.methods, method),
            grid: match method == NONE {
                true => Vec::new(),
                false => methods::grid(self.training, self.sweep, self.methods, method, self.wing),
            },
        };
        let adapter = || Rates {
            method: ADAPTER.into(),
            fixed: (self.training.learning_rate, self.training.weight_decay),
            grid: Vec::new(),
        };
        Plan {
            tasks,
            methods: match existing {
                Some(Existing::Evaluated) => vec![adapter()],
                Some(Existing::Continued) => vec![of_method(&CONTINUED.to_string())],
                None => self.adapter.method.iter().map(of_method).collect(),
            },
            seeds: self.execution.seed.clone(),
            sweep: self.sweep.sweep,
            best,
        }
    }

    /// The device that a process of this run has its models on, with autodiff; the first, where several train them.
    ///
    /// # Errors
    /// A device that does not exist.
    pub fn device(&self) -> Result<Device, String> {
        Ok(self.execution.devices()?.remove(0))
    }

    /// How the examples of a trial become steps.
    fn steps(&self, trial: &Trial) -> stream::Plan {
        stream::Plan {
            batch_size: self.training.batch_size,
            accumulation: self.training.gradient_accumulation_steps,
            epochs: self.training.epochs,
            stop_after: self.sweep.tune_epochs.filter(|_| trial.stage == Stage::Tune),
            eval_steps: self.training.eval_steps,
            seed: trial.seed,
            // The released vision code seeds each epoch.
            seeding: match self.wing {
                Wing::Vision => Seeding::Epoch,
                Wing::Language | Wing::Text => Seeding::Step,
            },
        }
    }

    /// The training of a trial on `count` examples.
    pub fn session(&self, trial: &Trial, count: usize, measured: Measured, folder: &'a Path) -> Session<'a> {
        let plan = self.steps(trial);
        Session {
            settings: self.training,
            plan,
            count,
            learning_rate: trial.lr,
            weight_decay: trial.weight_decay,
            beta_2: 0.999,
            mean_of_batch_means: false,
            scales_loss: false,
            measured,
            folder,
            label: match self.wing {
                Wing::Vision => trial.label(),
                Wing::Language | Wing::Text => format!("{}: {} steps", trial.label(), plan.steps(count)),
            },
            place: trial.place(),
            log_steps: self.program.log_steps,
            interrupter: &self.program.interrupter,
        }
    }

    /// `config` of a trial's method, with the settings that depend on the length of its training on `count` examples,
    /// if that is known.
    ///
    /// # Errors
    /// A training too short for the method.
    pub fn scheduled(
        &self,
        config: AdapterConfig,
        trial: &Trial,
        count: Option<usize>,
    ) -> Result<AdapterConfig, String> {
        match count {
            Some(count) => {
                let steps = self.steps(trial).scheduled_steps(count);
                methods::scheduled(config, self.methods, &trial.method, steps)
            }
            None => Ok(config),
        }
    }

    /// True if attention materializes its scores.
    pub fn stores_scores(&self) -> bool {
        !self.execution.is_flex()
    }

    /// Tokens that a method adds to each sequence.
    pub fn added_tokens(&self, method: &str) -> usize {
        // An existing adapter is none of the methods.
        let config = methods::adapter(self.adapter, self.methods, method, self.wing, "");
        config.map_or(0, |config| methods::virtual_tokens(&config))
    }

    /// Refuses a training that does not fit into memory. `batch` describes a batch.
    ///
    /// # Errors
    /// One sentence.
    pub fn check_memory(&self, estimate: &Estimate, batch: &str) -> Result<(), String> {
        let mut advice = String::from("lower batch_size (gradient_accumulation_steps makes up for it)");
        if self.wing != Wing::Vision {
            advice += " or max_length";
        }
        if !self.training.gradient_checkpointing {
            advice += ", or give --gradient-checkpointing";
        }
        let free = || estimate.free_mb(&self.execution.device);
        estimate.check(self.training.memory_limit.or_else(free), batch, &advice)
    }
}

/// What a trial will train, beside a classifier's head if it has one, and need.
pub fn told(method: &str, summary: &Summary, wing: Wing, memory_mb: u64, seconds: f64) -> String {
    let (trained, percent) = match wing {
        Wing::Language => (summary.trainable_params(), summary.percent()),
        Wing::Vision | Wing::Text => trained_params(method, summary),
    };
    let beside = match (wing, method) {
        (Wing::Language, _) => "",
        // The head is a part of the model.
        (_, "full") => " with the head",
        _ => " beside the head",
    };
    format!("{trained} trainable{beside} ({percent:.3} %), about {memory_mb} MB, {seconds:.0} s of training")
}

/// Parameters that a trial trains, without the head, and their percentage of all parameters.
pub fn trained_params(method: &str, summary: &Summary) -> (usize, f64) {
    match method {
        "full" => (summary.saved_params, 100.0),
        _ => (summary.adapter_params, summary.percent()),
    }
}

/// The result of `train` for one point of a grid: its best round (counted from 1) with its evaluation, and the seconds
/// it took. A training that diverged is a result, too.
///
/// # Errors
/// Any other failure of `train`.
pub fn tuned(
    trial: &Trial,
    folder: &Path,
    train: impl FnOnce() -> Result<(Option<(usize, f64)>, f64), RunError>,
) -> Result<Tuned, RunError> {
    let start = Instant::now();
    let (best, seconds) = match train() {
        Ok(trained) => trained,
        Err(RunError::Diverged(_)) => (None, start.elapsed().as_secs_f64()),
        Err(error) => return Err(error),
    };
    remove_folder(&folder.join("checkpoints")).map_err(RunError::Failed)?;
    let (epoch, validation) = best.unwrap_or_default();
    Ok(Tuned {
        lr: trial.lr,
        weight_decay: trial.weight_decay,
        validation,
        epoch,
        seconds,
    })
}
