//! The training of one adapted model of any kind, through burn-train.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use burn::data::dataloader::DataLoader;
use burn::module::{Module, ModuleDisplay};
use burn::optim::AdamWConfig;
use burn::store::ModuleRecord;
use burn::tensor::Device;
use burn::train::metric::{AccuracyMetric, LearningRateMetric, LossMetric};
use burn::train::{Interrupter, Learner, SupervisedTraining};
use datasets::glue;
use wegeft::Adapted;

use crate::cli::device::computes_at_once;
use crate::cli::output::{counted, note, tell};
use crate::run::clock::Clock;
use crate::run::files::create_folder;
use crate::run::grid::{Best, round_name};
use crate::run::outcome::RunError;
use crate::train::checkpoints::{self, Beside, LastTwo, RecordFiles};
use crate::train::dashboard;
use crate::train::devices::Team;
use crate::train::health::Health;
use crate::train::launch::{launch, renderer};
use crate::train::loss_scale::LossScale;
use crate::train::metrics_file::{Log, MetricsFile, NOT_A_NUMBER};
use crate::train::ranks::Ranks;
use crate::train::schedule::Rates;
use crate::train::score::Score;
use crate::train::settings::{Keep, Training};
use crate::train::step::{Objective, Reduction, train_step, valid_step};
use crate::train::stream::{Plan, Rounds, Source, Step};
use crate::train::tensors::{first_not_finite_of, first_not_finite_weight, trained};
use crate::train::throughput::Throughput;
use crate::train::traffic::Traffic;
use crate::train::watch::SharedWatch;

/// The metrics of a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measured {
    /// Accuracy and images per second.
    Images,
    /// Loss and tokens per second.
    Tokens,
    /// A metric over all held-out texts, loss and tokens per second.
    Texts(glue::Metric),
}

impl Measured {
    /// The metric by which evaluations are judged, by its name in metrics.jsonl, and whether higher or lower values are
    /// better.
    pub fn judged_by(self) -> (&'static str, Best) {
        match self {
            Self::Images => ("accuracy", Best::Greatest),
            Self::Tokens => ("loss", Best::Lowest),
            Self::Texts(metric) => (metric.name(), Best::Greatest),
        }
    }
}

/// One training.
pub struct Session<'a> {
    /// Settings.
    pub settings: &'a Training,
    /// How examples become steps.
    pub plan: Plan,
    /// Training examples.
    pub count: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// AdamW's second beta.
    pub beta_2: f32,
    /// If true, the loss is the mean of the batches' means instead of the mean over all their terms.
    pub mean_of_batch_means: bool,
    /// If true, the loss is scaled so that no gradient underflows in f16.
    pub scales_loss: bool,
    /// The metrics.
    pub measured: Measured,
    /// Folder of metrics.jsonl and checkpoints/.
    pub folder: &'a Path,
    /// Name of the training for display.
    pub label: String,
    /// Name of the training in messages.
    pub place: String,
    /// Steps between lines of metrics.jsonl, and on the terminal.
    pub log_steps: usize,
    /// Stops the training.
    pub interrupter: &'a Interrupter,
}

/// Results of a training.
pub struct Trained<M: Module + ModuleDisplay> {
    /// The adapted model that is kept, without autodiff.
    pub adapted: Adapted<M>,
    /// Steps in this session.
    pub steps: usize,
    /// Wall time, still running.
    pub clock: Clock,
    /// Evaluation of the adapter that is kept.
    pub validation: Option<f64>,
    /// The best round and its evaluation.
    pub best: Option<(usize, f64)>,
    /// Images or tokens per second; absent if all of it was done in an earlier session.
    pub items_per_second: Option<f64>,
}

