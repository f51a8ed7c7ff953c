//! The trials of a language model: trained once and tested on every test set, or judged as points of a grid.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use backbones::lm::Decoder;
use backbones::lm::adapter::{for_adapter, for_peft};
use backbones::resolve_lm;
use burn::module::Module;
use burn::tensor::Device;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use wegeft::site::{self, ParamInfo};
use wegeft::{Adapted, Summary};

use crate::cli::output::{detail, tell};
use crate::cli::shipped::hex;
use crate::lab::{ADAPTER, Existing, Shared, is_here, told, trains, tuned};
use crate::language::corpus::{After, Aftermath, Corpus, Finish, Finished};
use crate::language::data::{Sequence, Sequences};
use crate::language::estimate::{BatchShape, estimate};
use crate::language::evaluation::{Answering, Score, is_answered};
use crate::language::general;
use crate::language::judge::{Asked, TestSet};
use crate::language::model::{self, BASE_MODEL, Lm};
use crate::language::objective::Response;
use crate::language::packing::pack;
use crate::language::settings::Settings;
use crate::language::tokens::{Lengths, tokenize};
use crate::language::trained_file::TrainedFile;
use crate::language::valid::Asking;
use crate::methods::{self, NONE, Wing};
use crate::run::checksum::{add_file, add_model};
use crate::run::files::{keep_lines, read_json, read_lines, write_sealed};
use crate::run::grid::{Best, Tuned};
use crate::run::memory::{peak_mb, reset_peak};
use crate::run::outcome::{FORGETTING, Outcome, RunError};
use crate::run::suite::{Lab, Program};
use crate::run::trial::{Plan, Stage, Trial};
use crate::run::whole::has_adapter;
use crate::train::between::{Look, Watched};
use crate::train::estimate::Estimate;
use crate::train::memory_log::{Logged, MemoryLog};
use crate::train::precision::trained_in_f32;
use crate::train::stream::Ordered;
use crate::train::trainer::{Measured, Session, Trained};

/// The outcomes of the sets that have been answered so far.
const ANSWERED: &str = "answered.json";

/// Trains and tests a language model. It is loaded, and the examples are tokenized, for the first trial that needs them.
pub struct LanguageLab {
    program: Program,
    settings: Settings,
    plan: Plan,
    corpus: Corpus,
    model: Option<(Arc<Lm>, Device)>,
    sequences: Option<Vec<Sequence>>,
    /// Text whose loss shows what a model forgets, and that loss before any training.
    general: Vec<String>,
    general_before: Option<f64>,
    after: Option<After>,
    finish: Option<Finish>,
    /// Questions that are answered while a model trains.
    valid: Arc<Vec<Asked>>,
}

impl LanguageLab {
    /// A lab for `corpus`.
    pub fn new(program: Program, settings: Settings, corpus: Corpus) -> Self {
        let existing = settings.model.adapter.as_ref().map(|_| match corpus.sets.is_empty() {
            true => Existing::Continued,
            false => Existing::Evaluated,
        });
        // One training answers all sets.
        let plan = shared(&program, &settings).plan(vec![String::new()], existing, Best::Lowest);
        Self {
            program,
            settings,
            plan,
            corpus,
            model: None,
            sequences: None,
            general: Vec::new(),
            general_before: None,
            after: None,
            finish: None,
            valid: Arc::default(),
        }
    }

