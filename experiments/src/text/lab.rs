//! The trials of a text classifier: trained on a task, judged on held-out texts, tested and saved, or judged as points
//! of a grid.

use std::path::Path;
use std::sync::Arc;

use backbones::classify::{Problem, SequenceClassifier};
use burn::module::Module;
use datasets::glue::Label;
use sha2::{Digest, Sha256};
use wegeft::{Adapted, Summary};

use crate::cli::output::detail;
use crate::cli::shipped::hex;
use crate::lab::{Existing, Shared, is_here, told, trained_params, trains, tuned};
use crate::language::estimate::BatchShape;
use crate::language::model::folder;
use crate::methods::Wing;
use crate::run::checksum::{add_file, add_model};
use crate::run::files::write_json;
use crate::run::grid::{Best, Tuned};
use crate::run::memory::{peak_mb, reset_peak};
use crate::run::outcome::{Outcome, RunError};
use crate::run::suite::{Lab, Program};
use crate::run::trial::{Plan, Trial};
use crate::run::whole::has_adapter;
use crate::text::data::Texts;
use crate::text::description::{self, Description};
use crate::text::features::{features, reads_features};
use crate::text::memory;
use crate::text::model::{self, Classifier};
use crate::text::objective::Classification;
use crate::text::prediction::{Scores, answers, scores};
use crate::text::samples::samples;
use crate::text::settings::Settings;
use crate::text::task::{Answer, Part, TextTask, TextTasks};
use crate::text::{adapter, prepared};
use crate::train::estimate::Estimate;
use crate::train::stream::Ordered;
use crate::train::trainer::{Measured, Session, Trained};

/// Trains text classifiers on tasks. The model and the texts of a task are loaded for its first trial and kept until
/// the next task.
pub struct TextLab {
    program: Program,
    settings: Settings,
    plan: Plan,
    tasks: Box<dyn TextTasks>,
    prepared: Option<prepared::Prepared>,
}

impl TextLab {
    /// A lab for the tasks in `names`, which `tasks` provides.
    pub fn new(program: Program, settings: Settings, names: Vec<String>, tasks: Box<dyn TextTasks>) -> Self {
        let existing = settings.model.adapter.as_ref().map(|_| Existing::Evaluated);
        let plan = shared(&program, &settings).plan(names, existing, Best::Greatest);
        Self {
            program,
            settings,
            plan,
            tasks,
            prepared: None,
        }
    }

