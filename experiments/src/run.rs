//! One trial from start to end: trained, tested and saved, or judged as a point of a grid.

use std::path::Path;
use std::time::Instant;

use backbones::{Pretrained, Vit};
use burn::tensor::Device;
use burn::train::Interrupter;
use serde::{Deserialize, Serialize};
use wegeft::storage::write_then_rename;

use crate::batches::Pictures;
use crate::description::Description;
use crate::memory::peak_mb;
use crate::prepared::Prepared;
use crate::samples::samples;
use crate::settings::Settings;
use crate::sweep::Trial;
use crate::sweep::grid::{Tuned, best_epoch};
use crate::training::{Trained, train};

/// One line of summary.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Program.
    pub experiment: String,
    /// Task.
    pub task: String,
    /// VTAB's group of the task.
    pub group: String,
    /// Method.
    pub method: String,
    /// Trainable values, the head left out.
    pub trainable_params: usize,
    /// Of the frozen values, percent.
    pub percent_trainable: f64,
    /// Name of `value`.
    pub metric: String,
    /// Test top-1, percent, after the last epoch.
    pub value: f64,
    /// Validation top-1, percent; absent if the validation pictures were trained on.
    pub validation: Option<f64>,
    /// Wall time of training and evaluation, all sessions of a resumed run together.
    pub seconds: f64,
    /// Optimizer steps a second of the last session, evaluation included.
    pub steps_per_second: f64,
    /// Peak memory during the run, MB: what a GPU's allocator held at its end, or the resident memory of the process (where the system cannot start
    /// its peak anew, since the process began).
    #[serde(alias = "peak_rss_mb")] // as earlier runs wrote it
    pub peak_mb: Option<f64>,
    /// Peak learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Seed.
    pub seed: u64,
}

/// Why a run gave no outcome.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Ctrl-C.
    #[error("interrupted; what was finished is kept, the same command goes on from there")]
    Interrupted,
    /// A loss that is not a number.
    #[error("{0}")]
    Diverged(String),
    /// Anything else, in one sentence.
    #[error("{0}")]
    Failed(String),
}

/// What every run of a program shares.
pub struct Setting<'a> {
    /// Program.
    pub experiment: &'static str,
    /// The settings.
    pub settings: &'a Settings,
    /// The backbone, on `device`.
    pub backbone: &'a Pretrained,
    /// With autodiff.
    pub device: &'a Device,
    /// Stops the run.
    pub interrupter: &'a Interrupter,
}

/// Trains the backbone on `task`, tests it and saves adapter and sample predictions into `folder`. A folder with
/// checkpoints of the same trial goes on after the last one, with the numbers that the uncut run would have had.
///
/// # Errors
/// An impossible adapter, a loss that is not a number, an interruption, a folder that cannot be written.
pub fn run(setting: &Setting, task: &Prepared, trial: &Trial, folder: &Path) -> Result<Outcome, RunError> {
    let failed = |message: String| RunError::Failed(format!("task {}, method {}: {message}", task.name, trial.method));
    let stopped = |message: String| match setting.interrupter.should_stop() {
        true => RunError::Interrupted,
        false => failed(message),
    };
    let Trained {
        model,
        valid,
        steps,
        clock,
        summary,
    } = train(setting, task, trial, folder)?;
    let settings = setting.settings;
    let device = setting.device.clone().inner();
    let bound = model.bind();
    let value = top1(&bound, &task.test, setting.interrupter, &device).map_err(stopped)?;
    let validation = match settings.final_run {
        true => None,
        false => Some(top1(&bound, &valid, setting.interrupter, &device).map_err(stopped)?),
    };
    let samples = samples(&bound, &task.test, &task.classes, 12, &device).map_err(failed)?;
    write_json(&folder.join("samples.json"), &samples).map_err(failed)?;
    let adapter = folder.join("adapter");
    model.save(&adapter).map_err(|e| failed(e.to_string()))?;
    Description {
        backbone: settings.backbone.clone(),
        image_size: setting.backbone.config.image_size,
        resize: task.test.images.resize,
        classes: task.classes.clone(),
    }
    .write(&adapter)
    .map_err(failed)?;
    let full = trial.method == "full";
    Ok(Outcome {
        experiment: setting.experiment.into(),
        task: task.name.clone(),
        group: task.group.clone(),
        method: trial.method.clone(),
        trainable_params: if full {
            summary.saved_params
        } else {
            summary.adapter_params
        },
        percent_trainable: if full { 100.0 } else { summary.percent() },
        metric: "top1".into(),
        value,
        validation,
        seconds: clock.total(),
        steps_per_second: steps as f64 / clock.session(),
        peak_mb: peak_mb(&device),
        lr: trial.lr,
        weight_decay: trial.weight_decay,
        seed: settings.seed,
    })
}

/// Trains the backbone on `task` at one point of the grid, to its best validation accuracy over the epochs. A
/// diverged training is a result too. Its checkpoints are removed when it is finished.
///
/// # Errors
/// As [`run`], a loss that is not a number excepted.
pub fn tune(setting: &Setting, task: &Prepared, trial: &Trial, folder: &Path) -> Result<Tuned, RunError> {
    let start = Instant::now();
    let (validation, epoch, seconds) = match train(setting, task, trial, folder) {
        Ok(trained) => {
            let (validation, epoch) = best_epoch(&folder.join("metrics.jsonl")).unwrap_or_default();
            (validation, epoch, trained.clock.total())
        }
        Err(RunError::Diverged(_)) => (0.0, 0, start.elapsed().as_secs_f64()),
        Err(error) => return Err(error),
    };
    let checkpoints = folder.join("checkpoints");
    std::fs::remove_dir_all(&checkpoints)
        .map_err(|e| RunError::Failed(format!("cannot remove {}: {e}", checkpoints.display())))?;
    Ok(Tuned {
        lr: trial.lr,
        weight_decay: trial.weight_decay,
        validation,
        epoch,
        seconds,
    })
}

/// Percent of pictures whose most likely class is their label.
fn top1(model: &Vit, pictures: &Pictures, interrupter: &Interrupter, device: &Device) -> Result<f64, String> {
    let mut right = 0;
    for batch in pictures.loader(100, device).iter() {
        if interrupter.should_stop() {
            return Err("interrupted".into());
        }
        let batch = batch.map_err(|e| e.to_string())?;
        let logits = batch.input.logits(model);
        if logits.clone().is_nan().any().into_scalar::<bool>() {
            return Err("the trained model gives logits that are not numbers; lower lr".into());
        }
        let count = batch.labels.dims()[0];
        right += logits
            .argmax(1)
            .reshape([count])
            .equal(batch.labels)
            .int()
            .sum()
            .into_scalar::<i64>();
    }
    Ok(100.0 * right as f64 / pictures.images.len() as f64)
}

/// Writes `value` as JSON, beside `path` first, then renamed.
///
/// # Errors
/// A file that cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), String> {
    let text = serde_json::to_string_pretty(value).map_err(|e| e.to_string())?;
    write_then_rename(path, text.as_bytes()).map_err(|e| e.to_string())
}
