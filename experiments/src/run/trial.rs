//! Trials: the trainings of a run folder, in the order in which they are run.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::run::files::{read_json, write_json, write_sealed};
use crate::run::grid::{self, Best, Tuned};
use crate::run::outcome::Outcome;

/// Purpose of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A point of the grid, judged on held-out data.
    Tune,
    /// The training that is reported.
    Final,
}

/// One training.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Task; empty if one training serves all test sets.
    pub task: String,
    /// Method.
    pub method: String,
    /// Peak learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Purpose.
    pub stage: Stage,
    /// Seed.
    pub seed: u64,
    /// True if the run folder has several seeds.
    pub several_seeds: bool,
}

/// A trial's result, written last: a trial whose folder contains it is finished.
const OUTCOME: &str = "outcome.json";

impl Trial {
    /// Its folder, relative to the run folder.
    pub fn folder(&self) -> PathBuf {
        let folder = Path::new(&self.task).join(&self.method);
        match self.stage {
            Stage::Final if self.several_seeds => folder.join(format!("seed-{}", self.seed)),
            Stage::Final => folder,
            Stage::Tune => folder.join(format!("tune/lr-{:e}-wd-{:e}", self.lr, self.weight_decay)),
        }
    }

    /// Its name on the terminal.
    pub fn label(&self) -> String {
        let mut label = match self.task.is_empty() {
            true => self.method.clone(),
            false => format!("{} with {}", self.task, self.method),
        };
        match self.stage {
            Stage::Final if self.several_seeds => label += &format!(", seed {}", self.seed),
            Stage::Final => {}
            Stage::Tune => {
                let decay = match self.weight_decay {
                    0.0 => "0".into(),
                    decay => format!("{decay:e}"),
                };
                label += &format!(", lr {:e}, weight decay {decay}", self.lr);
            }
        }
        label
    }

    /// Its name in messages.
    pub fn place(&self) -> String {
        let seed = match self.several_seeds && self.stage == Stage::Final {
            true => format!(", seed {}", self.seed),
            false => String::new(),
        };
        match self.task.is_empty() {
            true => format!("method {}{seed}", self.method),
            false => format!("task {}, method {}{seed}", self.task, self.method),
        }
    }

    /// True if it is finished.
    pub fn is_done(&self, out: &Path) -> bool {
        out.join(self.folder()).join(OUTCOME).is_file()
    }

    /// Saves its result.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn finish(&self, out: &Path, result: &impl serde::Serialize) -> Result<(), String> {
        write_sealed(&out.join(self.folder()).join(OUTCOME), result)
    }

    /// Its result; `None` if it is not finished.
    ///
    /// # Errors
    /// A file that is damaged.
    pub fn result<T: DeserializeOwned>(&self, out: &Path) -> Result<Option<T>, String> {
        read_json(&out.join(self.folder()).join(OUTCOME), "remove its folder")
    }

    /// Its outcomes; none if it is not finished.
    ///
    /// # Errors
    /// A file that is damaged.
    pub fn outcomes(&self, out: &Path) -> Result<Vec<Outcome>, String> {
        /// The result of a trial on one task, or on several test sets.
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Result {
            One(Box<Outcome>),
            Several(Vec<Outcome>),
        }
        Ok(match self.result::<Result>(out)? {
            Some(Result::One(outcome)) => vec![*outcome],
            Some(Result::Several(outcomes)) => outcomes,
            None => Vec::new(),
        })
    }
}

/// Which trials a run consists of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Tasks; a single one without a name if one training serves all test sets.
    pub tasks: Vec<String>,
    /// Methods and how each is trained.
    pub methods: Vec<Rates>,
    /// Seeds; a sweep is tuned with the first.
    pub seeds: Vec<u64>,
    /// Whether learning rate and weight decay are tuned first.
    pub sweep: bool,
    /// Whether the greatest or the lowest validation value is the best.
    pub best: Best,
}

/// The trials of a task that are reported.
#[derive(Debug, Default)]
pub struct Finals {
    /// Those whose learning rate and weight decay are known.
    pub trials: Vec<Trial>,
    /// What to say of each method without one, because every run of its grid diverged.
    pub diverged: Vec<String>,
}

/// A method's learning rate and weight decay.
#[derive(Debug, Clone)]
pub struct Rates {
    /// Name.
    pub method: String,
    /// Peak learning rate and weight decay without a sweep.
    pub fixed: (f64, f64),
    /// The points of a sweep.
    pub grid: Vec<(f64, f64)>,
}

impl Plan {
    fn trial(&self, task: &str, method: &str, (lr, weight_decay): (f64, f64), stage: Stage, seed: u64) -> Trial {
        Trial {
            task: task.into(),
            method: method.into(),
            lr,
            weight_decay,
            stage,
            seed,
            several_seeds: self.seeds.len() > 1,
        }
    }

    /// The tuning trials of `task`; none without a sweep or for a method that has no grid.
    pub fn tuning(&self, task: &str) -> Vec<Trial> {
        if !self.sweep {
            return Vec::new();
        }
        let of_method = |rates: &Rates| -> Vec<Trial> {
            let point = |point: &(f64, f64)| self.trial(task, &rates.method, *point, Stage::Tune, self.seeds[0]);
            rates.grid.iter().map(point).collect()
        };
        self.methods.iter().flat_map(of_method).collect()
    }

    /// The trials of `task` that are reported, one per method and seed. In a sweep, the finished tuning trials in `out`
    /// determine their learning rate and weight decay; the choice and its grid are saved as tuning.json.
    ///
    /// # Errors
    /// A damaged result.
    pub fn finals(&self, task: &str, out: &Path) -> Result<Finals, String> {
        let tuning = self.tuning(task);
        let mut finals = Finals::default();
        for Rates { method, fixed, grid } in &self.methods {
            let mut rates = *fixed;
            if self.sweep && !grid.is_empty() {
                let mut tuned: Vec<Tuned> = Vec::new();
                for trial in tuning.iter().filter(|trial| trial.method == *method) {
                    let Some(result) = trial.result(out)? else { break };
                    tuned.push(result);
                }
                if tuned.len() < grid.len() {
                    continue; // not tuned yet
                }
                let Some(best) = grid::choose(&tuned, self.best) else {
                    let task = match task {
                        "" => String::new(),
                        task => format!("task {task}, "),
                    };
                    let message = "every run of the grid diverged; give smaller sweep_lr";
                    finals.diverged.push(format!("{task}method {method}: {message}"));
                    continue;
                };
                rates = (best.lr, best.weight_decay);
                let kept = serde_json::json!({ "chosen": best, "grid": tuned });
                write_json(&out.join(task).join(method).join("tuning.json"), &kept)?;
            }
            let of_seed = |seed: &u64| self.trial(task, method, rates, Stage::Final, *seed);
            finals.trials.extend(self.seeds.iter().map(of_seed));
        }
        Ok(finals)
    }
}