    fn shared(&self) -> Shared<'_> {
        shared(&self.program, &self.settings)
    }

    /// Loads the model and the texts of a task, unless they are loaded already.
    fn prepare(&mut self, name: &str) -> Result<&mut prepared::Prepared, String> {
        if self.prepared.as_ref().is_none_or(|prepared| prepared.task.name != name) {
            self.prepared = None;
            let task = self.tasks.load(name)?;
            self.check_task(&task)?;
            let device = self.shared().device()?;
            let settings = &self.settings;
            let max_length = task.max_length.unwrap_or(settings.texts.max_length);
            let dropout = settings.texts.dropout;
            let classifier = model::load(&settings.model, &task.labels, dropout, max_length, &device)?;
            let prepared = prepared::Prepared::new(task, classifier, &settings.texts, device)?;
            self.prepared = Some(prepared);
        }
        self.prepared.as_mut().ok_or_else(|| "the task is gone".into())
    }

    /// Refuses a task that cannot be trained or judged.
    fn check_task(&self, task: &TextTask) -> Result<(), String> {
        if task.labels.problem() == Problem::MultiLabel {
            return Err(format!("task {}: several labels per text are not supported", task.name));
        }
        let trains = self.plan.methods.iter().any(|rates| trains(&rates.method));
        if trains && task.valid.is_empty() && self.settings.texts.validation == 0.0 {
            return Err(format!(
                "task {}: no texts are held out for validation; give --validation, such as 0.1",
                task.name
            ));
        }
        if trains && task.train.is_empty() {
            return Err(format!("task {}: there is no text to train on", task.name));
        }
        match task.valid.iter().find(|part| !part.is_labelled()) {
            Some(part) => Err(format!("task {}: a text of {} has no label", task.name, part.name)),
            None => Ok(()),
        }
    }

    /// The initial model of a trial: parts of its head that the files lack are initialized with the trial's seed.
    fn start(&self, trial: &Trial, prepared: &prepared::Prepared) -> SequenceClassifier {
        let Classifier { pretrained, .. } = &prepared.classifier;
        prepared.device.seed(trial.seed);
        pretrained
            .model
            .clone()
            .with_fresh_head(&pretrained.fresh, &prepared.device)
    }

    /// The model with a new adapter of the trial's method. `count`: number of training texts, if known.
    fn adapted(
        &self,
        trial: &Trial,
        prepared: &prepared::Prepared,
        count: Option<usize>,
    ) -> Result<Adapted<SequenceClassifier>, String> {
        let settings = &self.settings;
        let named = |e: String| format!("method {}: {e}", trial.method);
        let config = adapter::config(
            &settings.adapter,
            &settings.methods,
            &trial.method,
            &prepared.classifier.pretrained,
            settings.model.model.as_deref(),
        )
        .map_err(named)?;
        let config = self.shared().scheduled(config, trial, count)?;
        let model = self.start(trial, prepared);
        adapter::init(&config, model).map_err(named)
    }

    fn objective(&self) -> Classification {
        Classification {
            checkpointing: self.settings.training.gradient_checkpointing,
        }
    }

    /// Estimate of the memory that a training will need.
    fn memory(&self, trial: &Trial, prepared: &prepared::Prepared, summary: &Summary) -> (Estimate, BatchShape) {
        let training = &self.settings.training;
        let batch = BatchShape {
            rows: training.batch_size.min(prepared.train.texts().len()),
            width: prepared.train.longest() + self.shared().added_tokens(&trial.method),
            checkpointing: training.gradient_checkpointing,
            scores: self.shared().stores_scores(),
        };
        let bytes = self.settings.model.dtype.bytes();
        let model = &prepared.classifier.pretrained.model;
        let mut estimate = memory::estimate(model, bytes, summary.trainable_params(), batch);
        if reads_features(trial, model) {
            estimate.activations = 0;
        }
        (estimate, batch)
    }

    fn check_memory(&self, trial: &Trial, prepared: &prepared::Prepared, summary: &Summary) -> Result<(), String> {
        let (estimate, batch) = self.memory(trial, prepared, summary);
        let shape = format!("a batch of {} times {} tokens", batch.rows, batch.width);
        self.shared().check_memory(&estimate, &shape)
    }

    /// The data that a trial trains on and is judged by: features before the head if only the head is trained and the
    /// features are the same at every step, otherwise tokens.
    fn data(&mut self, trial: &Trial) -> Result<[Texts; 2], RunError> {
        let interrupter = self.program.interrupter.clone();
        let Some(prepared) = self.prepared.as_mut() else {
            return Err(RunError::Failed("the task is gone".into()));
        };
        let model = &prepared.classifier.pretrained.model;
        if !reads_features(trial, model) {
            return Ok([prepared.train.clone(), prepared.judged.clone()]);
        }
        if let Some(featured) = &prepared.featured {
            return Ok(featured.clone());
        }
        let model = model.valid();
        let device = prepared.device.clone().inner();
        let batch_size = self.settings.texts.eval_batch_size;
        let of = |texts: &Texts| -> Result<Texts, RunError> {
            let features = features(&model, texts, batch_size, &device, || interrupter.should_stop())?;
            Ok(texts.clone().with_features(features))
        };
        let featured = [of(&prepared.train)?, of(&prepared.judged)?];
        prepared.featured = Some(featured.clone());
        Ok(featured)
    }

    /// Trains a trial.
    fn train(&mut self, trial: &Trial, folder: &Path) -> Result<(Trained<SequenceClassifier>, Summary), RunError> {
        let failed = |message: String| RunError::Failed(format!("{}: {message}", trial.place()));
        self.prepare(&trial.task).map_err(failed)?;
        let [train, judged] = self.data(trial)?;
        let this: &Self = self;
        let Some(prepared) = &this.prepared else {
            return Err(failed("its data is gone".into()));
        };
        let device = &prepared.device;
        reset_peak(device);
        let count = Some(train.texts().len());
        let adapted = this.adapted(trial, prepared, count).map_err(RunError::Failed)?;
        let summary = adapted.summary();
        detail(&summary);
        this.check_memory(trial, prepared, &summary).map_err(failed)?;
        let metric = prepared.task.metrics[0];
        let devices = this.settings.execution.devices().map_err(failed)?;
        let session = Session {
            scales_loss: this.settings.model.dtype.scales_loss(&devices).map_err(failed)?,
            ..this
                .shared()
                .session(trial, train.texts().len(), Measured::Texts(metric), folder)
        };
        let batch_size = this.settings.texts.eval_batch_size;
        let held_out = Arc::new(Ordered::new(judged.sorted().0, batch_size, &device.clone().inner()));
        let trained = session.train(adapted, this.objective(), train, held_out, &devices)?;
        Ok((trained, summary))
    }

    /// Makes and saves the predictions for a part of a task; returns the scores if the part is labelled.
    fn answered(
        &self,
        trial: &Trial,
        model: &SequenceClassifier,
        part: &Part,
        folder: &Path,
    ) -> Result<(Vec<Answer>, Scores), RunError> {
        let Some(prepared) = &self.prepared else {
            return Err(RunError::Failed("the task is gone".into()));
        };
        let stopped = |message: String| match self.program.interrupter.should_stop() {
            true => RunError::Interrupted,
            false => RunError::Failed(message),
        };
        let texts = prepared.texts(&part.items).map_err(RunError::Failed)?;
        let device = prepared.device.clone().inner();
        let batch_size = self.settings.texts.eval_batch_size;
        let trained = trains(&trial.method);
        let interrupter = &self.program.interrupter;
        let found = answers(model, &texts, trained, batch_size, interrupter, &device).map_err(stopped)?;
        let found: Vec<Answer> = match &prepared.classifier.order {
            Some(order) => found.into_iter().map(|answer| order.answer(answer)).collect(),
            None => found,
        };
        self.tasks
            .write(&prepared.task, part, &found, &folder.join("predictions"))
            .map_err(RunError::Failed)?;
        let labels: Option<Vec<Label>> = part.items.iter().map(|item| item.label).collect();
        let of_part = labels
            .filter(|labels| !labels.is_empty())
            .map(|labels| scores(&prepared.task.metrics, &found, &labels));
        Ok((found, of_part.unwrap_or_default()))
    }

    /// The model of a trial, bound and without autodiff, and the outcome of its training.
    fn bound(&mut self, trial: &Trial, folder: &Path) -> Result<(SequenceClassifier, Outcome), RunError> {
        let failed = |message: String| RunError::Failed(format!("{}: {message}", trial.place()));
        let rates = Outcome {
            learning_rate: Some(trial.lr),
            weight_decay: Some(trial.weight_decay),
            ..Outcome::default()
        };
        if trains(&trial.method) {
            let (trained, summary) = self.train(trial, folder)?;
            let Some(prepared) = &self.prepared else {
                return Err(failed("its data is gone".into()));
            };
            let path = folder.join("adapter");
            trained.adapted.save(&path).map_err(|e| failed(e.to_string()))?;
            Description::new(
                self.settings.model.model.clone(),
                self.settings.model.dtype,
                prepared.classifier.max_length,
                self.tasks.fields(),
                prepared.classifier.pretrained.model.labels(),
            )
            .write(&path)
            .map_err(failed)?;
            let (trainable_params, percent_trainable) = trained_params(&trial.method, &summary);
            let outcome = Outcome {
                trainable_params,
                percent_trainable,
                seconds: trained.clock.total(),
                steps_per_second: trained.clock.steps_per_second(trained.steps),
                tokens_per_second: trained.items_per_second,
                validation: trained.validation,
                ..rates
            };
            return Ok((trained.adapted.bind(), outcome));
        }
        self.prepare(&trial.task).map_err(failed)?;
        let this: &Self = self;
        let Some(prepared) = &this.prepared else {
            return Err(failed("its data is gone".into()));
        };
        reset_peak(&prepared.device);
        let model = this.start(trial, prepared);
        match &this.settings.model.adapter {
            None => Ok((model.valid(), Outcome::default())),
            Some(folder) => {
                let adapted = adapter::open(model, folder).map_err(failed)?;
                let summary = adapted.summary();
                let counts = Outcome {
                    trainable_params: summary.adapter_params,
                    percent_trainable: summary.percent(),
                    ..Outcome::default()
                };
                Ok((adapted.valid().bind(), counts))
            }
        }
    }
}

