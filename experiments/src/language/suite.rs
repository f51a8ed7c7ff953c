//! What `commonsense` and `arithmetic` share: each method is trained, or an adapter taken, and evaluated on every
//! set, into one run folder.

use std::path::Path;
use std::time::Instant;

use backbones::lm::Decoder;
use burn::module::Module;
use burn::tensor::Device;
use burn::train::Interrupter;
use datasets::language::published::Row;
use datasets::language::{Example, Question, Template, sample};
use serde::{Deserialize, Serialize};
use serde_json::json;
use wegeft::Adapted;

use crate::adapted_lm::trained_in_f32;
use crate::language::batches::Sequence;
use crate::language::chosen::{chosen, limited};
use crate::language::evaluate::{Score, evaluate};
use crate::language::flags::Args;
use crate::language::folder;
use crate::language::model::{self, BASE_MODEL, Lm};
use crate::language::outcome::Outcome;
use crate::language::settings::Settings;
use crate::language::tokens::tokenize;
use crate::language::training::{Setting, train};
use crate::language::{report, table};
use crate::memory::{peak_mb, reset_peak};
use crate::output::tell;
use crate::run::{RunError, write_json};

/// A test set.
pub struct TestSet {
    /// Name in tables.
    pub name: String,
    /// Its questions.
    pub questions: Vec<Question>,
    /// Whether it counts in the average.
    pub scored: bool,
}

/// One of the two suites.
pub struct Suite {
    /// Program.
    pub experiment: &'static str,
    /// Test sets.
    pub sets: Vec<TestSet>,
    /// Training examples; read only if something is trained.
    pub train: Box<dyn Fn() -> Result<Vec<Example>, String>>,
    /// Form of the prompts.
    pub template: Template,
    /// Published rows to print beside ours; none beside the sample.
    pub published: &'static [Row],
    /// The sets that the published rows have values of.
    pub published_sets: Vec<&'static str>,
}

impl Suite {
    /// A suite of generated questions: no published row beside it, every set scored.
    ///
    /// # Errors
    /// Settings that name a set which it has not, or training files.
    pub fn of_sample(
        experiment: &'static str,
        sample: sample::Suite,
        template: Template,
        settings: &Settings,
    ) -> Result<Self, String> {
        if !settings.train_file.is_empty() {
            return Err(
                "--train-file needs --data, the folder with the test sets: the generated sample has its own training \
                 questions"
                    .into(),
            );
        }
        let names: Vec<&str> = sample.sets.iter().map(|(name, _)| name.as_str()).collect();
        let picked: Vec<String> = chosen(&settings.sets, &names)?.into_iter().map(String::from).collect();
        let train = sample.train;
        Ok(Self {
            experiment,
            sets: sample
                .sets
                .into_iter()
                .filter(|(name, _)| picked.contains(name))
                .map(|(name, questions)| TestSet {
                    name,
                    questions: limited(questions, settings),
                    scored: true,
                })
                .collect(),
            train: Box::new(move || Ok(train.clone())),
            template,
            published: &[],
            published_sets: Vec::new(),
        })
    }
}

/// Stands beside an adapter: written last, so that the adapter is whole where it is there.
const TRAINED_FILE: &str = "trained.json";

/// What that file holds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct TrainedFile {
    trainable_params: usize,
    percent_trainable: f64,
    seconds: f64,
    tokens_per_second: Option<f64>,
    /// Peak memory of the training, MB.
    #[serde(default)]
    peak_mb: Option<f64>,
}

/// Runs `suite` and returns the outcomes of the whole run folder; `interrupter` stops it.
///
/// # Errors
/// One sentence: bad data or weights, a training that failed, an interruption.
pub fn run(suite: &Suite, args: &Args, settings: &Settings, interrupter: &Interrupter) -> Result<Vec<Outcome>, String> {
    let out = args.out(suite.experiment);
    let device = crate::device::device(&settings.device)?.autodiff();
    let mut outcomes: Vec<Outcome> = folder::open(&out, settings, args.resume)?;
    let methods: Vec<String> = match &settings.adapter {
        Some(_) => vec!["adapter".into()],
        None => settings.method.clone(),
    };
    let is_done = |outcomes: &[Outcome], method: &str, set: &str| {
        outcomes
            .iter()
            .any(|outcome| outcome.method == method && outcome.task == set)
    };
    let all_done =
        |outcomes: &[Outcome], method: &str| suite.sets.iter().all(|set| is_done(outcomes, method, &set.name));
    if methods.iter().all(|method| all_done(&outcomes, method)) {
        tell(format_args!(
            "{} is finished; choose another --out to run again",
            out.display()
        ));
    } else {
        let lm = model::load(settings, &device)?;
        let setting = Setting {
            settings,
            lm: &lm,
            device: &device,
            interrupter,
        };
        let to_do: Vec<&String> = methods.iter().filter(|method| !all_done(&outcomes, method)).collect();
        let sequences = to_train_on(suite, &setting, &to_do, &out)?;
        for method in to_do {
            // The peak of a method is its own, not that of those before it.
            reset_peak(&device);
            let folder = out.join(method);
            std::fs::create_dir_all(&folder).map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
            let (bound, trained) = prepare(&setting, method, &sequences, &folder).map_err(|e| e.to_string())?;
            for set in &suite.sets {
                if is_done(&outcomes, method, &set.name) {
                    continue;
                }
                let start = Instant::now();
                let path = folder.join(format!("{}.jsonl", set.name));
                let answers = evaluate(&bound, &lm, &set.questions, settings, &path, interrupter);
                let score = Score::of(&answers.map_err(|e| e.to_string())?);
                let seconds = start.elapsed().as_secs_f64();
                tell(format_args!(
                    "  {method}, {}: {:.1} % of {} in {seconds:.1} s",
                    set.name, score.accuracy, score.count
                ));
                outcomes.push(Outcome {
                    experiment: suite.experiment.into(),
                    task: set.name.clone(),
                    method: method.clone(),
                    trainable_params: trained.trainable_params,
                    percent_trainable: trained.percent_trainable,
                    metric: "accuracy".into(),
                    value: Some(score.accuracy),
                    likelihood: score.likelihood,
                    questions: score.count,
                    seconds,
                    training_seconds: trained.seconds,
                    tokens_per_second: trained.tokens_per_second,
                    // A training may have been in an earlier run of this folder.
                    peak_mb: [peak_mb(&device), trained.peak_mb]
                        .into_iter()
                        .flatten()
                        .reduce(f64::max),
                    seed: settings.seed,
                });
                write_json(&out.join("summary.json"), &outcomes)?;
            }
        }
    }
    let scored: Vec<&str> = suite
        .sets
        .iter()
        .filter(|set| set.scored)
        .map(|set| set.name.as_str())
        .collect();
    let table = table::suite(&outcomes, &scored, suite.published, &suite.published_sets);
    report::write(&out, suite.experiment, &outcomes, &table)?;
    tell(format_args!(
        "\n{table}\n\nreport: {}",
        out.join("report.html").display()
    ));
    Ok(outcomes)
}