impl Session<'_> {
    fn failed(&self, message: String) -> RunError {
        RunError::Failed(format!("{}: {message}", self.place))
    }

    fn round(&self) -> &'static str {
        match (self.settings.eval_steps, self.plan.eval_steps) {
            // Of pretraining: parts of one epoch that nothing is evaluated after.
            (None, Some(_)) => "checkpoint",
            (steps, _) => round_name(steps.is_some()),
        }
    }

    /// Trains `adapted` on `train` by `objective`, evaluated on `valid` after each round. Each of `devices`, on the first of
    /// which `adapted` is, takes a share of every batch. A folder with checkpoints of the
    /// same training goes on after the last one, with the numbers that the uncut one would have had.
    ///
    /// # Errors
    /// A loss that is not a number, an interruption, a folder that cannot be read or written.
    pub fn train<M, O, S>(
        &self,
        mut adapted: Adapted<M>,
        objective: O,
        train: S,
        valid: Arc<dyn DataLoader<Step<O::Batch>>>,
        devices: &[Device],
    ) -> Result<Trained<M>, RunError>
    where
        M: Module + ModuleDisplay + Sync + 'static,
        O: Objective<M>,
        S: Source<Batch = O::Batch>,
    {
        let failed = |message: String| self.failed(message);
        let (steps, rounds) = (self.plan.steps(self.count), self.plan.rounds(self.count));
        let checkpoints = self.folder.join("checkpoints");
        create_folder(&checkpoints).map_err(failed)?;
        let record = |name: &'static str| RecordFiles::new(&checkpoints, name);
        let mut done = 0;
        if let Some((round, model)) = checkpoints::last_whole(&checkpoints).map_err(failed)? {
            // The optimizer's record identifies parameters by the ids in the model's record, which must be loaded
            // before the groups below are made.
            adapted = adapted.try_load_record(model).map_err(|e| {
                let path = record("model").path(round);
                failed(format!(
                    "{} does not fit the model ({e}); remove its folder to start anew",
                    path.display()
                ))
            })?;
            done = round.min(rounds);
        }
        let tensors = trained(&adapted);
        let clock = Clock::open(self.folder, done > 0);
        let (judged_by, rule) = self.measured.judged_by();
        let watch = SharedWatch::new(rule, self.settings.early_stopping_patience);
        let terminal = dashboard::is_possible();
        let log = Log {
            path: &self.folder.join("metrics.jsonl"),
            rounds_done: done,
            judged_by,
            every: self.log_steps,
            steps,
            quiet: terminal,
            round: self.round(),
        };
        let metrics =
            MetricsFile::open(&log, self.interrupter.clone(), watch.clone(), clock.clone()).map_err(failed)?;
        let mut steps_taken = 0;
        if !(done > 0 && watch.is_over()) {
            adapted = self.launch(
                adapted,
                objective,
                (train, valid),
                devices,
                (done, rounds),
                (&checkpoints, metrics, &watch, &clock, &tensors),
            )?;
            let last = watch.get().evaluations.last().map(|(round, _)| *round);
            let reached = last.filter(|_| watch.is_over()).unwrap_or(rounds);
            let after = |rounds: usize| (rounds * self.plan.steps_per_round(self.count)).min(steps);
            steps_taken = after(reached).saturating_sub(after(done));
        }
        let best = watch.best();
        let last = watch.get().evaluations.last().copied();
        let mut validation = last.map(|(_, value)| value);
        if let (Keep::Best, Some((round, value))) = (self.settings.keep, best)
            && last.is_some_and(|(last, _)| last != round)
        {
            adapted = load(adapted, &record("model"), round).map_err(failed)?;
            validation = Some(value);
        }
        // Of the last step no loss tells it.
        if let Some(name) = first_not_finite_of(&adapted, &tensors) {
            return Err(RunError::Diverged(format!(
                "{}: '{name}' is not finite after the last step; lower learning_rate and remove {}",
                self.place,
                checkpoints.display()
            )));
        }
        let speeds = &watch.get().speeds;
        let items_per_second = (!speeds.is_empty()).then(|| speeds.iter().sum::<f64>() / speeds.len() as f64);
        Ok(Trained {
            adapted: adapted.valid(),
            steps: steps_taken,
            clock,
            validation,
            best,
            items_per_second,
        })
    }

    /// Runs the remaining rounds, given as (done, all). `tensors`: the paths of those that are trained.
    fn launch<M, O, S>(
        &self,
        adapted: Adapted<M>,
        objective: O,
        (train, valid): (S, Arc<dyn DataLoader<Step<O::Batch>>>),
        devices: &[Device],
        (done, rounds): (usize, usize),
        (checkpoints, metrics, watch, clock, tensors): (&Path, MetricsFile, &SharedWatch, &Clock, &BTreeSet<String>),
    ) -> Result<Adapted<M>, RunError>
    where
        M: Module + ModuleDisplay + Sync + 'static,
        O: Objective<M>,
        S: Source<Batch = O::Batch>,
    {
        let optimizer = adapted.optimizer(self.weight_decay as f32, None, |decay| {
            let config = AdamWConfig::new().with_epsilon(1e-8).with_beta_2(self.beta_2);
            config.with_weight_decay(decay).build()
        });
        let rates = Rates::new(
            self.settings.lr_scheduler,
            self.learning_rate,
            self.settings.warmup_ratio,
            self.plan.epochs,
            self.plan.scheduled_steps(self.count),
        );
        if self.plan.steps(self.count) == 1 && rates.rate(0) == 0.0 {
            note(format_args!(
                "{}: the only step is one of warm-up, at a learning rate of 0, so nothing is learned; train for more steps",
                self.place
            ));
        }
        let schedule = adapted.learning_rates(rates);
        let loss_scale = self.scales_loss.then(|| LossScale::after(checkpoints, done));
        let loss_scale = loss_scale.transpose().map_err(|e| self.failed(e))?;
        let reduction = self.reduction(devices, loss_scale.clone());
        let steps_done = (done * self.plan.steps_per_round(self.count)).min(self.plan.steps(self.count));
        let ranks = Ranks::of(&adapted, checkpoints, (done, steps_done)).map_err(|e| self.failed(e))?;
        objective.begin(steps_done);
        let for_valid = objective.clone();
        let terminal = dashboard::is_possible();
        let mut health = Health::new(self.interrupter.clone(), watch.clone(), &self.label, steps_done);
        health.reads_losses = computes_at_once(&devices[0]);
        health.quiet = terminal;
        let closing = health.clone();
        let team = Team::new(devices);
        let traffic = Traffic::default();
        let (of_steps, of_evaluations) = (traffic.clone(), traffic.clone());
        let of_clock = clock.clone();
        let is_told = !terminal && !computes_at_once(&devices[0]);
        let mut trainee = adapted.with_steps(
            move |adapted: &Adapted<M>, step: Step<O::Batch>| {
                of_steps.step();
                let output = health.look(adapted, train_step(&objective, reduction.clone(), adapted, step, &team));
                if let Some(seconds) = of_clock.stepped()
                    && is_told
                {
                    tell(format_args!(
                        "  first step after {seconds:.1} s, kernels compiled and tuned included"
                    ));
                }
                output
            },
            move |adapted: &Adapted<M>, step: Step<O::Batch>| {
                of_evaluations.pause();
                valid_step(&for_valid, adapted, step)
            },
        );
        if let Some(ranks) = &ranks {
            trainee = trainee.with_around(ranks.clone());
        }
        let record = |name: &'static str| RecordFiles::new(checkpoints, name);
        let train: Arc<dyn DataLoader<Step<O::Batch>>> = Arc::new(Rounds::new(train, self.plan, done, devices));
        let beside = Beside {
            ranks,
            loss_scale: loss_scale.clone(),
        };
        let mut training = SupervisedTraining::new(self.folder, train, valid)
            .with_custom_checkpointers(
                record("model").with(beside.clone()),
                record("optim"),
                record("scheduler"),
            )
            .with_checkpointing_strategy(LastTwo::new(checkpoints, watch.clone(), self.settings.keep, beside))
            .with_application_logger(None)
            .with_metric_logger(metrics)
            .with_interrupter(self.interrupter.clone())
            .label(&self.label)
            .num_epochs(rounds);
        training = match self.measured {
            Measured::Images => training
                .metrics((AccuracyMetric::new(), LossMetric::new()))
                .metric_train_numeric(Throughput::new("Images")),
            Measured::Tokens => training
                .metrics((LossMetric::new(),))
                .metric_train_numeric(Throughput::new("Tokens")),
            Measured::Texts(metric) => training
                .metrics((LossMetric::new(),))
                .metric_valid_numeric(Score::new(metric))
                .metric_train_numeric(Throughput::new("Tokens")),
        };
        training = training.metric_train_numeric(LearningRateMetric::new());
        if self.settings.early_stopping_patience.is_some() {
            training = training.early_stopping(watch.clone());
        }
        if done > 0 {
            training = training.checkpoint(done);
        }
        let training = training.renderer(renderer(terminal, self.interrupter, done, self.round()));
        let learner = Learner::new(trainee, optimizer, schedule);
        let result = launch(clock, || training.launch(learner))?;
        let (notes, bad_step, before_training, bad_tensor, bad_gradient) = {
            let mut watch = watch.get();
            (
                std::mem::take(&mut watch.notes),
                watch.bad_step,
                watch.before_training,
                watch.bad_tensor.take(),
                watch.bad_gradient.take(),
            )
        };
        for told in notes {
            note(format_args!("  {told}"));
        }
        if let Some(step) = bad_step {
            // The next trial may continue, unless the user also wants to stop.
            if self.interrupter.get_message().as_deref() == Some(NOT_A_NUMBER) {
                self.interrupter.reset();
            }
            let since = || {
                let name = first_not_finite_of(&result.model.adapted, tensors);
                name.map(|name| format!("'{name}' is not either"))
            };
            let (tensor, advice) = match before_training {
                true => (
                    first_not_finite_weight(result.model.adapted.backbone())
                        .map(|name| format!("nor is the weight '{name}' of the model"))
                        .or_else(|| {
                            let name = first_not_finite_of(&result.model.adapted, tensors);
                            name.map(|name| format!("nor is '{name}' of the adapter"))
                        }),
                    ", before anything was trained; check the files of the model, its adapter and the data, or give --dtype f32",
                ),
                false => (bad_tensor.or_else(since), "; lower learning_rate"),
            };
            let tensor = tensor.map_or(String::new(), |tensor| format!(" ({tensor})"));
            let found = match bad_gradient {
                Some(name) => format!("the gradient of '{name}' is not finite at step {step}"),
                None => format!("the loss is not a number at step {step}{tensor}"),
            };
            let kept = match checkpoints::last_whole(checkpoints) {
                Ok(Some(_)) => " (the last good checkpoint is kept)",
                _ => "",
            };
            return Err(RunError::Diverged(format!("{}: {found}{advice}{kept}", self.place)));
        }
        if let Some(failure) = watch.get().failure.take() {
            return Err(self.failed(failure));
        }
        if let Some(error) = result.error {
            return Err(self.failed(checkpoints::sentence(&error)));
        }
        if result.interrupted.is_some() {
            return Err(RunError::Interrupted);
        }
        if let Some(message) = closing.finish() {
            note(format_args!("  {message}"));
        }
        if let Some(message) = loss_scale.and_then(|loss_scale| loss_scale.sentence()) {
            note(format_args!("  {}: {message}", self.label));
        }
        if let Some(message) = traffic.sentence() {
            tell(format_args!("  {}: {message}", self.label));
        }
        if watch.is_over() {
            tell(format_args!(
                "  {}: stopped early, after {}",
                self.label,
                counted(watch.get().evaluations.len(), "evaluation")
            ));
        }
        Ok(result.model.adapted)
    }

    fn reduction(&self, devices: &[Device], loss_scale: Option<LossScale>) -> Reduction {
        Reduction {
            max_grad_norm: self.settings.max_grad_norm,
            mean_of_batch_means: self.mean_of_batch_means,
            checks_gradients: computes_at_once(&devices[0]),
            loss_scale,
        }
    }

    /// Estimated seconds of the training, from one step on `train` whose gradients are discarded.
    ///
    /// # Errors
    /// An example that cannot be read.
    pub fn estimated_seconds<M, O, S>(
        &self,
        adapted: &Adapted<M>,
        objective: &O,
        train: S,
        devices: &[Device],
    ) -> Result<f64, String>
    where
        M: Module + ModuleDisplay + Sync + 'static,
        O: Objective<M>,
        S: Source<Batch = O::Batch>,
    {
        let reduction = self.reduction(devices, None);
        let rounds = Rounds::new(train, self.plan, 0, devices);
        let team = Team::new(devices);
        let mut seconds = 0.0;
        // The first step also compiles kernels and fills caches.
        for step in DataLoader::iter(&rounds).take(2) {
            let step = step.map_err(|e| e.to_string())?;
            let start = Instant::now();
            // As a number: until then the device may still be at it.
            train_step(objective, reduction.clone(), adapted, step, &team)
                .item
                .loss();
            seconds = start.elapsed().as_secs_f64();
        }
        Ok(seconds * self.plan.steps(self.count) as f64)
    }
}

fn load<M: Module + ModuleDisplay>(
    adapted: Adapted<M>,
    record: &RecordFiles,
    round: usize,
) -> Result<Adapted<M>, String> {
    let path = record.path(round);
    let loaded: ModuleRecord = record.read(round).map_err(|e| format!("{e}; remove its folder"))?;
    let fits = adapted.try_load_record(loaded);
    fits.map_err(|e| format!("{} does not fit the model ({e}); remove its folder", path.display()))
}