/// The part of the settings that all wings have.
fn shared<'a>(program: &'a Program, settings: &'a Settings) -> Shared<'a> {
    Shared {
        program,
        adapter: &settings.adapter,
        methods: &settings.methods,
        training: &settings.training,
        sweep: &settings.sweep,
        execution: &settings.execution,
        wing: Wing::Text,
    }
}

impl Lab for TextLab {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn devices(&self, jobs: Option<usize>) -> Vec<String> {
        self.settings.execution.processes(jobs)
    }

    fn program(&self) -> &Program {
        &self.program
    }

    fn paths(&self) -> &'static [&'static str] {
        &["data", "model", "adapter", "train_file", "valid_file", "test_file"]
    }

    fn checks_quickly(&self) -> bool {
        is_here(self.settings.model.model.as_deref(), &self.tasks.files())
    }

    fn checksum(&self) -> Result<String, String> {
        let mut sum = Sha256::new();
        for file in self.tasks.files() {
            add_file(&mut sum, &file)?;
        }
        if self.settings.model.model.is_some() {
            add_model(&mut sum, &folder(&self.settings.model)?)?;
        }
        if let Some(adapter) = &self.settings.model.adapter {
            add_model(&mut sum, adapter)?;
        }
        Ok(hex(&sum.finalize()))
    }

    /// Every task is read and every adapter made once, so that problems with the last one show now and not hours later.
    fn check(&mut self, left: &[Trial], _out: &Path) -> Result<(), String> {
        let mut tasks: Vec<&String> = Vec::new();
        for trial in left {
            if !tasks.contains(&&trial.task) {
                tasks.push(&trial.task);
            }
        }
        for (at, name) in tasks.iter().enumerate().rev() {
            if at > 0 {
                let task = self.tasks.load(name)?;
                self.check_task(&task)?;
                continue;
            }
            self.prepare(name)?;
            let Some(prepared) = &self.prepared else { continue };
            let mut seen = Vec::new();
            for trial in left
                .iter()
                .filter(|trial| trial.task == **name && trains(&trial.method))
            {
                if !seen.contains(&&trial.method) {
                    seen.push(&trial.method);
                    let adapted = self.adapted(trial, prepared, None)?;
                    self.check_memory(trial, prepared, &adapted.summary())?;
                }
            }
        }
        Ok(())
    }

    fn estimate(&mut self, trial: &Trial) -> Result<String, String> {
        if !trains(&trial.method) {
            return Ok("nothing is trained".into());
        }
        self.prepare(&trial.task)?;
        let [train, _] = self.data(trial).map_err(|e| e.to_string())?;
        let this: &Self = self;
        let prepared = this.prepared.as_ref().ok_or("its data is gone")?;
        let adapted = this.adapted(trial, prepared, Some(train.texts().len()))?;
        let summary = adapted.summary();
        detail(&summary);
        let (memory, _) = this.memory(trial, prepared, &summary);
        let metric = prepared.task.metrics[0];
        let session = this
            .shared()
            .session(trial, train.texts().len(), Measured::Texts(metric), Path::new(""));
        let devices = this.settings.execution.devices()?;
        let seconds = session.estimated_seconds(&adapted, &this.objective(), train, &devices)?;
        Ok(told(&trial.method, &summary, Wing::Text, memory.total_mb(), seconds))
    }

    fn is_whole(&self, trial: &Trial, folder: &Path) -> bool {
        !trains(&trial.method) || has_adapter(folder, &[description::FILE])
    }

    fn release(&mut self) {
        self.prepared = None;
    }

    fn tune(&mut self, trial: &Trial, folder: &Path) -> Result<Tuned, RunError> {
        tuned(trial, folder, || {
            let (trained, _) = self.train(trial, folder)?;
            Ok((trained.best, trained.clock.total()))
        })
    }

    fn run(&mut self, trial: &Trial, folder: &Path) -> Result<Vec<Outcome>, RunError> {
        let failed = |message: String| RunError::Failed(format!("{}: {message}", trial.place()));
        let (bound, trained) = self.bound(trial, folder)?;
        let this: &Self = self;
        let Some(prepared) = &this.prepared else {
            return Err(failed("its data is gone".into()));
        };
        let task = &prepared.task;
        let mut outcome = Outcome {
            experiment: this.program.experiment.into(),
            task: task.name.clone(),
            method: trial.method.clone(),
            model: this.settings.model.model.clone(),
            data: this.tasks.place(),
            metric: task.metrics[0].name().into(),
            seed: trial.seed,
            ..trained
        };
        // If there are no separate texts to report, the held-out texts are reported.
        let reported = match task.valid.is_empty() {
            true => std::slice::from_ref(&prepared.held_out),
            false => &task.valid[..],
        };
        for (at, part) in reported.iter().filter(|part| !part.items.is_empty()).enumerate() {
            let (found, values) = this.answered(trial, &bound, part, folder)?;
            for (metric, value) in &values {
                let name = if at == 0 {
                    metric.name().to_string()
                } else {
                    format!("{} {}", metric.name(), part.name)
                };
                outcome.scores.insert(name, *value);
            }
            if at == 0 {
                outcome.value = values
                    .iter()
                    .find(|(metric, _)| *metric == task.metrics[0])
                    .map(|(_, value)| *value);
                outcome.questions = Some(part.items.len());
                write_json(&folder.join("samples.json"), &samples(task, part, &found)).map_err(failed)?;
            }
        }
        for part in &task.test {
            let (_, values) = this.answered(trial, &bound, part, folder)?;
            for (metric, value) in values {
                outcome.scores.insert(format!("{} {}", metric.name(), part.name), value);
            }
        }
        if this.settings.texts.validation == 0.0 || task.valid.is_empty() {
            // It would be the same as `value`.
            outcome.validation = None;
        }
        outcome.peak_mb = peak_mb(&prepared.device);
        Ok(vec![outcome])
    }

    fn describe(&self, trial: &Trial, outcomes: &[Outcome]) -> String {
        let of = |outcome: &Outcome| {
            let scores = outcome.scores.iter().map(|(name, value)| format!("{name} {value:.2}"));
            let scores: Vec<String> = scores.collect();
            format!("{}: {}, {:.1} s", trial.label(), scores.join(", "), outcome.seconds)
        };
        outcomes.iter().map(of).collect::<Vec<_>>().join("\n  ")
    }
}
