//! `glue`: GLUE's nine sentence tasks (Wang et al. 2018, arXiv 1804.07461), as in GIFT's earlier experiments.

use std::path::{Path, PathBuf};

use backbones::classify::{Labels, Problem};
use clap::{Args, Command, ValueHint};
use datasets::glue::{self, GlueItem, GlueSplit, GlueTask, Label, Part as Which, TASKS};
use datasets::language::published::{GLUE, GLUE_TASKS};
use datasets::texts::sample;
use serde::{Deserialize, Serialize};

use crate::cli::output::tell;
use crate::cli::settings::absolute;
use crate::methods::Wing;
use crate::report::benchmarks;
use crate::report::layout::Layout;
use crate::report::table::Frame;
use crate::suites::experiment::{Experiment, Given, Opened, Preset, Text};
use crate::text::lab::TextLab;
use crate::text::settings::{MORE, Settings};
use crate::text::task::{Answer, Item, Part, TextTask, TextTasks};

/// The experiment.
pub struct Glue;

/// Settings of `glue`.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
pub struct GlueSettings {
    /// Settings that all programs of text classifiers share.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Settings,
    /// The data.
    #[command(flatten)]
    #[serde(flatten)]
    pub data: GlueData,
}

/// Data of `glue`.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Data")]
pub struct GlueData {
    /// Folder with one folder per task: GLUE's own TSV files (SST-2/train.tsv, dev.tsv) or Hugging Face's parquet files
    /// (sst2/train-*.parquet, validation-*.parquet) [default: generated sentence tasks].
    #[arg(long, value_hint = ValueHint::DirPath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Tasks, separated by commas: CoLA, SST-2, MRPC, QQP, STS-B, MNLI, QNLI, RTE, WNLI; or `all` that --data contains.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    pub task: Vec<String>,
    /// Also make predictions for the test sets in --data, in the format that GLUE's server accepts:
    /// predictions/SST-2.tsv.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    pub submission: bool,
}

impl GlueSettings {
    fn check(&mut self) -> Result<(), String> {
        self.common.check()?;
        if let Some(data) = &mut self.data.data {
            *data = absolute(data)?;
        }
        Ok(())
    }
}

/// Defaults without --model and --data: the small language model that ships with the program, with a head that reads
/// its last token, on generated tasks.
const SAMPLE: &str = r#"
r = 16
alpha = 32.0
learning_rate = 5e-3
"#;

impl Experiment for Glue {
    fn text(&self) -> Text {
        Text {
            name: "glue",
            about: "Fine-tune text encoders or decoders on GLUE's tasks and evaluate them with GLUE's metrics",
            more: MORE,
            examples: "glue
                glue --data GLUE --task sst-2,rte --model org/name --method lora,wegeft --seed 42,43,44
                glue --data GLUE --config paper-glue-roberta-base --sweep",
            defaults: concat!(
                include_str!("text.toml"),
                "method = [\"none\", \"linear\", \"lora\", \"wegeft\"]\nlearning_rate = 5e-4\n"
            ),
            presets: &[
                Preset {
                    name: "paper-glue-roberta-base",
                    text: include_str!("../../configs/paper-glue-roberta-base.toml"),
                },
                Preset {
                    name: "paper-glue-roberta-large",
                    text: include_str!("../../configs/paper-glue-roberta-large.toml"),
                },
            ],
        }
    }

    fn wing(&self) -> Wing {
        Wing::Text
    }

    fn flags(&self, command: Command) -> Command {
        GlueSettings::augment_args(command)
    }

    fn task_names(&self) -> Vec<&'static str> {
        TASKS.iter().map(|task| task.name).collect()
    }

    fn open(&self, given: &Given) -> Result<Opened, String> {
        let (settings, program) = given.settings::<GlueSettings>(&[SAMPLE], GlueSettings::check)?;
        let names = names(&settings.data)?;
        let published = settings.data.data.is_some();
        let tasks: Box<dyn TextTasks> = match settings.data.data.clone() {
            Some(root) => Box::new(Files {
                root,
                names: names.clone(),
                submission: settings.data.submission,
            }),
            None => Box::new(Sample),
        };
        Ok(Opened {
            lab: Box::new(TextLab::new(program, settings.common, names, tasks)),
            layout: Layout::Texts {
                published: if published { &GLUE[..] } else { &[] },
                published_tasks: &GLUE_TASKS,
            },
        })
    }

    fn published(&self, found: &[String]) -> Option<Frame> {
        benchmarks::glue(found)
    }
}

/// The tasks in `settings`, by GLUE's names; for `all`, those whose files exist.
fn names(settings: &GlueData) -> Result<Vec<String>, String> {
    let all = settings.task.iter().any(|name| name == "all");
    let Some(root) = &settings.data else {
        let known = sample::NAMED.join(", ");
        let named = |name: &String| {
            let found = sample::NAMED.iter().find(|known| known.eq_ignore_ascii_case(name));
            found.map(|name| (*name).to_string()).ok_or_else(|| {
                format!("task '{name}' is none of the generated ones, {known}; GLUE's need --data, the folder with their files")
            })
        };
        return match all {
            true => Ok(sample::NAMED.map(String::from).to_vec()),
            false => settings.task.iter().map(named).collect(),
        };
    };
    if !all {
        let named = |name: &String| glue::task(name).map(|task| task.name.to_string());
        return settings.task.iter().map(named).collect();
    }
    // Only folders of the task's own count: files outside of them could belong to any task.
    let shared = [root.clone(), root.join("data")];
    let own = |path: &PathBuf| shared.iter().all(|folder| path.parent() != Some(folder.as_path()));
    let there = |task: &&GlueTask| glue::files(root, task, Which::Train).is_some_and(|files| files.iter().all(own));
    let found: Vec<String> = TASKS.iter().filter(there).map(|task| task.name.to_string()).collect();
    match found.is_empty() {
        true => Err(format!(
            "{} holds none of GLUE's tasks; expected folders such as SST-2 with train.tsv and dev.tsv, or sst2 with parquet files",
            root.display()
        )),
        false => {
            tell(format_args!("tasks: {}", found.join(", ")));
            Ok(found)
        }
    }
}