/// The counts of the adapter that an earlier run trained in the folder of a method.
fn trained_before(folder: &Path) -> Option<TrainedFile> {
    let text = std::fs::read_to_string(folder.join(TRAINED_FILE)).ok()?;
    serde_json::from_str(&text).ok()
}

/// The tokens of the training examples, empty if none of `methods` is to be trained. Looked at before anything is
/// evaluated, as are the methods themselves: what is wrong with them shows now, not after hours.
fn to_train_on(suite: &Suite, setting: &Setting, methods: &[&String], out: &Path) -> Result<Vec<Sequence>, String> {
    let Setting {
        settings, lm, device, ..
    } = *setting;
    let trains = |method: &str| method != "none" && trained_before(&out.join(method)).is_none();
    let trained: Vec<&&String> = methods.iter().filter(|method| trains(method)).collect();
    if settings.adapter.is_some() || trained.is_empty() {
        return Ok(Vec::new());
    }
    for method in trained {
        adapter_of(lm, settings, method, device)?;
    }
    let mut examples = (suite.train)()?;
    examples.truncate(settings.train_limit.unwrap_or(usize::MAX));
    let tokens = tokenize(&examples, suite.template, lm, settings.max_length)?;
    tell(format_args!("training data: {}", tokens.describe()));
    Ok(tokens.sequences)
}

/// The model of `method`, bound and without autodiff: as it is, with the adapter that was named, with the one that
/// an earlier run of this folder trained, or with one trained now on `sequences`.
fn prepare(
    setting: &Setting,
    method: &str,
    sequences: &[Sequence],
    folder: &Path,
) -> Result<(Decoder, TrainedFile), RunError> {
    let Setting {
        settings, lm, device, ..
    } = *setting;
    let failed = |message: String| RunError::Failed(message);
    if method == "none" {
        return Ok((lm.pretrained.model.valid(), TrainedFile::default()));
    }
    if let Some(adapter) = &settings.adapter {
        let adapted = lm.with_adapter(adapter).map_err(failed)?;
        let summary = adapted.summary();
        let counts = TrainedFile {
            trainable_params: summary.trainable_params(),
            percent_trainable: summary.percent(),
            ..TrainedFile::default()
        };
        return Ok((adapted.valid().bind(), counts));
    }
    let adapter = folder.join("adapter");
    if let Some(counts) = trained_before(folder) {
        return Ok((lm.with_adapter(&adapter).map_err(failed)?.valid().bind(), counts));
    }
    let adapted = adapter_of(lm, settings, method, device).map_err(failed)?;
    let trained = train(setting, method, adapted, sequences.to_vec(), folder)?;
    trained.adapted.save(&adapter).map_err(|e| failed(e.to_string()))?;
    let counts = TrainedFile {
        trainable_params: trained.summary.trainable_params(),
        percent_trainable: if method == "full" {
            100.0
        } else {
            trained.summary.percent()
        },
        seconds: trained.seconds,
        tokens_per_second: trained.tokens_per_second,
        peak_mb: peak_mb(device),
    };
    write_json(&folder.join(TRAINED_FILE), &counts).map_err(failed)?;
    Ok((trained.adapted.bind(), counts))
}

/// A new adapter of `method` on the model, its random factors those of the seed.
///
/// # Errors
/// Targets that match nothing, an impossible rank.
pub fn adapter_of(lm: &Lm, settings: &Settings, method: &str, device: &Device) -> Result<Adapted<Decoder>, String> {
    device.seed(settings.seed);
    let mut config = settings.adapter_config(method)?;
    // What PEFT and `adapter` look for in adapter_config.json.
    config.extra.insert(BASE_MODEL.into(), json!(settings.model));
    config.extra.insert("task_type".into(), json!("CAUSAL_LM"));
    let adapted = config.init(lm.pretrained.model.clone());
    Ok(trained_in_f32(adapted.map_err(|e| format!("method {method}: {e}"))?))
}
