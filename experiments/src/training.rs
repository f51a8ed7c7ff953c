//! The training of one trial, through burn-train.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use backbones::Vit;
use burn::module::Module;
use burn::optim::AdamWConfig;
use burn::tensor::Device;
use burn::train::checkpoint::KeepLastNCheckpoints;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{Learner, SupervisedTraining};
use datasets::Resize;
use wegeft::{Adapted, Summary};

use crate::batches::Pictures;
use crate::checkpoints::{self, RecordFiles};
use crate::classifier::{checkpointed_step, cross_entropy, step};
use crate::clock::Clock;
use crate::launch::{launch, renderer};
use crate::memory::reset_peak;
use crate::methods;
use crate::metrics_file::{MetricsFile, NOT_A_NUMBER};
use crate::output::tell;
use crate::prefix::{self, Prefix};
use crate::prepared::Prepared;
use crate::run::{RunError, Setting};
use crate::schedule::PerEpoch;
use crate::sweep::{Stage, Trial};

/// What a training leaves behind.
pub struct Trained {
    /// The adapted backbone, without autodiff.
    pub model: Adapted<Vit>,
    /// The validation pictures, as the training read them.
    pub valid: Pictures,
    /// Steps taken, those before a resumption left out.
    pub steps: usize,
    /// Wall time, which goes on.
    pub clock: Clock,
    /// Counts.
    pub summary: Summary,
}

