//! What both pretraining programs share: the trainer of fine-tuning, with all parameters trained.

use std::path::Path;
use std::sync::Arc;

use burn::module::{Module, ModuleDisplay};
use burn::tensor::Device;
use clap::Args;
use serde_json::{Value, json};
use wegeft::{AdapterConfig, site};

use crate::cli::interrupt::{Interrupter, stop_on_ctrl_c};
use crate::cli::output::{counted, detail, print, set_verbosity, tell};
use crate::cli::settings::defaults;
use crate::run::files::{create_folder, read_json, read_lines, remove_folder, write_json};
use crate::run::lock::Lock;
use crate::run::outcome::RunError;
use crate::run::strays::{remove_strays, remove_strays_in};
use crate::tools::flags::whole;
use crate::tools::pretrain::checks::MOST_STEPS;
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
    /// What is printed.
    pub shown: &'a Shown,
    /// The files of the model, all of which the program writes into `out`.
    pub files: &'a [&'static str],
}

/// What a pretraining prints.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct Shown {
    /// Steps between progress lines in metrics.jsonl and, outside a terminal, on standard output.
    #[arg(long, alias = "logging-steps", default_value_t = ROUND, value_parser = whole(1..=MOST_STEPS))]
    log_steps: usize,
    /// Print only results.
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
    /// Print more: the shapes of the model's parameters.
    #[arg(short, long)]
    verbose: bool,
}

impl Shown {
    /// From now on, prints that much.
    pub fn begin(&self) {
        set_verbosity(self.quiet, self.verbose);
    }
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
        let Some(trained) = trained.filter(|_| same) else {
            return Ok(false);
        };
        if let Some(missing) = self.files.iter().find(|file| !self.out.join(file).is_file()) {
            let out = self.out.display();
            tell(format_args!("{out} has no {missing}, so its model is trained again"));
            return Ok(false);
        }
        // A process that ended between the two left them.
        let _lock = Lock::take(&self.out.join("training"))?;
        self.clean()?;
        let (seconds, out) = (trained["seconds"].as_f64().unwrap_or_default(), self.out.display());
        print(format_args!(
            "{out} has the model of {}, trained in {seconds:.0} s; remove {} to train it again",
            counted(self.steps, "step"),
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
        if flags.exists() {
            // An earlier start may have been killed while it wrote the model.
            remove_strays_in(self.out);
        }
        // A folder that was moved is the same training.
        let own = without_place(self.flags.clone());
        let known = read_json::<Value>(&flags, "remove it")?.map(without_place);
        if known.is_some_and(|known| known != own) {
            return Err(format!(
                "{} has a training with other flags; choose another --out, or remove it",
                folder.display()
            ));
        }
        // What this training has not made is not its result.
        let trained = self.out.join(TRAINED);
        files::remove_file(&trained).map_err(|e| format!("cannot remove {}: {e}", trained.display()))?;
        write_json(&flags, &own)?;
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
            scales_loss: false,
            measured: self.measured,
            folder: &folder,
            label: format!("pretraining, {}", counted(self.steps, "step")),
            place: "pretraining".into(),
            log_steps: self.shown.log_steps,
            interrupter: &interrupter,
        };
        for param in site::params(&model) {
            detail(format_args!("  {}: {:?}", param.path, param.shape));
        }
        let adapted = AdapterConfig::full().init(model).map_err(|e| e.to_string())?;
        let valid = Arc::new(Ordered::new(none, self.batch_size, &devices[0].clone().inner()));
        let trained = session
            .train(adapted, objective, train, valid, devices)
            .map_err(|error| match error {
                RunError::Diverged(message) => {
                    let advice = message.replacen("lower learning_rate", "lower --learning-rate", 1);
                    format!("{advice}; no model was written")
                }
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

    /// Records that the model is written, removes the files that only an unfinished training needs, and says so.
    ///
    /// # Errors
    /// A file that cannot be written, a folder that cannot be removed.
    pub fn finish(&self, seconds: f64) -> Result<(), String> {
        write_json(
            &self.out.join(TRAINED),
            &json!({ "steps": self.steps, "seconds": seconds }),
        )?;
        self.clean()?;
        let (steps, out) = (counted(self.steps, "step"), self.out.display());
        print(format_args!("{steps} in {seconds:.0} s; written to {out}"))
    }

    fn clean(&self) -> Result<(), String> {
        remove_folder(&self.out.join("training/checkpoints"))
    }
}

/// Flags without where the training runs: one that was cut goes on in a folder that was moved and on another device.
fn without_place(mut flags: Value) -> Value {
    if let Some(flags) = flags.as_object_mut() {
        flags.remove("out");
        flags.remove("device");
    }
    flags
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        shown: Shown,
    }

    fn shown(args: &[&str]) -> Shown {
        let matches = Only::command().get_matches_from([&["pretrain"], args].concat());
        Only::from_arg_matches(&matches).unwrap().shown
    }

    fn pretraining<'a>(out: &'a Path, shown: &'a Shown) -> Pretraining<'a> {
        Pretraining {
            out,
            flags: json!({ "steps": 3, "out": out, "device": "flex" }),
            steps: 3,
            batch_size: 1,
            learning_rate: 1e-3,
            weight_decay: 0.0,
            beta_2: 0.9,
            max_grad_norm: 0.0,
            measured: Measured::Images,
            seed: 1,
            shown,
            files: &["config.json", "model.safetensors"],
        }
    }

    #[test]
    fn a_training_is_finished_once_all_files_of_its_model_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let shown = shown(&["--quiet", "--logging-steps", "7"]);
        assert_eq!(shown.log_steps, 7);
        let mut training = pretraining(folder.path(), &shown);
        assert!(!training.is_finished().unwrap());
        create_folder(&folder.path().join("training")).unwrap();
        write_json(&folder.path().join(FLAGS), &training.flags).unwrap();
        for file in training.files {
            assert!(!training.is_finished().unwrap(), "without {file}");
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        training.finish(1.0).unwrap();
        assert!(training.is_finished().unwrap());
        // The same on another device, but not with other flags.
        training.flags["device"] = json!("cuda");
        assert!(training.is_finished().unwrap());
        std::fs::remove_file(folder.path().join("config.json")).unwrap();
        assert!(!training.is_finished().unwrap());
        std::fs::write(folder.path().join("config.json"), "").unwrap();
        training.flags["steps"] = json!(4);
        assert!(!training.is_finished().unwrap());
    }
}
