//! One run: one task, one method, through burn-train.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use backbones::{Pretrained, Vit};
use burn::module::{Module, ParamGroup};
use burn::optim::AdamWConfig;
use burn::store::ModuleRecord;
use burn::tensor::Device;
use burn::train::checkpoint::KeepLastNCheckpoints;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{Interrupter, Learner, SupervisedTraining};
use datasets::{Resize, Task};
use serde::{Deserialize, Serialize};
use wegeft::site;
use wegeft::storage::write_then_rename;

use crate::batches::{Input, Pictures};
use crate::checkpoints::{self, RecordFiles};
use crate::classifier::Classifier;
use crate::description::Description;
use crate::memory::peak_rss_mb;
use crate::metrics_file::MetricsFile;
use crate::plain::Plain;
use crate::samples::samples;
use crate::schedule::PerEpoch;
use crate::settings::Settings;

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
    /// Wall time of training and evaluation.
    pub seconds: f64,
    /// Optimizer steps a second, evaluation included.
    pub steps_per_second: f64,
    /// Peak resident memory of the process so far, MB.
    pub peak_rss_mb: Option<f64>,
    /// Seed.
    pub seed: u64,
}

/// Why a run gave no outcome.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Ctrl-C.
    #[error("interrupted; what was finished is kept, the same command goes on from there")]
    Interrupted,
    /// Anything else, in one sentence.
    #[error("{0}")]
    Failed(String),
}

/// What every run of a program shares.
pub struct Setting<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// The backbone, on `device`.
    pub backbone: &'a Pretrained,
    /// With autodiff.
    pub device: &'a Device,
    /// Stops the run.
    pub interrupter: &'a Interrupter,
}

