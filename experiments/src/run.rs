//! One run: one task, one method, through burn-train.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use backbones::Vit;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::module::ParamGroup;
use burn::optim::AdamWConfig;
use burn::tensor::Device;
use burn::train::checkpoint::KeepLastNCheckpoints;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{Interrupter, Learner, SupervisedTraining};
use datasets::{Images, Task};
use serde::{Deserialize, Serialize};
use wegeft::site;

use crate::batches::{Batch, Indices, PictureBatcher};
use crate::classifier::Classifier;
use crate::memory::peak_rss_mb;
use crate::metrics_file::MetricsFile;
use crate::plain::Plain;
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

/// Trains `backbone` on `task` with `method`; files go into `folder`.
///
/// # Errors
/// An impossible adapter, a loss that is not a number, an interruption, a folder that cannot be written.
pub fn run(
    settings: &Settings,
    task: &Task,
    method: &str,
    backbone: &Vit,
    device: &Device,
    folder: &Path,
    interrupter: &Interrupter,
) -> Result<Outcome, RunError> {
    let failed = |message: String| RunError::Failed(format!("task {}, method {method}: {message}", task.name));
    let start = Instant::now();
    device.seed(settings.seed);
    let adapter = settings.adapter(method).map_err(failed)?;
    let model = backbone.clone().with_head(task.classes, device);
    let adapted = adapter.init(model).map_err(|e| failed(e.to_string()))?;
    let summary = adapted.summary();
    let train = if settings.final_run {
        task.train.joined(&task.valid)
    } else {
        task.train.clone()
    };
    let steps_per_epoch = train.len().div_ceil(settings.batch_size);
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
    let valid = Arc::new(task.valid.clone());
    std::fs::create_dir_all(folder).map_err(|e| failed(format!("cannot make {}: {e}", folder.display())))?;
    let bad_step = Arc::new(Mutex::new(None));
    let terminal = std::io::stdout().is_terminal();
    let metrics_path = folder.join("metrics.jsonl");
    let metrics = MetricsFile::open(&metrics_path, interrupter.clone(), bad_step.clone(), terminal).map_err(failed)?;
    let mut training = SupervisedTraining::new(
        folder,
        loader(Arc::new(train), settings.batch_size, Some(settings.seed), device),
        loader(valid.clone(), 100, None, &device.clone().inner()),
    )
    .metrics((AccuracyMetric::new(), LossMetric::new()))
    .with_default_checkpointers()
    .with_checkpointing_strategy(KeepLastNCheckpoints::new(1))
    .with_application_logger(None)
    .with_metric_logger(metrics)
    .with_interrupter(interrupter.clone())
    .label(&format!("{} with {method}", task.name))
    .num_epochs(settings.epochs);
    if !terminal {
        training = training.renderer(Box::new(Plain));
    }
    let result = training.launch(Learner::new(Classifier(adapted), optimizer, schedule));
    if let Some(step) = *bad_step.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        return Err(failed(format!(
            "the loss is not a number at step {step}; lower lr (the last checkpoint is kept)"
        )));
    }
    if let Some(error) = result.error {
        return Err(failed(error.to_string()));
    }
    if result.interrupted.is_some() {
        return Err(RunError::Interrupted);
    }
    let model = result.model.0;
    let test = top1(&model.bind(), &Arc::new(task.test.clone()), device).map_err(failed)?;
    let validation = match settings.final_run {
        true => None,
        false => Some(top1(&model.bind(), &valid, device).map_err(failed)?),
    };
    model.save(folder.join("adapter")).map_err(|e| failed(e.to_string()))?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Outcome {
        experiment: "vtab".into(),
        task: task.name.clone(),
        group: task.group.clone(),
        method: method.into(),
        trainable_params: if method == "full" {
            summary.saved_params
        } else {
            summary.adapter_params
        },
        percent_trainable: if method == "full" { 100.0 } else { summary.percent() },
        metric: "top1".into(),
        value: test,
        validation,
        seconds,
        steps_per_second: (steps_per_epoch * settings.epochs) as f64 / seconds,
        peak_rss_mb: peak_rss_mb(),
        seed: settings.seed,
    })
}

fn loader(images: Arc<Images>, batch_size: usize, shuffle: Option<u64>, device: &Device) -> Arc<dyn DataLoader<Batch>> {
    let count = images.len();
    let mut builder = DataLoaderBuilder::new(PictureBatcher(images))
        .batch_size(batch_size)
        .set_device(device.clone());
    if let Some(seed) = shuffle {
        builder = builder.shuffle(seed);
    }
    builder.build(Indices(count))
}

/// Percent of pictures whose most likely class is their label.
fn top1(model: &Vit, images: &Arc<Images>, device: &Device) -> Result<f64, String> {
    let mut right = 0;
    for batch in loader(images.clone(), 100, None, &device.clone().inner()).iter() {
        let batch = batch.map_err(|e| e.to_string())?;
        let logits = model.forward(batch.pixels);
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
    Ok(100.0 * right as f64 / images.len() as f64)
}
