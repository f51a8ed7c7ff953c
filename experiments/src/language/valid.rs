//! Questions that are answered again and again while a model trains: how far it is.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use backbones::lm::Decoder;
use burn::module::Module;
use serde::{Deserialize, Serialize};
use wegeft::Adapted;

use crate::cli::interrupt::Interrupter;
use crate::cli::output::tell;
use crate::language::evaluation::{Answering, Score};
use crate::language::judge::Asked;
use crate::language::model::Lm;
use crate::language::settings::Evaluation;
use crate::run::files::{create_folder, read_json, write_sealed};
use crate::run::outcome::RunError;
use crate::train::memory_log::MemoryLog;

/// Folder, in a trial's, of the answers: STEP.jsonl, and what they come to in STEP.json.
const FOLDER: &str = "valid";

/// What the answers after some steps come to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Validated {
    /// Part of them that is right, 0 to 1.
    pub accuracy: f64,
    /// Seconds that the answers took.
    pub seconds: f64,
    /// Mean memory after the steps since the last time, MB.
    pub memory_mb: Option<f64>,
}

impl Validated {
    /// Of the training in `folder`, after `step` steps, if questions were answered then.
    ///
    /// # Errors
    /// A damaged file.
    pub fn read(folder: &Path, step: usize) -> Result<Option<Self>, String> {
        read_json(&folder.join(FOLDER).join(format!("{step}.json")), "remove it")
    }
}

/// Asks a model in training.
pub struct Asking {
    /// What is asked.
    pub questions: Arc<Vec<Asked>>,
    /// Who tokenizes.
    pub lm: Arc<Lm>,
    /// How questions are answered.
    pub settings: Evaluation,
    /// Seed of what is drawn.
    pub seed: u64,
    /// Stops it.
    pub interrupter: Interrupter,
    /// The trial's folder.
    pub folder: PathBuf,
    /// Memory of the steps.
    pub log: MemoryLog,
    /// Steps between two times.
    pub every: usize,
    /// The first thing that went wrong.
    pub failure: Mutex<Option<RunError>>,
}

impl Asking {
    /// Answers, by the model as it is after `step` steps. What goes wrong stops the training, before another checkpoint: from
    /// a later one, the next start would not answer any more.
    pub fn look(&self, adapted: &Adapted<Decoder>, step: usize) {
        if let Err(error) = self.answer(adapted, step) {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert(error);
            self.interrupter.stop(Some("the questions cannot be answered"));
        }
    }

    /// What went wrong, if anything.
    pub fn failure(&self) -> Option<RunError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn answer(&self, adapted: &Adapted<Decoder>, step: usize) -> Result<(), RunError> {
        let start = Instant::now();
        let folder = self.folder.join(FOLDER);
        create_folder(&folder).map_err(RunError::Failed)?;
        let bound = adapted.valid().bind();
        let answering = Answering {
            model: &bound,
            lm: &self.lm,
            settings: &self.settings,
            seed: self.seed,
            interrupter: &self.interrupter,
        };
        let answers = answering.evaluate(&self.questions, &folder.join(format!("{step}.jsonl")))?;
        let accuracy = Score::of(&answers).accuracy;
        let seconds = start.elapsed().as_secs_f64();
        tell(format_args!(
            "  step {step} valid: {accuracy:.1} % of {} questions in {seconds:.1} s",
            answers.len()
        ));
        let validated = Validated {
            accuracy: accuracy / 100.0,
            seconds,
            memory_mb: self.log.mean_of_last(self.every),
        };
        write_sealed(&folder.join(format!("{step}.json")), &validated).map_err(RunError::Failed)
    }
}