/// Trains the backbone on `task` with `method`; files go into `folder`. A folder with checkpoints of the same
/// run goes on after the last one, with the numbers that the uncut run would have had.
///
/// # Errors
/// An impossible adapter, a loss that is not a number, an interruption, a folder that cannot be written.
pub fn run(setting: &Setting, task: &Task, method: &str, folder: &Path) -> Result<Outcome, RunError> {
    let Setting {
        settings,
        backbone,
        device,
        interrupter,
    } = *setting;
    let failed = |message: String| RunError::Failed(format!("task {}, method {method}: {message}", task.name));
    let start = Instant::now();
    device.seed(settings.seed);
    let adapter = settings.adapter(method).map_err(failed)?;
    let model = backbone.model.clone().with_head(task.classes.len(), device);
    let mut adapted = adapter.init(model).map_err(|e| failed(e.to_string()))?;
    let summary = adapted.summary();
    let checkpoints = folder.join("checkpoints");
    std::fs::create_dir_all(&checkpoints).map_err(|e| failed(format!("cannot make {}: {e}", checkpoints.display())))?;
    let record = |name: &'static str| RecordFiles::new(&checkpoints, name);
    let epochs_done = checkpoints::last_epoch(&checkpoints).unwrap_or(0).min(settings.epochs);
    if epochs_done > 0 {
        // The optimizer's record knows parameters by the ids in the model's record: those must be in place
        // before the groups below are made of them.
        let path = record("model").path(epochs_done);
        let damaged = |e: String| failed(format!("{} is damaged ({e}); remove its folder", path.display()));
        let loaded = ModuleRecord::load(&path).map_err(|e| damaged(e.to_string()))?;
        adapted = adapted.try_load_record(loaded).map_err(|e| damaged(e.to_string()))?;
    }
    let normalization = backbone.normalization;
    let train = match settings.final_run {
        true => task.train.joined(&task.valid),
        false => task.train.clone(),
    };
    let mut train = Pictures::new(train, normalization);
    let mut valid = Pictures::new(task.valid.clone(), normalization);
    let mut test = Pictures::new(task.test.clone(), normalization);
    let plain_device = device.clone().inner();
    let fixed = settings.drop_path == 0.0 && task.train.resize != Resize::Crop;
    let frozen = adapted.bank().factors.is_empty() && method == "linear" && fixed;
    if frozen {
        // Nothing before the head changes: its input is computed once.
        let model = adapted.valid().bind();
        let features = |pictures: Pictures| pictures.with_features(&model, &plain_device).map_err(failed);
        (train, valid, test) = (features(train)?, features(valid)?, features(test)?);
    }
    let steps_per_epoch = train.images.len().div_ceil(settings.batch_size);
    // Decay on matrices only: not on biases, norms and other 1-D parameters (protocol section 2.2).
    let plain = ParamGroup::from_ids(
        site::params(&adapted)
            .iter()
            .filter(|p| p.shape.len() < 2)
            .map(|p| p.id)
            .collect(),
    );
    let adamw = AdamWConfig::new().with_epsilon(1e-8);
    let optimizer = adamw
        .clone()
        .with_weight_decay(settings.weight_decay as f32)
        .init()
        .with_group(plain, adamw.with_weight_decay(0.0).build(), None);
    let schedule = PerEpoch {
        peak: settings.lr,
        epochs: settings.epochs,
        steps_per_epoch,
        step: 0,
    };
    let bad_step = Arc::new(Mutex::new(None));
    let terminal = std::io::stdout().is_terminal();
    let metrics = MetricsFile::open(
        &folder.join("metrics.jsonl"),
        epochs_done,
        interrupter.clone(),
        bad_step.clone(),
        terminal,
    )
    .map_err(failed)?;
    let mut training = SupervisedTraining::new(
        folder,
        train.shuffled(settings.batch_size, settings.seed, epochs_done, device),
        valid.loader(100, &plain_device),
    )
    .metrics((AccuracyMetric::new(), LossMetric::new()))
    .with_custom_checkpointers(record("model"), record("optim"), record("scheduler"))
    // Two, so that a whole one is left if the program is killed while the next one is written.
    .with_checkpointing_strategy(KeepLastNCheckpoints::new(2))
    .with_application_logger(None)
    .with_metric_logger(metrics)
    .with_interrupter(interrupter.clone())
    .label(&format!("{} with {method}", task.name))
    .num_epochs(settings.epochs);
    if epochs_done > 0 {
        training = training.checkpoint(epochs_done);
    }
    if !terminal {
        training = training.renderer(Box::new(Plain));
    }
    let result = training.launch(Learner::new(Classifier(adapted), optimizer, schedule));
    if let Some(step) = *bad_step.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        return Err(failed(format!(
            "the loss is not a number at step {step}; lower lr (the last good checkpoint is kept)"
        )));
    }
    if let Some(error) = result.error {
        return Err(failed(error.to_string()));
    }
    if result.interrupted.is_some() {
        return Err(RunError::Interrupted);
    }
    let model = result.model.0;
    let bound = model.bind();
    let value = top1(&bound, &test, &plain_device).map_err(failed)?;
    let validation = match settings.final_run {
        true => None,
        false => Some(top1(&bound, &valid, &plain_device).map_err(failed)?),
    };
    let samples = samples(&bound, &test, &task.classes, 12, &plain_device).map_err(failed)?;
    write_json(&folder.join("samples.json"), &samples).map_err(failed)?;
    let adapter = folder.join("adapter");
    model.save(&adapter).map_err(|e| failed(e.to_string()))?;
    Description {
        backbone: settings.backbone.clone(),
        image_size: backbone.config.image_size,
        resize: task.test.resize,
        classes: task.classes.clone(),
    }
    .write(&adapter)
    .map_err(failed)?;
    let seconds = start.elapsed().as_secs_f64();
    let steps = (settings.epochs - epochs_done) * steps_per_epoch;
    Ok(Outcome {
        experiment: "vtab".into(),
        task: task.name.clone(),
        group: task.group.clone(),
        method: method.into(),
        trainable_params: match method {
            "full" => summary.saved_params,
            _ => summary.adapter_params,
        },
        percent_trainable: if method == "full" { 100.0 } else { summary.percent() },
        metric: "top1".into(),
        value,
        validation,
        seconds,
        steps_per_second: steps as f64 / seconds,
        peak_rss_mb: peak_rss_mb(),
        seed: settings.seed,
    })
}

/// Percent of pictures whose most likely class is their label.
fn top1(model: &Vit, pictures: &Pictures, device: &Device) -> Result<f64, String> {
    let mut right = 0;
    for batch in pictures.loader(100, device).iter() {
        let batch = batch.map_err(|e| e.to_string())?;
        let logits = match batch.input {
            Input::Pixels(pixels) => model.forward(pixels),
            Input::Features(features) => model.classify(features),
        };
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
