//! What both pretraining programs share: the trainer of fine-tuning, with all parameters trained.

use std::path::Path;
use std::sync::Arc;

use burn::module::{Module, ModuleDisplay};
use burn::tensor::Device;
use burn::train::Interrupter;
use serde_json::{Value, json};
use wegeft::AdapterConfig;

use crate::cli::output::print;
use crate::cli::settings::defaults;
use crate::run::files::{create_folder, read_json, read_lines, remove_folder, write_json};
use crate::run::lock::Lock;
use crate::run::outcome::RunError;
use crate::run::strays::remove_strays;
use crate::train::interrupt::stop_on_ctrl_c;
use crate::train::settings::{Schedule, Training};
use crate::train::step::Objective;
use crate::train::stream::{Ordered, Plan, Seeding, Source};
use crate::train::trainer::{Measured, Session};

/// Steps between checkpoints.
const ROUND: usize = 100;

/// The flags that a training was started with, within its folder.
const FLAGS: &str = "training/flags.json";

/// Written after the model.
const TRAINED: &str = "training/trained.json";

/// A pretraining run.
pub struct Pretraining<'a> {
    /// Folder for the model; its training/ contains metrics.jsonl and, until training ends, checkpoints.
    pub out: &'a Path,
    /// All flags: starting again with the same flags resumes an interrupted training.
    pub flags: Value,
    /// Optimizer steps.
    pub steps: usize,
    /// Examples per step.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// AdamW's second beta.
    pub beta_2: f32,
    /// Maximum norm over all gradients; 0 turns clipping off.
    pub max_grad_norm: f64,
    /// The metrics.
    pub measured: Measured,
    /// Seed.
    pub seed: u64,
}

/// Results of a pretraining.
pub struct Pretrained<M> {
    /// The model.
    pub model: M,
    /// Wall time of all sessions.
    pub seconds: f64,
    /// The last training line in metrics.jsonl.
    pub last: Value,
}

impl Pretraining<'_> {
    /// Whether a training with the same flags has written its model into the folder; says so.
    ///
    /// # Errors
    /// A file of the training that is damaged or cannot be read, a folder that cannot be removed.
    pub fn is_finished(&self) -> Result<bool, String> {
        let known: Option<Value> = read_json(&self.out.join(FLAGS), "remove it")?;
        let trained: Option<Value> = read_json(&self.out.join(TRAINED), "remove it")?;
        let same = known.is_some_and(|known| without_place(known) == without_place(self.flags.clone()));
        let Some(trained) = trained.filter(|_| same && self.out.join("model.safetensors").is_file()) else {
            return Ok(false);
        };
        // A process that ended between the two left them.
        self.clean()?;
        let (seconds, out) = (trained["seconds"].as_f64().unwrap_or_default(), self.out.display());
        let steps = self.steps;
        print(format_args!(
            "{out} has the model of these {steps} steps, trained in {seconds:.0} s; remove {} to train it again",
            self.out.join(FLAGS).display()
        ))?;
        Ok(true)
    }

    /// Trains `model` on `train` with `objective`. Ctrl-C stops it; the same command resumes it.
    ///
    /// # Errors
    /// A loss that is not a number, an interruption, a folder of a run with other flags, or one that cannot be written.
    pub fn run<M, O, S>(
        &self,
        model: M,
        objective: O,
        train: S,
        none: S,
        devices: &[Device],
    ) -> Result<Pretrained<M>, String>
    where
        M: Module + ModuleDisplay + Sync + 'static,
        O: Objective<M>,
        S: Source<Batch = O::Batch>,
    {
        let folder = self.out.join("training");
        create_folder(&folder)?;
        let _lock = Lock::take(&folder)?;
        remove_strays(&folder);
        let flags = self.out.join(FLAGS);
        // A folder that was moved is the same training.
        let own = without_place(self.flags.clone());
        match read_json::<Value>(&flags, "remove it")?.map(without_place) {
            Some(known) if known != own => {
                return Err(format!(
                    "{} holds a training of other flags; choose another --out, or remove it",
                    folder.display()
                ));
            }
            _ => write_json(&flags, &own)?,
        }
        let interrupter = Interrupter::new();
        stop_on_ctrl_c(&interrupter)?;
        let settings = Training {
            epochs: 1,
            batch_size: self.batch_size,
            learning_rate: self.learning_rate,
            lr_scheduler: Schedule::Cosine,
            warmup_ratio: 0.05,
            max_grad_norm: self.max_grad_norm,
            ..defaults()
        };
        let session = Session {
            settings: &settings,
            plan: Plan {
                batch_size: self.batch_size,
                accumulation: 1,
                epochs: 1,
                stop_after: None,
                eval_steps: Some(ROUND.min(self.steps)),
                seed: self.seed,
                seeding: Seeding::Step,
            },
            count: self.steps * self.batch_size,
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
            beta_2: self.beta_2,
            mean_of_batch_means: false,
            measured: self.measured,
            folder: &folder,
            label: "pretraining".into(),
            place: "pretraining".into(),
            log_steps: ROUND,
            interrupter: &interrupter,
        };
        let adapted = AdapterConfig::full().init(model).map_err(|e| e.to_string())?;
        let valid = Arc::new(Ordered::new(none, self.batch_size, &devices[0].clone().inner()));
        let trained = session
            .train(adapted, objective, train, valid, devices)
            .map_err(|error| match error {
                RunError::Diverged(message) => format!("{message}; lower --learning-rate, nothing was written"),
                error => error.to_string(),
            })?;
        let lines = read_lines::<Value>(&folder.join("metrics.jsonl"))?;
        let last = lines.into_iter().rev().find(|(_, line)| line["split"] == "train");
        Ok(Pretrained {
            seconds: trained.clock.total(),
            model: trained.adapted.bind(),
            last: last.map(|(_, line)| line).unwrap_or_default(),
        })
    }

    /// Records that the model is written, and removes the files that only an unfinished training needs.
    ///
    /// # Errors
    /// A file that cannot be written, a folder that cannot be removed.
    pub fn finish(&self, seconds: f64) -> Result<(), String> {
        write_json(
            &self.out.join(TRAINED),
            &json!({ "steps": self.steps, "seconds": seconds }),
        )?;
        self.clean()
    }

    fn clean(&self) -> Result<(), String> {
        remove_folder(&self.out.join("training/checkpoints"))
    }
}

/// Flags without the folder that they name.
fn without_place(mut flags: Value) -> Value {
    if let Some(flags) = flags.as_object_mut() {
        flags.remove("out");
    }
    flags
}
