//! The trials of a vision transformer: trained on a task, tested and saved, or judged as points of a grid.

use std::path::Path;
use std::sync::Arc;

use backbones::{Pretrained, Vit, load_vit, resolve};
use burn::module::Module;
use burn::tensor::Device;
use datasets::Resize;
use sha2::{Digest, Sha256};
use wegeft::site::{self, ParamInfo};
use wegeft::{Adapted, Summary};

use crate::cli::model_folder;
use crate::cli::output::{detail, tell};
use crate::cli::shipped::{self, hex};
use crate::lab::{Shared, told, trained_params, tuned};
use crate::methods::{self, Wing};
use crate::run::grid::{Best, Tuned};
use crate::run::memory::{peak_mb, reset_peak};
use crate::run::outcome::{Outcome, RunError};
use crate::run::suite::{Lab, Program};
use crate::run::trial::{Plan, Rates, Stage, Trial};
use crate::run::whole::has_adapter;
use crate::train::estimate::Estimate;
use crate::train::precision::{trained_in_f32, with_weights_of};
use crate::train::trainer::{Measured, Session, Trained};
use crate::vision::confusion::Confusion;
use crate::vision::data::LabelledImages;
use crate::vision::description::{self, Description};
use crate::vision::evaluation::Predictions;
use crate::vision::objective::CrossEntropy;
use crate::vision::prefix::{self, Prefix};
use crate::vision::prepared::Prepared;
use crate::vision::samples::{ConfusionFile, samples};
use crate::vision::settings::Settings;
use crate::vision::steps::steps;
use crate::vision::tasks::{Tasks, add_task};

/// Trains a vision transformer on tasks. The backbone is loaded for the first trial; a task is kept in memory until the
/// next task.
pub struct VisionLab {
    program: Program,
    settings: Settings,
    plan: Plan,
    tasks: Box<dyn Tasks>,
    backbone: Option<(Arc<Pretrained>, Device)>,
    task: Option<Prepared>,
}

impl VisionLab {
    /// A lab for the tasks in `names`, which `tasks` provides.
    pub fn new(program: Program, settings: Settings, names: Vec<String>, tasks: Box<dyn Tasks>) -> Self {
        let plan = shared(&program, &settings).plan(names, None, Best::Greatest);
        Self {
            program,
            settings,
            plan,
            tasks,
            backbone: None,
            task: None,
        }
    }