/// Trains the backbone on `task`; metrics.jsonl and checkpoints/ go into `folder`, which may hold checkpoints of the
/// same trial to go on after.
///
/// # Errors
/// An impossible adapter, a loss that is not a number, an interruption, a folder that cannot be written.
pub fn train(setting: &Setting, task: &Prepared, trial: &Trial, folder: &Path) -> Result<Trained, RunError> {
    let Setting {
        settings,
        backbone,
        device,
        interrupter,
        ..
    } = *setting;
    let place = format!("task {}, method {}", task.name, trial.method);
    let failed = |message: String| RunError::Failed(format!("{place}: {message}"));
    device.seed(settings.seed);
    reset_peak(device);
    let adapter = methods::adapter(settings, &trial.method).map_err(failed)?;
    let adapter = methods::fitted(adapter, &backbone.config);
    let model = backbone.model.clone().with_head(task.classes.len(), device);
    let mut adapted = adapter.init(model).map_err(|e| failed(e.to_string()))?;
    let summary = adapted.summary();
    if trial.stage == Stage::Final {
        // Groups and totals; the sites of a group are those that target_modules says.
        let text = summary.to_string();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with(' ')).collect();
        tell(format_args!("{}: {}", trial.label(), lines.join("; ")));
    }
    let checkpoints = folder.join("checkpoints");
    std::fs::create_dir_all(&checkpoints).map_err(|e| failed(format!("cannot make {}: {e}", checkpoints.display())))?;
    let record = |name: &'static str| RecordFiles::new(&checkpoints, name);
    let epochs = match trial.stage {
        Stage::Tune => settings.tune_epochs.unwrap_or(settings.epochs),
        Stage::Final => settings.epochs,
    };
    let mut epochs_done = 0;
    if let Some((epoch, model)) = checkpoints::last_whole(&checkpoints).map_err(failed)? {
        // The optimizer's record knows parameters by the ids in the model's record: those must be in place
        // before the groups below are made of them.
        adapted = adapted.try_load_record(model).map_err(|e| {
            failed(format!(
                "{} does not fit the model ({e}); remove its folder to start anew",
                record("model").path(epoch).display()
            ))
        })?;
        epochs_done = epoch.min(epochs);
    }
    let clock = Clock::open(folder, epochs_done > 0);
    let plain_device = device.clone().inner();
    let [mut train, valid] =
        pictures(setting, task, &adapted, &plain_device).map_err(|message| match interrupter.should_stop() {
            true => RunError::Interrupted,
            false => failed(message),
        })?;
    if settings.final_run && trial.stage == Stage::Final {
        train = train.joined(&valid);
    }
    train = train.augmented(settings.augment(), task.classes.len());
    let steps_per_epoch = train.images.len().div_ceil(settings.batch_size);
    let optimizer = adapted.optimizer(trial.weight_decay as f32, None, |decay| {
        AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(decay).build()
    });
    let schedule = adapted.learning_rates(PerEpoch {
        peak: trial.lr,
        epochs: settings.epochs,
        steps_per_epoch,
        step: 0,
    });
    let bad_step = Arc::new(Mutex::new(None));
    let terminal = std::io::stdout().is_terminal();
    let metrics = MetricsFile::open(
        &folder.join("metrics.jsonl"),
        epochs_done,
        interrupter.clone(),
        bad_step.clone(),
        clock.clone(),
        terminal,
    )
    .map_err(failed)?;
    let mut training = SupervisedTraining::new(
        folder,
        train.shuffled(settings.batch_size, settings.seed, epochs_done..epochs, device),
        valid.loader(100, &plain_device),
    )
    .metrics((AccuracyMetric::new(), LossMetric::new()))
    .with_custom_checkpointers(record("model"), record("optim"), record("scheduler"))
    // Two, so that a whole one is left if the program is killed while the next one is written.
    .with_checkpointing_strategy(KeepLastNCheckpoints::new(2))
    .with_application_logger(None)
    .with_metric_logger(metrics)
    .with_interrupter(interrupter.clone())
    .label(&trial.label())
    .num_epochs(epochs);
    if epochs_done > 0 {
        training = training.checkpoint(epochs_done);
    }
    let training = training.renderer(renderer(terminal, interrupter, epochs_done));
    let one_step = if settings.gradient_checkpointing {
        checkpointed_step
    } else {
        step
    };
    let trainee = adapted.with_steps(one_step, |adapted, batch| cross_entropy(&adapted.bind(), batch).1);
    let learner = Learner::new(trainee, optimizer, schedule);
    let result = launch(&clock, || training.launch(learner))?;
    if let Some(step) = *bad_step.lock().unwrap_or_else(PoisonError::into_inner) {
        // The next trial may go on, unless the user wants to stop too.
        if interrupter.get_message().as_deref() == Some(NOT_A_NUMBER) {
            interrupter.reset();
        }
        return Err(RunError::Diverged(format!(
            "{place}: the loss is not a number at step {step}; lower lr (the last good checkpoint is kept)"
        )));
    }
    if let Some(error) = result.error {
        return Err(failed(checkpoints::sentence(&error)));
    }
    if result.interrupted.is_some() {
        return Err(RunError::Interrupted);
    }
    Ok(Trained {
        model: result.model.adapted,
        valid,
        steps: (epochs - epochs_done) * steps_per_epoch,
        clock,
        summary,
    })
}

/// train800 and val200 as the training reads them: where the part of the backbone before everything that is trained
/// is the same at every step, what it makes of them.
fn pictures(
    setting: &Setting,
    task: &Prepared,
    adapted: &Adapted<Vit>,
    device: &Device,
) -> Result<[Pictures; 2], String> {
    let whole = || [task.train.clone(), task.valid.clone()];
    let random = setting.settings.drop_path > 0.0 || !setting.settings.augment().is_off();
    if random || task.train.images.resize == Resize::Crop {
        return Ok(whole());
    }
    let Some(prefix) = prefix::prefix(adapted) else {
        return Ok(whole());
    };
    if let Prefix::Blocks(_) = prefix {
        let config = &setting.backbone.config;
        let count = task.train.images.len() + task.valid.images.len();
        if count * config.tokens() * config.d_model * size_of::<f32>() > prefix::MOST_BYTES {
            return Ok(whole());
        }
    }
    task.through(prefix, &adapted.valid().bind(), setting.interrupter, device)
}