/// Tasks from files.
struct Files {
    root: PathBuf,
    names: Vec<String>,
    submission: bool,
}

fn item(item: GlueItem) -> Item {
    Item {
        text: item.text,
        pair: item.pair,
        label: item.label,
    }
}

impl Files {
    fn read(&self, task: &GlueTask, part: Which) -> Result<GlueSplit, String> {
        let split = glue::read(&self.root, task, part).map_err(|e| e.to_string())?;
        if split.left_out > 0 {
            tell(format_args!(
                "{}: {} rows left out: incomplete, or without a label that the annotators agreed on",
                task.name, split.left_out
            ));
        }
        Ok(split)
    }

    /// The parts of one kind, one per variant of the task.
    fn parts(&self, task: &GlueTask, kind: fn(usize) -> Which, name: &str) -> Result<Vec<Part>, String> {
        let part = |variant: usize| {
            let split = self.read(task, kind(variant))?;
            Ok(Part {
                name: format!("{name}{}", task.variants[variant].1),
                items: split.items.into_iter().map(item).collect(),
            })
        };
        (0..task.variants.len()).map(part).collect()
    }
}

/// Name of test sets.
const TEST: &str = "test";

impl TextTasks for Files {
    fn load(&self, name: &str) -> Result<TextTask, String> {
        let task = glue::task(name)?;
        let labels = match task.is_regression() {
            true => Labels::regression(),
            false => {
                let names = task.labels.iter().map(|name| (*name).to_string()).collect();
                Labels::new(names, Problem::SingleLabel)?
            }
        };
        let valid = self.parts(task, Which::Validation, "validation")?;
        let mut tests = (0..task.variants.len()).map(|variant| glue::files(&self.root, task, Which::Test(variant)));
        let test = match self.submission {
            true if tests.all(|files| files.is_some()) => self.parts(task, Which::Test, TEST)?,
            true => {
                tell(format_args!(
                    "{}: no predictions for its test sets, since some of them are missing",
                    task.name
                ));
                Vec::new()
            }
            false => Vec::new(),
        };
        Ok(TextTask {
            name: task.name.into(),
            labels,
            metrics: task.metrics.to_vec(),
            train: self.read(task, Which::Train)?.items.into_iter().map(item).collect(),
            valid,
            test,
            max_length: None,
        })
    }

    fn files(&self) -> Vec<PathBuf> {
        let of = |name: &String| -> Vec<PathBuf> {
            let Ok(task) = glue::task(name) else { return Vec::new() };
            let variants = 0..task.variants.len();
            let tests = variants.clone().map(Which::Test).filter(|_| self.submission);
            let parts = variants.map(Which::Validation).chain([Which::Train]).chain(tests);
            parts
                .filter_map(|part| glue::files(&self.root, task, part))
                .flatten()
                .collect()
        };
        self.names.iter().flat_map(of).collect()
    }

    fn place(&self) -> Option<String> {
        Some(self.root.display().to_string())
    }

    fn write(&self, task: &TextTask, part: &Part, answers: &[Answer], folder: &Path) -> Result<(), String> {
        // GLUE's server accepts predictions only for its test sets.
        let Some(suffix) = part.name.strip_prefix(TEST) else {
            return Ok(());
        };
        let known = glue::task(&task.name)?;
        let variant = known.variants.iter().position(|(_, own)| *own == suffix).unwrap_or(0);
        let items = part.items.iter().map(|item| GlueItem {
            text: item.text.clone(),
            pair: item.pair.clone(),
            label: item.label,
        });
        let items: Vec<GlueItem> = items.collect();
        let labels: Vec<Label> = answers.iter().map(|answer| answer.label).collect();
        glue::write_predictions(folder, known, variant, &items, &labels)
            .map(drop)
            .map_err(|e| e.to_string())
    }
}

/// The generated tasks.
struct Sample;

impl TextTasks for Sample {
    fn load(&self, name: &str) -> Result<TextTask, String> {
        let made = sample::task(name).ok_or_else(|| format!("there is no generated task '{name}'"))?;
        let labels = match made.classes.is_empty() {
            true => Labels::regression(),
            false => {
                let names = made.classes.iter().map(|name| (*name).to_string()).collect();
                Labels::new(names, Problem::SingleLabel)?
            }
        };
        Ok(TextTask {
            name: name.into(),
            labels,
            metrics: made.metrics.to_vec(),
            train: made.train,
            valid: vec![Part {
                name: "validation".into(),
                items: made.valid,
            }],
            test: Vec::new(),
            max_length: None,
        })
    }

    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn place(&self) -> Option<String> {
        None
    }

    fn write(&self, _: &TextTask, _: &Part, _: &[Answer], _: &Path) -> Result<(), String> {
        Ok(())
    }
}