    fn shared(&self) -> Shared<'_> {
        shared(&self.program, &self.settings)
    }

    /// The backbone and its device, with autodiff.
    fn backbone(&mut self) -> Result<(Arc<Pretrained>, Device), String> {
        if let Some((backbone, device)) = &self.backbone {
            return Ok((backbone.clone(), device.clone()));
        }
        let settings = &self.settings;
        let device = self.shared().device()?;
        let path = match &settings.model.model {
            Some(name) => resolve(name).map_err(|e| e.to_string())?,
            None => shipped::backbone()?,
        };
        model_folder::check(&path, None)?;
        let backbone = load_vit(&path, settings.model.image_size, settings.model.drop_path, &device);
        let mut backbone = backbone.map_err(|e| e.to_string())?;
        let dtype = settings.model.dtype;
        backbone.model = with_weights_of(backbone.model, dtype, &device)?.with_activations(dtype.activations(&device));
        let backbone = Arc::new(backbone);
        let [height, width] = backbone.config.image();
        if height != width {
            return Err(format!(
                "{} reads images of {height} x {width} px, and training images are squares; give --image-size",
                path.display()
            ));
        }
        self.backbone = Some((backbone.clone(), device.clone()));
        Ok((backbone, device))
    }

    /// Loads the images of a task.
    fn prepare(&mut self, name: &str, backbone: &Pretrained) -> Result<(), RunError> {
        if self.task.as_ref().is_some_and(|task| task.name == name) {
            return Ok(());
        }
        self.task = None;
        let interrupter = &self.program.interrupter;
        let task = self
            .tasks
            .load(name, backbone.config.image()[0], &|| !interrupter.should_stop());
        if interrupter.should_stop() {
            return Err(RunError::Interrupted);
        }
        let mut task = task.map_err(RunError::Failed)?;
        if self.settings.data.resize == Some(Resize::Model) {
            let own = backbone.preprocessing.as_ref().map(steps);
            let steps = own.ok_or_else(Resize::no_steps).map_err(RunError::Failed)?;
            for part in [&mut task.train, &mut task.valid, &mut task.test] {
                part.steps = Some(steps);
            }
        }
        let parts = [&task.train, &task.valid, &task.test];
        let count: usize = parts.iter().map(|part| part.len()).sum();
        let bytes: usize = parts.iter().map(|part| part.kept_bytes()).sum();
        let mb = bytes as f64 / 1e6;
        tell(format_args!(
            "{}: {count} images, {mb:.1} MB of them in memory",
            task.name
        ));
        self.task = Some(Prepared::new(task, backbone.normalization));
        Ok(())
    }

    /// The adapted backbone of a trial, with a head for `classes` classes, initialized with the trial's seed. `count`:
    /// number of training images, if known.
    fn adapted(
        &self,
        trial: &Trial,
        backbone: &Pretrained,
        (classes, count): (usize, Option<usize>),
        device: &Device,
    ) -> Result<Adapted<Vit>, String> {
        device.seed(trial.seed);
        let settings = &self.settings;
        let config = methods::adapter(&settings.adapter, &settings.methods, &trial.method, Wing::Vision, "")?;
        let config = self.shared().scheduled(config, trial, count)?;
        let config = methods::fitted(config, &backbone.config);
        let model = backbone.model.clone().with_head(classes, device);
        Ok(trained_in_f32(config.init(model).map_err(|e| e.to_string())?))
    }

    fn objective(&self) -> CrossEntropy {
        CrossEntropy {
            checkpointing: self.settings.training.gradient_checkpointing,
        }
    }

    /// True if a trial also trains on the validation images.
    fn joins(&self, trial: &Trial) -> bool {
        self.settings.data.final_run && trial.stage == Stage::Final
    }

    /// Number of images that a trial trains on.
    fn train_count(&self, trial: &Trial, task: &Prepared) -> usize {
        match self.joins(trial) {
            true => task.train.images.len() + task.valid.images.len(),
            false => task.train.images.len(),
        }
    }

    /// Training and validation images, and the number of training images.
    fn data(
        &self,
        trial: &Trial,
        task: &Prepared,
        adapted: &Adapted<Vit>,
        device: &Device,
    ) -> Result<[LabelledImages; 2], String> {
        let (backbone, _) = self.backbone.as_ref().ok_or("the backbone is loaded")?;
        let [mut train, valid] = self.images(task, adapted, backbone, device)?;
        if self.joins(trial) {
            train = train.joined(&valid);
        }
        Ok([train.augmented(self.settings.augment(), task.classes.len()), valid])
    }

    /// train800 and val200 as input of the training: if the part of the backbone before all trained parameters is
    /// deterministic, its outputs; otherwise the images.
    fn images(
        &self,
        task: &Prepared,
        adapted: &Adapted<Vit>,
        backbone: &Pretrained,
        device: &Device,
    ) -> Result<[LabelledImages; 2], String> {
        let whole = || [task.train.clone(), task.valid.clone()];
        if self.settings.is_random() || task.train.images.resize == Resize::Crop {
            return Ok(whole());
        }
        let Some(prefix) = prefix::prefix(adapted) else {
            return Ok(whole());
        };
        if let Prefix::Blocks(_) = prefix {
            let config = &backbone.config;
            let count = task.train.images.len() + task.valid.images.len();
            if count * config.tokens() * config.d_model * size_of::<f32>() > prefix::MOST_BYTES {
                return Ok(whole());
            }
        }
        task.through(prefix, &adapted.valid().bind(), &self.program.interrupter, device)
    }

    /// Estimate of the memory that a training will need.
    fn memory(&self, trial: &Trial, adapted: &Adapted<Vit>, backbone: &Pretrained) -> Estimate {
        let (config, training) = (&backbone.config, &self.settings.training);
        let frozen = match prefix::start_of_training(adapted) {
            Some(Prefix::Blocks(blocks)) => blocks,
            Some(Prefix::Whole) => config.depth,
            None => 0,
        };
        let summary = adapted.summary();
        let per_image = config.tokens() + self.shared().added_tokens(&trial.method);
        // Elements per token and block: the inputs of both norms, their outputs, queries, keys and values, attention's
        // output, and the MLP's hidden layer before and after its activation; attention's scores if it is not fused.
        let scores = match self.shared().stores_scores() {
            false => 0,
            true => 3 * config.heads * per_image,
        };
        let hidden = config.mlp_dim.unwrap_or(4 * config.d_model);
        let block = 9 * config.d_model + 3 * hidden + scores;
        let blocks = config.depth.saturating_sub(frozen);
        let kept = match training.gradient_checkpointing {
            true => blocks * config.d_model + block.min(blocks * block),
            false => blocks * block,
        };
        let params: usize = site::params(&backbone.model).iter().map(ParamInfo::len).sum();
        let tokens = training.batch_size * per_image;
        let bytes = self.settings.model.dtype.bytes();
        Estimate::new(params, bytes, summary.trainable_params(), tokens * kept)
    }

    fn check_memory(&self, estimate: &Estimate) -> Result<(), String> {
        let batch = format!("a batch of {} images", self.settings.training.batch_size);
        self.shared().check_memory(estimate, &batch)
    }

    /// Trains a trial; also returns its data and results.
    fn train(&mut self, trial: &Trial, folder: &Path) -> Result<(Trained<Vit>, Summary, LabelledImages), RunError> {
        let failed = |message: String| RunError::Failed(format!("{}: {message}", trial.place()));
        let (backbone, device) = self.backbone().map_err(RunError::Failed)?;
        self.prepare(&trial.task, &backbone)?;
        let this: &Self = self;
        let Some(task) = &this.task else {
            return Err(failed("its data is gone".into()));
        };
        device.seed(trial.seed);
        reset_peak(&device);
        let size = (task.classes.len(), Some(this.train_count(trial, task)));
        let adapted = this.adapted(trial, &backbone, size, &device).map_err(failed)?;
        let summary = adapted.summary();
        if trial.stage == Stage::Final {
            // Only groups and totals: the sites of a group follow from target_modules.
            let text = summary.to_string();
            let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with(' ')).collect();
            tell(format_args!("{}: {}", trial.label(), lines.join("; ")));
            detail(&text);
        }
        let plain_device = device.clone().inner();
        let stopped = |message: String| match this.program.interrupter.should_stop() {
            true => RunError::Interrupted,
            false => failed(message),
        };
        let [train, valid] = this.data(trial, task, &adapted, &plain_device).map_err(stopped)?;
        let devices = this.settings.execution.devices().map_err(failed)?;
        let session = Session {
            scales_loss: this.settings.model.dtype.scales_loss(&devices).map_err(failed)?,
            ..this
                .shared()
                .session(trial, train.images.len(), Measured::Images, folder)
        };
        let held_out = Arc::new(valid.batches(100, &plain_device));
        let trained = session.train(adapted, this.objective(), train, held_out, &devices)?;
        Ok((trained, summary, valid))
    }
}