    fn shared(&self) -> Shared<'_> {
        shared(&self.program, &self.settings)
    }

    /// The same lab, which also measures the loss on `texts` before and after each training, to show what a model
    /// forgets.
    pub fn with_general(self, texts: Vec<String>) -> Self {
        Self { general: texts, ..self }
    }

    /// The same lab, which also answers `questions` after every round of a training: at every `eval_steps`.
    pub fn with_valid(self, questions: Vec<Asked>) -> Self {
        Self {
            valid: Arc::new(questions),
            ..self
        }
    }

    /// The same lab, which calls `after` for every answered test set.
    pub fn with_after(self, after: After) -> Self {
        Self {
            after: Some(after),
            ..self
        }
    }

    /// The same lab, which calls `finish` for every finished trial.
    pub fn with_finish(self, finish: Finish) -> Self {
        Self {
            finish: Some(finish),
            ..self
        }
    }

    /// The loss on general text of `bound`, the model of a trial, and its increase over the loss of the original model.
    fn forgotten(&mut self, bound: &Decoder) -> Result<BTreeMap<String, f64>, String> {
        let mut scores = BTreeMap::new();
        if self.general.is_empty() {
            return Ok(scores);
        }
        let (lm, _) = self.model()?;
        let (max_length, batch_size) = (self.max_length(&lm)?, self.settings.training.batch_size);
        let loss = |model: &Decoder| general::mean_loss(model, &lm, &self.general, max_length, batch_size);
        let before = match self.general_before {
            Some(before) => before,
            None => loss(&lm.pretrained.model.valid())?,
        };
        let after = loss(bound)?;
        self.general_before = Some(before);
        scores.insert("general loss".into(), after);
        scores.insert(FORGETTING.into(), after - before);
        Ok(scores)
    }

    /// The model and the device that it is on, with autodiff.
    fn model(&mut self) -> Result<(Arc<Lm>, Device), String> {
        if let Some((lm, device)) = &self.model {
            return Ok((lm.clone(), device.clone()));
        }
        let device = self.shared().device()?;
        let lm = Arc::new(model::load(&self.settings.model, &device)?);
        self.model = Some((lm.clone(), device.clone()));
        Ok((lm, device))
    }

    /// Maximum tokens of an example: max_length, or fewer if the model has positions for fewer beside the virtual tokens of
    /// one of the methods.
    fn max_length(&self, lm: &Lm) -> Result<usize, String> {
        let asked = self.settings.examples.max_length;
        let Some(positions) = lm.pretrained.model.max_tokens() else {
            return Ok(asked);
        };
        let added = match &self.settings.model.adapter {
            Some(folder) => methods::virtual_tokens(&wegeft::read_config(folder).map_err(|e| e.to_string())?),
            None => {
                let methods = self.settings.adapter.method.iter();
                methods
                    .map(|method| self.shared().added_tokens(method))
                    .max()
                    .unwrap_or(0)
            }
        };
        fitting(asked, positions, added)
    }

    /// Training sequences, all of them.
    fn sequences(&mut self, lm: &Lm) -> Result<&[Sequence], String> {
        if self.sequences.is_none() {
            let mut examples = (self.corpus.examples)()?;
            let limits = &self.settings.examples;
            let most = limits.train_limit.unwrap_or(usize::MAX);
            // If long examples are left out, the limit counts the remaining ones.
            if limits.drop_longer.is_none() {
                examples.examples.truncate(most);
            }
            let lengths = Lengths {
                most: self.max_length(lm)?,
                dropped_from: limits.drop_longer,
            };
            if lengths.most < limits.max_length {
                tell(format_args!(
                    "max_length is {} instead of {}: the model has positions for {} tokens, those that a method adds included",
                    lengths.most,
                    limits.max_length,
                    lm.pretrained.model.config().max_positions
                ));
            }
            let mut tokens = tokenize(&examples, self.corpus.template, lm, lengths)?;
            tokens.sequences.truncate(most);
            tokens.empty += examples.empty;
            tell(format_args!("training data: {}", tokens.describe()));
            self.sequences = Some(tokens.sequences);
        }
        Ok(self.sequences.as_deref().unwrap_or_default())
    }

    /// The sequences to train on, packed if requested, and the held-out ones.
    fn data(&mut self, lm: &Lm) -> Result<[Vec<Sequence>; 2], String> {
        let all = self.sequences(lm)?.len();
        let [train, valid] = self.rows(lm)?;
        if self.settings.examples.packing {
            tell(format_args!(
                "  {} examples packed into {} rows",
                all - valid.len(),
                train.len()
            ));
        }
        Ok([train, valid])
    }

    /// [`Self::data`], of which nothing is printed.
    fn rows(&mut self, lm: &Lm) -> Result<[Vec<Sequence>; 2], String> {
        let part = self.settings.examples.validation;
        let (packing, max_length) = (self.settings.examples.packing, self.settings.examples.max_length);
        let mut train = self.sequences(lm)?.to_vec();
        let held_out = (part * train.len() as f64).ceil() as usize;
        let valid = train.split_off(train.len() - held_out);
        if train.is_empty() {
            return Err("validation leaves no example to train on; lower it".into());
        }
        if packing {
            train = pack(train, max_length);
        }
        Ok([train, valid])
    }

    /// The model with a new adapter of the trial's method, initialized with the trial's seed, or with the adapter whose
    /// training is continued. `count`: number of training sequences, if known.
    fn adapted(
        &self,
        lm: &Lm,
        trial: &Trial,
        count: Option<usize>,
        device: &Device,
    ) -> Result<Adapted<Decoder>, String> {
        if let Some(adapter) = &self.settings.model.adapter {
            return lm.with_adapter(adapter);
        }
        device.seed(trial.seed);
        let settings = &self.settings;
        let config = methods::adapter(
            &settings.adapter,
            &settings.methods,
            &trial.method,
            Wing::Language,
            &lm.pretrained.model.config().family,
        )?;
        let mut config = self.shared().scheduled(config, trial, count)?;
        // PEFT and `adapter` look for this field in adapter_config.json.
        config.extra.insert(BASE_MODEL.into(), json!(settings.model.model));
        config.extra.insert("task_type".into(), json!("CAUSAL_LM"));
        let model = for_adapter(lm.pretrained.model.clone(), &config);
        let adapted = model.and_then(|model| config.init(model));
        Ok(trained_in_f32(
            adapted.map_err(|e| format!("method {}: {e}", trial.method))?,
        ))
    }

    fn session<'a>(&'a self, trial: &'a Trial, count: usize, folder: &'a Path) -> Session<'a> {
        Session {
            mean_of_batch_means: self.settings.examples.mean_of_batch_means,
            ..self.shared().session(trial, count, Measured::Tokens, folder)
        }
    }

    fn objective(&self) -> Response {
        Response {
            checkpointing: self.settings.training.gradient_checkpointing,
        }
    }

    fn train_source(&self, sequences: Vec<Sequence>) -> Sequences {
        Sequences::to_train(sequences, self.settings.examples.group_by_length)
    }

    /// The memory that a training will need, and its batch.
    fn memory(&self, trial: &Trial, lm: &Lm, summary: &Summary, sequences: &[Sequence]) -> (Estimate, BatchShape) {
        let training = &self.settings.training;
        let longest = sequences.iter().map(|sequence| sequence.ids.len()).max();
        let batch = BatchShape {
            rows: training.batch_size.min(sequences.len()),
            width: longest.unwrap_or(0) + self.shared().added_tokens(&trial.method),
            checkpointing: training.gradient_checkpointing,
            scores: self.shared().stores_scores(),
        };
        let decoder = &lm.pretrained.model;
        let params: usize = site::params(decoder).iter().map(ParamInfo::len).sum();
        let bytes = self.settings.model.dtype.bytes();
        let estimate = estimate(decoder.config(), params, bytes, summary.trainable_params(), batch);
        (estimate, batch)
    }

    /// The memory estimate of the training, MB; refuses a training that does not fit.
    fn check_memory(&self, trial: &Trial, lm: &Lm, summary: &Summary, sequences: &[Sequence]) -> Result<u64, String> {
        let (estimate, batch) = self.memory(trial, lm, summary, sequences);
        let shape = format!("a batch of {} times {} tokens", batch.rows, batch.width);
        self.shared().check_memory(&estimate, &shape)?;
        Ok(estimate.total_mb())
    }

    /// Trains a trial.
    fn train(&mut self, trial: &Trial, folder: &Path) -> Result<(Trained<Decoder>, Summary, Steps), RunError> {
        let failed = |message: String| RunError::Failed(format!("{}: {message}", trial.place()));
        let (lm, device) = self.model().map_err(RunError::Failed)?;
        let [train, valid] = self.data(&lm).map_err(failed)?;
        let this: &Self = self;
        let adapted = this
            .adapted(&lm, trial, Some(train.len()), &device)
            .map_err(RunError::Failed)?;
        let summary = adapted.summary();
        detail(&summary);
        let memory_mb = this.check_memory(trial, &lm, &summary, &train).map_err(failed)?;
        tell(format_args!("  estimated memory: {memory_mb} MB"));
        let devices = this.settings.execution.devices().map_err(failed)?;
        let session = Session {
            scales_loss: this.settings.model.dtype.scales_loss(&devices).map_err(failed)?,
            ..this.session(trial, train.len(), folder)
        };
        let held_out = Sequences::held_out(valid);
        let batch_size = this.settings.training.batch_size;
        let held_out = Arc::new(Ordered::new(held_out, batch_size, &device.clone().inner()));
        let tokens: usize = train.iter().map(|sequence| sequence.ids.len()).sum();
        let source = this.train_source(train);
        let log = MemoryLog::default();
        let every = session.plan.steps_per_round(session.count);
        let asking = this.asking(trial, folder, &lm, &log, every).map(Arc::new);
        let look = asking.clone().map(|asking| -> Look<Decoder> {
            Arc::new(move |adapted: &Adapted<Decoder>, step: usize| asking.look(adapted, step))
        });
        let objective = Logged::new(Watched::new(this.objective(), every, look), log.clone(), &device);
        let trained = session.train(adapted, objective, source, held_out, &devices);
        // It stopped the training.
        if let Some(error) = asking.as_ref().and_then(|asking| asking.failure()) {
            return Err(error);
        }
        let trained = trained?;
        if let Some(asking) = asking {
            asking.look(&trained.adapted, session.plan.steps(session.count));
            if let Some(error) = asking.failure() {
                return Err(error);
            }
        }
        let steps = Steps {
            memory_mb: log.mean_and_99th(),
            tokens: tokens * this.settings.training.epochs,
        };
        Ok((trained, summary, steps))
    }

    /// Asks a model in training, where there is something to ask.
    fn asking(&self, trial: &Trial, folder: &Path, lm: &Arc<Lm>, log: &MemoryLog, every: usize) -> Option<Asking> {
        let settings = self.corpus.evaluation.clone()?;
        let asks = trial.stage != Stage::Tune && !self.valid.is_empty();
        asks.then(|| Asking {
            questions: self.valid.clone(),
            lm: lm.clone(),
            settings,
            seed: trial.seed,
            interrupter: self.program.interrupter.clone(),
            folder: folder.to_path_buf(),
            log: log.clone(),
            every,
            failure: Default::default(),
        })
    }

    /// The model of a trial, bound and without autodiff: unchanged, with the given adapter, with the adapter that an
    /// earlier run of this folder trained, or with one trained now.
    fn bound(&mut self, trial: &Trial, folder: &Path) -> Result<(Decoder, TrainedFile), RunError> {
        let (lm, device) = self.model().map_err(RunError::Failed)?;
        if trial.method == NONE {
            return Ok((lm.pretrained.model.valid(), TrainedFile::default()));
        }
        if let (ADAPTER, Some(adapter)) = (trial.method.as_str(), &self.settings.model.adapter) {
            let adapted = lm.with_adapter(adapter).map_err(RunError::Failed)?;
            let summary = adapted.summary();
            let counts = TrainedFile {
                trainable_params: summary.trainable_params(),
                percent_trainable: summary.percent(),
                ..TrainedFile::default()
            };
            return Ok((adapted.valid().bind(), counts));
        }
        let adapter = folder.join("adapter");
        if let Some(counts) = TrainedFile::read(folder).map_err(RunError::Failed)? {
            // A last line that is torn is cut here too.
            let metrics = folder.join("metrics.jsonl");
            let lines = read_lines::<Value>(&metrics).map_err(RunError::Failed)?;
            keep_lines(&metrics, &lines).map_err(RunError::Failed)?;
            let adapted = lm.with_adapter(&adapter).map_err(RunError::Failed)?;
            return Ok((adapted.valid().bind(), counts));
        }
        let (trained, summary, steps_taken) = self.train(trial, folder)?;
        for_peft(trained.adapted.files(), trained.adapted.backbone())
            .and_then(|files| files.write(&adapter))
            .map_err(|e| RunError::Failed(e.to_string()))?;
        let counts = TrainedFile {
            trainable_params: summary.trainable_params(),
            percent_trainable: if trial.method == "full" {
                100.0
            } else {
                summary.percent()
            },
            seconds: trained.clock.total(),
            tokens_per_second: trained.items_per_second,
            peak_mb: peak_mb(&device),
            steps_per_second: trained.clock.steps_per_second(trained.steps),
            validation: trained.validation,
            memory_mb: steps_taken.memory_mb,
            tokens: steps_taken.tokens,
        };
        counts.write(folder).map_err(RunError::Failed)?;
        Ok((trained.adapted.bind(), counts))
    }

    /// The outcomes of one test set, answered and judged in `folder`: `common`, with what this set adds, and one for each
    /// further score.
    fn tested(
        &self,
        trial: &Trial,
        set: &TestSet,
        answering: &Answering,
        common: Outcome,
        folder: &Path,
    ) -> Result<impl Iterator<Item = Outcome>, RunError> {
        let start = Instant::now();
        let answers = answering.evaluate(&set.questions, &folder.join(format!("{}.jsonl", set.name)))?;
        let mut score = Score::of(&answers);
        let judged = set.questions.first().is_some_and(|question| question.judge.judges());
        let aftermath = match &self.after {
            Some(after) => after(set, &answers, folder)?,
            None => Aftermath::default(),
        };
        let value = aftermath.value.or(judged.then_some(score.accuracy));
        score.further.extend(aftermath.further);
        let seconds = start.elapsed().as_secs_f64();
        let shown = value.map_or("written down".into(), |value| format!("{value:.1} {}", set.metric));
        tell(format_args!(
            "  {}, {}: {shown}, {} questions in {seconds:.1} s",
            trial.label(),
            set.name,
            score.count
        ));
        let outcome = Outcome {
            task: set.name.clone(),
            metric: set.metric.into(),
            value,
            likelihood: score.likelihood,
            questions: Some(score.count),
            seconds,
            ..common
        };
        let further: Vec<Outcome> = score
            .further
            .into_iter()
            .map(|(name, value)| Outcome {
                task: format!("{} {name}", set.name),
                group: set.name.clone(),
                metric: name,
                value: Some(value),
                likelihood: None,
                seconds: 0.0,
                ..outcome.clone()
            })
            .collect();
        Ok(std::iter::once(outcome).chain(further))
    }

    /// The fields that all outcomes of a trial share.
    fn outcome(&self, trial: &Trial, trained: &TrainedFile) -> Outcome {
        let rates = trains(&trial.method);
        Outcome {
            experiment: self.program.experiment.into(),
            method: trial.method.clone(),
            model: self.settings.model.model.clone(),
            data: self.corpus.place.clone(),
            trainable_params: trained.trainable_params,
            percent_trainable: trained.percent_trainable,
            training_seconds: Some(trained.seconds),
            tokens_per_second: trained.tokens_per_second,
            steps_per_second: trained.steps_per_second,
            validation: trained.validation.filter(|_| !self.corpus.sets.is_empty()),
            learning_rate: rates.then_some(trial.lr),
            weight_decay: rates.then_some(trial.weight_decay),
            seed: trial.seed,
            ..Outcome::default()
        }
    }
}

