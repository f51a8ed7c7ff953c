//! The training of one adapter, through burn-train.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use backbones::lm::Decoder;
use burn::module::Module;
use burn::optim::AdamWConfig;
use burn::store::ModuleRecord;
use burn::tensor::Device;
use burn::train::checkpoint::{ComposedCheckpointingStrategy, KeepLastNCheckpoints, MetricCheckpointingStrategy};
use burn::train::metric::store::{Aggregate, Direction, Split};
use burn::train::metric::{LearningRateMetric, LossMetric};
use burn::train::{Interrupter, Learner, SupervisedTraining};
use serde_json::Value;
use wegeft::{Adapted, Summary, site};

use crate::checkpoints::{self, RecordFiles};
use crate::clock::Clock;
use crate::language::batches::{Plan, Rounds, Sequence};
use crate::language::estimate::{BatchShape, Estimate, available_mb};
use crate::language::held_out::HeldOut;
use crate::language::model::Lm;
use crate::language::objective::Objective;
use crate::language::packing::pack;
use crate::language::schedule::{PerStep, Shape};
use crate::language::settings::Settings;
use crate::language::throughput::Throughput;
use crate::launch::{launch, renderer};
use crate::metrics_file::MetricsFile;
use crate::output::tell;
use crate::run::RunError;

/// What every training of a program shares.
pub struct Setting<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// The language model, on `device`.
    pub lm: &'a Lm,
    /// With autodiff.
    pub device: &'a Device,
    /// Stops the run.
    pub interrupter: &'a Interrupter,
}

/// What a training leaves behind.
pub struct Trained {
    /// The adapted model, without autodiff.
    pub adapted: Adapted<Decoder>,
    /// Counts.
    pub summary: Summary,
    /// Wall time of all sessions.
    pub seconds: f64,
    /// Tokens a second while training, padding included; absent if all of it was done in an earlier run.
    pub tokens_per_second: Option<f64>,
    /// Loss on the held-out examples, of the adapter that is kept.
    pub validation: Option<f64>,
}