impl Lab for VisionLab {
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
        &["data", "model"]
    }

    fn checksum(&self) -> Result<String, String> {
        let mut sum = Sha256::new();
        for name in &self.plan.tasks {
            sum.update(name);
            if let Some(task) = self.tasks.unread(name)? {
                add_task(&mut sum, &task, self.settings.data.data.as_deref())?;
            }
        }
        if let Some(name) = &self.settings.model.model {
            let path = resolve(name).map_err(|e| e.to_string())?;
            crate::run::checksum::add_model(&mut sum, &path)?;
        }
        Ok(hex(&sum.finalize()))
    }

    fn check(&mut self, left: &[Trial], _out: &Path) -> Result<(), String> {
        let data = &self.settings.data;
        let mixes = data.label_smoothing + data.mixup + data.cutmix > 0.0;
        for name in &self.plan.tasks {
            if let Some(task) = self.tasks.unread(name)? {
                if mixes && task.classes.len() < 2 {
                    return Err(format!(
                        "task {name}: mixup, cutmix and label_smoothing mix classes, and it has only one; leave them out"
                    ));
                }
                task.check().map_err(|e| e.to_string())?;
                if left.iter().any(|trial| trial.task == *name) {
                    self.tasks.verify(name)?;
                }
            }
        }
        let (backbone, device) = self.backbone()?;
        for Rates { method, .. } in self.plan.methods.clone() {
            let Some(trial) = left.iter().find(|trial| trial.method == method) else {
                continue;
            };
            let named = |e: String| format!("method {method}: {e}");
            let adapted = self.adapted(trial, &backbone, (2, None), &device).map_err(named)?;
            let estimate = self.memory(trial, &adapted, &backbone);
            self.check_memory(&estimate).map_err(named)?;
        }
        Ok(())
    }

    fn estimate(&mut self, trial: &Trial) -> Result<String, String> {
        let (backbone, device) = self.backbone()?;
        self.prepare(&trial.task, &backbone).map_err(|e| e.to_string())?;
        let this: &Self = self;
        let task = this.task.as_ref().ok_or("its data is gone")?;
        let size = (task.classes.len(), Some(this.train_count(trial, task)));
        let adapted = this.adapted(trial, &backbone, size, &device)?;
        let summary = adapted.summary();
        detail(&summary);
        let [train, _] = this.data(trial, task, &adapted, &device.clone().inner())?;
        let session = this
            .shared()
            .session(trial, train.images.len(), Measured::Images, Path::new(""));
        let devices = this.settings.execution.devices()?;
        let seconds = session.estimated_seconds(&adapted, &this.objective(), train, &devices)?;
        let memory_mb = this.memory(trial, &adapted, &backbone).total_mb();
        Ok(told(&trial.method, &summary, Wing::Vision, memory_mb, seconds))
    }

    fn is_whole(&self, _trial: &Trial, folder: &Path) -> bool {
        has_adapter(folder, &[description::FILE])
    }

    /// Linear probings of the same task share its features.
    fn shares(&self, first: &Trial, _second: &Trial) -> bool {
        first.method == "linear" && !self.settings.is_random()
    }

    fn release(&mut self) {
        self.backbone = None;
    }

    fn tune(&mut self, trial: &Trial, folder: &Path) -> Result<Tuned, RunError> {
        tuned(trial, folder, || {
            let (trained, ..) = self.train(trial, folder)?;
            Ok((trained.best, trained.clock.total()))
        })
    }

    fn run(&mut self, trial: &Trial, folder: &Path) -> Result<Vec<Outcome>, RunError> {
        let failed = |message: String| RunError::Failed(format!("{}: {message}", trial.place()));
        let (trained, summary, valid) = self.train(trial, folder)?;
        let this: &Self = self;
        let stopped = |message: String| match this.program.interrupter.should_stop() {
            true => RunError::Interrupted,
            false => failed(message),
        };
        let (Some(task), Some((backbone, device))) = (&this.task, &this.backbone) else {
            return Err(failed("its data is gone".into()));
        };
        let device = device.clone().inner();
        let settings = &this.settings;
        let model = trained.adapted;
        let bound = model.bind();
        let predicted = |set| Predictions::of(&bound, set, &this.program.interrupter, &device).map_err(stopped);
        let found = predicted(&task.test)?;
        let labels = &task.test.images.labels;
        let value = found.top1(labels);
        let validation = match settings.data.final_run {
            true => None,
            false => Some(predicted(&valid)?.top1(&valid.images.labels)),
        };
        let samples = samples(&task.test, &found, &task.classes).map_err(failed)?;
        crate::run::files::write_json(&folder.join("samples.json"), &samples).map_err(failed)?;
        let confusion = ConfusionFile {
            counts: Confusion::of(labels, &found.classes, task.classes.len()),
            classes: task.classes.clone(),
        };
        crate::run::files::write_json(&folder.join("confusion.json"), &confusion).map_err(failed)?;
        let adapter = folder.join("adapter");
        model.save(&adapter).map_err(|e| failed(e.to_string()))?;
        Description {
            backbone: settings.model.model.clone(),
            image_size: backbone.config.image_size,
            resize: task.test.images.resize,
            classes: task.classes.clone(),
        }
        .write(&adapter)
        .map_err(failed)?;
        let (trainable_params, percent_trainable) = trained_params(&trial.method, &summary);
        Ok(vec![Outcome {
            experiment: this.program.experiment.into(),
            task: task.name.clone(),
            group: task.group.clone(),
            method: trial.method.clone(),
            model: settings.model.model.clone(),
            data: settings.data.data.as_ref().map(|path| path.display().to_string()),
            trainable_params,
            percent_trainable,
            metric: "top1".into(),
            value: Some(value),
            validation,
            seconds: trained.clock.total(),
            steps_per_second: trained.clock.steps_per_second(trained.steps),
            images_per_second: trained.items_per_second,
            peak_mb: peak_mb(&device),
            learning_rate: Some(trial.lr),
            weight_decay: Some(trial.weight_decay),
            seed: trial.seed,
            ..Outcome::default()
        }])
    }

    fn describe(&self, trial: &Trial, outcomes: &[Outcome]) -> String {
        let of = |outcome: &Outcome| {
            format!(
                "{}: test top-1 {:.1}, {:.1} s, {:.1} steps/s, peak memory {} MB",
                trial.label(),
                outcome.value.unwrap_or_default(),
                outcome.seconds,
                outcome.steps_per_second.unwrap_or_default(),
                outcome.peak_mb.map_or("?".into(), |mb| format!("{mb:.0}"))
            )
        };
        outcomes.iter().map(of).collect::<Vec<_>>().join("\n  ")
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
        wing: Wing::Vision,
    }
}
