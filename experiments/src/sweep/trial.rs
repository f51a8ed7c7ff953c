//! Trials: the trainings that a run folder consists of, in the order they are run.

use std::path::{Path, PathBuf};

use crate::run::{Outcome, write_json};
use crate::settings::Settings;
use crate::sweep::grid::{self, Tuned};

/// What a trial is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A point of the grid, judged on the validation pictures.
    Tune,
    /// The run that is reported.
    Final,
}

/// One training.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Task.
    pub task: String,
    /// Method.
    pub method: String,
    /// Peak learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// What it is for.
    pub stage: Stage,
}

/// A trial's result, beside its other files, written last: a folder that has it is finished.
const OUTCOME: &str = "outcome.json";

impl Trial {
    /// Its folder, relative to the run folder.
    pub fn folder(&self) -> PathBuf {
        let folder = Path::new(&self.task).join(&self.method);
        match self.stage {
            Stage::Final => folder,
            Stage::Tune => folder.join(format!("tune/lr-{:e}-wd-{:e}", self.lr, self.weight_decay)),
        }
    }

    /// What people read of it on the terminal.
    pub fn label(&self) -> String {
        match self.stage {
            Stage::Final => format!("{} with {}", self.task, self.method),
            Stage::Tune => format!(
                "{} with {}, lr {:e}, weight decay {:e}",
                self.task, self.method, self.lr, self.weight_decay
            ),
        }
    }

    /// True if it is finished.
    pub fn is_done(&self, out: &Path) -> bool {
        out.join(self.folder()).join(OUTCOME).is_file()
    }

    /// Keeps its result.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn finish(&self, out: &Path, result: &impl serde::Serialize) -> Result<(), String> {
        write_json(&out.join(self.folder()).join(OUTCOME), result)
    }

    /// Its result; `None` if it is not finished.
    ///
    /// # Errors
    /// A file that is damaged.
    pub fn result<T: serde::de::DeserializeOwned>(&self, out: &Path) -> Result<Option<T>, String> {
        let path = out.join(self.folder()).join(OUTCOME);
        match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|e| format!("{} is damaged ({e}); remove its folder", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        }
    }
}

/// The tuning trials of `task`; none without a sweep.
pub fn tuning(settings: &Settings, task: &str) -> Vec<Trial> {
    if !settings.sweep {
        return Vec::new();
    }
    let of_method = |method: &String| {
        let (task, method) = (task.to_string(), method.clone());
        grid::points(settings, &method)
            .into_iter()
            .map(move |(lr, weight_decay)| Trial {
                task: task.clone(),
                method: method.clone(),
                lr,
                weight_decay,
                stage: Stage::Tune,
            })
    };
    settings.method.iter().flat_map(of_method).collect()
}

/// The trials of `task` that are reported, one a method. In a sweep their learning rate and weight decay are those
/// that the finished tuning trials in `out` speak for; the choice and its grid are kept as tuning.json.
///
/// # Errors
/// A damaged result, a grid of which every run diverged.
pub fn finals(settings: &Settings, task: &str, out: &Path) -> Result<Vec<Trial>, String> {
    let mut trials = Vec::new();
    for method in &settings.method {
        let (mut lr, mut weight_decay) = settings.rates(method);
        if settings.sweep {
            let mut tuned: Vec<Tuned> = Vec::new();
            for trial in tuning(settings, task).iter().filter(|trial| trial.method == *method) {
                let Some(result) = trial.result(out)? else { break };
                tuned.push(result);
            }
            if tuned.len() < grid::points(settings, method).len() {
                continue; // not tuned yet
            }
            let best = grid::choose(&tuned).ok_or_else(|| {
                format!("task {task}, method {method}: every run of the grid diverged; give smaller sweep_lr")
            })?;
            (lr, weight_decay) = (best.lr, best.weight_decay);
            let kept = serde_json::json!({ "chosen": best, "grid": tuned });
            write_json(&out.join(task).join(method).join("tuning.json"), &kept)?;
        }
        trials.push(Trial {
            task: task.to_string(),
            method: method.clone(),
            lr,
            weight_decay,
            stage: Stage::Final,
        });
    }
    Ok(trials)
}

/// The outcomes of the finished final trials of all `tasks`, in their order.
///
/// # Errors
/// A damaged result.
pub fn outcomes(settings: &Settings, tasks: &[String], out: &Path) -> Result<Vec<Outcome>, String> {
    let mut found = Vec::new();
    for task in tasks {
        for trial in finals(settings, task, out)? {
            found.extend(trial.result(out)?);
        }
    }
    Ok(found)
}