/// Trains `adapted` on `sequences`; metrics.jsonl and checkpoints/ go into `folder`. A folder with checkpoints of the
/// same training goes on after the last one, with the numbers that the uncut one would have had.
///
/// # Errors
/// A batch that will not fit the memory, a loss that is not a number, an interruption, a folder that cannot be
/// written.
pub fn train(
    setting: &Setting,
    method: &str,
    mut adapted: Adapted<Decoder>,
    mut sequences: Vec<Sequence>,
    folder: &Path,
) -> Result<Trained, RunError> {
    let Setting {
        settings,
        device,
        interrupter,
        ..
    } = *setting;
    let failed = |message: String| RunError::Failed(format!("method {method}: {message}"));
    let held_out = (settings.validation * sequences.len() as f64).ceil() as usize;
    let valid = sequences.split_off(sequences.len() - held_out);
    if sequences.is_empty() {
        return Err(failed("validation leaves no example to train on; lower it".into()));
    }
    if settings.packing {
        let examples = sequences.len();
        sequences = pack(sequences, settings.max_length);
        tell(format_args!(
            "  {examples} examples packed into {} rows",
            sequences.len()
        ));
    }
    let summary = adapted.summary();
    check_memory(setting, &summary, &sequences).map_err(failed)?;
    let plan = Plan {
        batch_size: settings.batch_size,
        accumulation: settings.accumulation,
        epochs: settings.epochs,
        eval_steps: settings.eval_steps,
        seed: settings.seed,
    };
    let (steps, rounds) = (plan.steps(sequences.len()), plan.rounds(sequences.len()));
    let checkpoints = folder.join("checkpoints");
    std::fs::create_dir_all(&checkpoints).map_err(|e| failed(format!("cannot make {}: {e}", checkpoints.display())))?;
    let record = |name: &'static str| RecordFiles::new(&checkpoints, name);
    let mut done = 0;
    if let Some((round, model)) = checkpoints::last_whole(&checkpoints).map_err(failed)? {
        // The optimizer's record knows parameters by the ids in the model's record.
        let path = record("model").path(round);
        adapted = adapted.try_load_record(model).map_err(|e| {
            let path = path.display();
            failed(format!(
                "{path} does not fit the model ({e}); remove its folder to start anew"
            ))
        })?;
        done = round.min(rounds);
    }
    let clock = Clock::open(folder, done > 0);
    let optimizer = AdamWConfig::new()
        .with_epsilon(1e-8)
        .with_weight_decay(settings.weight_decay as f32)
        .init();
    let shape = Shape::named(&settings.lr_scheduler).map_err(failed)?;
    let schedule = PerStep::new(settings.learning_rate, settings.warmup_ratio, steps, shape);
    let bad_step = Arc::new(Mutex::new(None));
    let terminal = std::io::stdout().is_terminal();
    let metrics_path = folder.join("metrics.jsonl");
    let metrics = MetricsFile::open(
        &metrics_path,
        done,
        interrupter.clone(),
        bad_step.clone(),
        clock.clone(),
        terminal,
    );
    let lowest = MetricCheckpointingStrategy::new(&LossMetric::new(), Aggregate::Mean, Direction::Lowest, Split::Valid);
    // Two, so that a whole one is left if the program is killed while the next one is written.
    let last = KeepLastNCheckpoints::new(2);
    let mut training = SupervisedTraining::new(
        folder,
        Arc::new(Rounds::new(Arc::new(sequences), plan, done, device)),
        Arc::new(HeldOut::new(valid, settings.batch_size, &device.clone().inner())),
    )
    .metrics((LossMetric::new(),))
    .metric_train_numeric(Throughput::default())
    .metric_train_numeric(LearningRateMetric::new())
    .with_custom_checkpointers(record("model"), record("optim"), record("scheduler"))
    .with_application_logger(None)
    .with_metric_logger(metrics.map_err(failed)?)
    .with_interrupter(interrupter.clone())
    .label(&format!("{method}: {steps} steps"))
    .num_epochs(rounds);
    training = match settings.keep.as_str() {
        "best" => {
            training.with_checkpointing_strategy(ComposedCheckpointingStrategy::builder().add(last).add(lowest).build())
        }
        _ => training.with_checkpointing_strategy(last),
    };
    if done > 0 {
        training = training.checkpoint(done);
    }
    let training = training.renderer(renderer(terminal, interrupter, done));
    let objective = Objective {
        max_grad_norm: settings.max_grad_norm,
        checkpointing: settings.gradient_checkpointing,
    };
    let learner = Learner::new(objective.trainee(adapted), optimizer, schedule);
    let result = launch(&clock, || training.launch(learner))?;
    if let Some(step) = *bad_step.lock().unwrap_or_else(PoisonError::into_inner) {
        return Err(failed(format!(
            "the loss is not a number at step {step}; lower learning_rate (the last good checkpoint is kept)"
        )));
    }
    if let Some(error) = result.error {
        return Err(failed(checkpoints::sentence(&error)));
    }
    if result.interrupted.is_some() {
        return Err(RunError::Interrupted);
    }
    let mut adapted = result.model.adapted;
    let lines = read_metrics(&metrics_path);
    let losses = |split: &str, name: &str| -> Vec<(usize, f64)> {
        let of_split = lines.iter().filter(|line| line["split"] == *split);
        of_split
            .filter_map(|line| Some((line["epoch"].as_u64()? as usize, line[name].as_f64()?)))
            .collect()
    };
    let valid_losses = losses("valid", "loss");
    let best = valid_losses.iter().min_by(|a, b| a.1.total_cmp(&b.1));
    let mut validation = valid_losses.last().map(|(_, loss)| *loss);
    if let (Some((round, loss)), "best") = (best, settings.keep.as_str())
        && record("model").path(*round).is_file()
    {
        adapted = load(adapted, &record("model"), *round).map_err(failed)?;
        validation = Some(*loss);
    }
    let speeds = losses("train", "tokens per second");
    let speeds: Vec<f64> = speeds
        .iter()
        .filter(|(round, _)| *round > done)
        .map(|(_, speed)| *speed)
        .collect();
    Ok(Trained {
        adapted: adapted.valid(),
        summary,
        seconds: clock.total(),
        tokens_per_second: (!speeds.is_empty()).then(|| speeds.iter().sum::<f64>() / speeds.len() as f64),
        validation,
    })
}

fn load(adapted: Adapted<Decoder>, record: &RecordFiles, round: usize) -> Result<Adapted<Decoder>, String> {
    let path = record.path(round);
    let damaged = |e: String| format!("{} is damaged ({e}); remove its folder", path.display());
    let loaded = ModuleRecord::load(&path).map_err(|e| damaged(e.to_string()))?;
    adapted.try_load_record(loaded).map_err(|e| damaged(e.to_string()))
}

fn read_metrics(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Prints what the training will need, and refuses what does not fit.
fn check_memory(setting: &Setting, summary: &Summary, sequences: &[Sequence]) -> Result<(), String> {
    let settings = setting.settings;
    let batch = BatchShape {
        rows: settings.batch_size.min(sequences.len()),
        width: sequences.iter().map(|sequence| sequence.ids.len()).max().unwrap_or(0),
        checkpointing: settings.gradient_checkpointing,
        scores: !settings.device.starts_with("flex"),
    };
    let decoder = &setting.lm.pretrained.model;
    let params: usize = site::params(decoder).iter().map(site::ParamInfo::len).sum();
    let bytes = if settings.dtype == "f32" { 4 } else { 2 };
    let estimate = Estimate::new(decoder.config(), params, bytes, summary.trainable_params(), batch);
    tell(format_args!("  estimated memory: {} MB", estimate.total_mb()));
    // Another device has a memory of its own, which it does not tell.
    let is_host = matches!(settings.device.split(':').next(), Some("flex" | "ndarray"));
    // The weights are there already.
    let loaded = estimate.weights / 1_000_000;
    let free = available_mb().filter(|_| is_host).map(|mb| mb + loaded);
    estimate.check(settings.memory_limit.or(free), batch)
}