/// The tokens of `asked` for which a model with that many `positions` has room beside `added` virtual tokens.
///
/// # Errors
/// No room at all.
fn fitting(asked: usize, positions: usize, added: usize) -> Result<usize, String> {
    match positions.checked_sub(added) {
        None | Some(0) => Err(format!(
            "the {added} virtual tokens of the adapter leave no room in a model with positions for {positions} tokens; choose \
             fewer, or another method"
        )),
        Some(room) => Ok(asked.min(room)),
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
        wing: Wing::Language,
    }
}

/// Results of the steps of a training.
struct Steps {
    memory_mb: Option<(f64, f64)>,
    tokens: usize,
}

impl Lab for LanguageLab {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn devices(&self, jobs: Option<usize>) -> Vec<String> {
        self.settings.execution.processes(jobs)
    }

    fn program(&self) -> &Program {
        &self.program
    }

    fn unread(&self) -> Vec<(&'static str, &'static str)> {
        let mut questions = self.corpus.sets.iter().flat_map(|set| &set.questions);
        match questions.any(|question| question.options.is_some()) {
            true => Vec::new(),
            false => vec![("likelihood", "no question has options")],
        }
    }

    fn paths(&self) -> &'static [&'static str] {
        &[
            "data",
            "model",
            "adapter",
            "train_file",
            // The judge of existing answers may change or be added later.
            "judge_url",
            "judge_model",
            "judge_prompts",
            "judge_file",
            "judge_retries",
            "judge_wait",
            "judge_timeout",
            "judge_parallel",
            "judge_price",
            "baseline",
            "gamed_baselines",
        ]
    }

    fn checks_quickly(&self) -> bool {
        is_here(self.settings.model.model.as_deref(), &self.corpus.files)
    }

    fn checksum(&self) -> Result<String, String> {
        let mut sum = Sha256::new();
        for file in self.corpus.files.iter().filter(|file| file.is_file()) {
            add_file(&mut sum, file)?;
        }
        if let Some(name) = &self.settings.model.model {
            add_model(&mut sum, &resolve_lm(name).map_err(|e| e.to_string())?)?;
        }
        if let Some(adapter) = &self.settings.model.adapter {
            add_model(&mut sum, adapter)?;
        }
        Ok(hex(&sum.finalize()))
    }

    /// Checked before anything is evaluated, so that problems with the training show now and not hours later.
    fn check(&mut self, left: &[Trial], out: &Path) -> Result<(), String> {
        let (lm, device) = self.model()?;
        // A model that was trained before is only tested.
        let is_trained = |trial: &Trial| matches!(TrainedFile::read(&out.join(trial.folder())), Ok(Some(_)));
        let mut summaries: Vec<(&Trial, Summary)> = Vec::new();
        for trial in left.iter().filter(|trial| trains(&trial.method) && !is_trained(trial)) {
            if !summaries.iter().any(|(seen, _)| seen.method == trial.method) {
                summaries.push((trial, self.adapted(&lm, trial, None, &device)?.summary()));
            }
        }
        if summaries.is_empty() {
            return Ok(());
        }
        let [train, _] = self.rows(&lm)?;
        summaries.iter().try_for_each(|(trial, summary)| {
            let fits = self.check_memory(trial, &lm, summary, &train);
            fits.map(drop).map_err(|e| format!("{}: {e}", trial.place()))
        })
    }

    fn estimate(&mut self, trial: &Trial) -> Result<String, String> {
        if !trains(&trial.method) {
            return Ok("nothing is trained".into());
        }
        let (lm, device) = self.model()?;
        let [train, _] = self.data(&lm)?;
        let this: &Self = self;
        let adapted = this.adapted(&lm, trial, Some(train.len()), &device)?;
        let summary = adapted.summary();
        detail(&summary);
        let memory_mb = this.check_memory(trial, &lm, &summary, &train)?;
        let session = this.session(trial, train.len(), Path::new(""));
        let source = this.train_source(train);
        let devices = this.settings.execution.devices()?;
        let seconds = session.estimated_seconds(&adapted, &this.objective(), source, &devices)?;
        Ok(told(&trial.method, &summary, Wing::Language, memory_mb, seconds))
    }

    fn is_whole(&self, trial: &Trial, folder: &Path) -> bool {
        let trained = !trains(&trial.method) || has_adapter(folder, &[]);
        let answered = |set: &TestSet| is_answered(&folder.join(format!("{}.jsonl", set.name)), set.questions.len());
        trained && self.corpus.sets.iter().all(answered)
    }

    fn partial(&self, trial: &Trial, folder: &Path) -> Vec<Outcome> {
        let answered: Option<Vec<Outcome>> = read_json(&folder.join(ANSWERED), "").unwrap_or_default();
        let whole = |outcome: &Outcome| {
            let name = if outcome.group.is_empty() {
                &outcome.task
            } else {
                &outcome.group
            };
            let set = self.corpus.sets.iter().find(|set| set.name == *name);
            set.is_some_and(|set| is_answered(&folder.join(format!("{}.jsonl", set.name)), set.questions.len()))
        };
        let mut answered = answered.unwrap_or_default();
        answered.retain(|outcome| outcome.method == trial.method && outcome.seed == trial.seed && whole(outcome));
        answered
    }

    fn release(&mut self) {
        self.model = None;
        self.sequences = None;
    }

    fn tune(&mut self, trial: &Trial, folder: &Path) -> Result<Tuned, RunError> {
        tuned(trial, folder, || {
            let (trained, ..) = self.train(trial, folder)?;
            Ok((trained.best, trained.clock.total()))
        })
    }

    fn run(&mut self, trial: &Trial, folder: &Path) -> Result<Vec<Outcome>, RunError> {
        let (_, device) = self.model().map_err(RunError::Failed)?;
        // The peak memory of a trial must not include that of the trials before it.
        reset_peak(&device);
        let (bound, trained) = self.bound(trial, folder)?;
        let forgotten = self.forgotten(&bound).map_err(RunError::Failed)?;
        let this: &Self = self;
        let Some((lm, _)) = &this.model else {
            return Err(RunError::Failed("the model is gone".into()));
        };
        // An earlier run of this folder may have done the training.
        let peak = || {
            [peak_mb(&device), trained.peak_mb]
                .into_iter()
                .flatten()
                .reduce(f64::max)
        };
        let Some(evaluation) = this.corpus.evaluation.as_ref().filter(|_| !this.corpus.sets.is_empty()) else {
            return Ok(vec![Outcome {
                task: this.corpus.name.clone(),
                metric: "validation loss".into(),
                value: trained.validation,
                seconds: trained.seconds,
                peak_mb: peak(),
                ..this.outcome(trial, &trained)
            }]);
        };
        let answering = Answering {
            model: &bound,
            lm,
            settings: evaluation,
            seed: trial.seed,
            interrupter: &this.program.interrupter,
        };
        let mut outcomes = this.partial(trial, folder);
        for set in &this.corpus.sets {
            // Answers that were only saved may be judged now.
            let judged = |outcome: &Outcome| outcome.value.is_some() || this.after.is_none();
            let mut of_set = outcomes.iter().filter(|outcome| outcome.task == set.name);
            if of_set.any(judged) {
                continue;
            }
            outcomes.retain(|outcome| outcome.task != set.name && outcome.group != set.name);
            let common = Outcome {
                scores: forgotten.clone(),
                ..this.outcome(trial, &trained)
            };
            outcomes.extend(
                this.tested(trial, set, &answering, common, folder)?
                    .map(|outcome| Outcome {
                        peak_mb: peak(),
                        ..outcome
                    }),
            );
            write_sealed(&folder.join(ANSWERED), &outcomes).map_err(RunError::Failed)?;
        }
        if let Some(finish) = &this.finish {
            let params = site::params(&lm.pretrained.model);
            let finished = Finished {
                trial,
                folder,
                outcomes: &outcomes,
                model_params: params.iter().map(ParamInfo::len).sum(),
                trained_params: trained.trainable_params,
                memory_mb: trained.memory_mb,
                tokens: trained.tokens,
            };
            finish(&finished).map_err(RunError::Failed)?;
        }
        Ok(outcomes)
    }

    fn describe(&self, trial: &Trial, outcomes: &[Outcome]) -> String {
        let parts = outcomes.iter().map(|outcome| {
            let value = outcome.value.map_or("-".into(), |value| format!("{value:.4}"));
            format!("{} {value}", outcome.task)
        });
        format!("{}: {}", trial.label(), parts.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_leave_room_for_virtual_tokens() {
        assert_eq!(fitting(512, 1024, 20), Ok(512));
        assert_eq!(fitting(1024, 1024, 20), Ok(1004));
        assert_eq!(fitting(2048, 1024, 0), Ok(1024));
        for added in [16, 20] {
            let message = fitting(512, 16, added).unwrap_err();
            assert!(message.contains("leave no room"), "{message}");
        }
    }
}
