//! The report.html of a run folder, and its table of results.

use std::path::{Component, Path, PathBuf};

use datasets::language::published::Row as PublishedRow;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::table::{distinct, mean};
use crate::report::page::{Image, Row, Section, Shown, page, rows};
use crate::report::plots::{self, Bar, Curve};
use crate::report::{suite_tables, terminal, text_tables};
use crate::run::files::{read_json, read_lines, replace};
use crate::run::outcome::Outcome;

/// How the outcomes of a run are arranged in its folder and its table.
#[derive(Debug, Clone)]
pub enum Layout {
    /// One training per task and method.
    Tasks,
    /// One training per method, tested on several sets.
    Sets {
        /// Sets that count in the average.
        scored: Vec<String>,
        /// Published rows to print with ours; none for the sample.
        published: &'static [PublishedRow],
        /// The sets for which the published rows have values.
        published_sets: Vec<&'static str>,
    },
    /// One training per method, judged by its loss.
    Losses,
    /// One training per task and method on texts; each task has its own metrics.
    Texts {
        /// Published rows to print with ours.
        published: &'static [PublishedRow],
        /// The tasks for which they have values.
        published_tasks: &'static [&'static str],
    },
}

impl Layout {
    /// The table as the terminal shows it.
    pub fn table(&self, outcomes: &[Outcome]) -> String {
        match self {
            Self::Tasks => terminal::table(outcomes),
            Self::Sets {
                scored,
                published,
                published_sets,
            } => suite_tables::suite(outcomes, scored, published, published_sets),
            Self::Losses => suite_tables::losses(outcomes),
            Self::Texts {
                published,
                published_tasks,
            } => text_tables::table(outcomes, published, published_tasks),
        }
    }

    /// The folder with the files of an outcome.
    fn folder(&self, out: &Path, outcome: &Outcome) -> PathBuf {
        let folder = match self {
            Self::Tasks | Self::Texts { .. } => inside(&inside(out, &outcome.task), &outcome.method),
            Self::Sets { .. } | Self::Losses => inside(out, &outcome.method),
        };
        let of_seed = folder.join(format!("seed-{}", outcome.seed));
        if of_seed.is_dir() { of_seed } else { folder }
    }
}

/// `name` below `folder`. Parts of `name` that would lead out of the folder are dropped.
fn inside(folder: &Path, name: &str) -> PathBuf {
    let parts = Path::new(name).components();
    let plain = parts.filter(|part| matches!(part, Component::Normal(_)));
    folder.join(plain.collect::<PathBuf>())
}

/// Number of answers that are shown for each method and set.
const SHOWN: usize = 3;

/// Writes `report.html` into the run folder `out` of program `title`: the results, the curves of each training, samples
/// of the models' outputs, the settings. `table` is the table as shown in the terminal.
///
/// # Errors
/// A plot that cannot be drawn or a file that cannot be read or written.
pub fn write(out: &Path, title: &str, layout: &Layout, outcomes: &[Outcome], table: &str) -> Result<(), String> {
    let mut sections = match layout {
        Layout::Tasks => tasks(out, layout, outcomes)?,
        Layout::Sets { .. } | Layout::Losses | Layout::Texts { .. } => methods(out, layout, outcomes, table)?,
    };
    let settings = std::fs::read_to_string(out.join("config.toml")).unwrap_or_default();
    sections.push(Section {
        title: "Settings".into(),
        text: settings,
        ..Section::default()
    });
    let html = page(title, &out.display().to_string(), &sections)?;
    replace(&out.join("report.html"), html.as_bytes())
}

fn tasks(out: &Path, layout: &Layout, outcomes: &[Outcome]) -> Result<Vec<Section>, String> {
    let methods = distinct(outcomes.iter().map(|o| o.method.clone()));
    let bar = |method: &String| -> Bar {
        let of_method: Vec<&Outcome> = outcomes.iter().filter(|o| o.method == *method).collect();
        let params = of_method.iter().map(|o| o.trainable_params).max().unwrap_or(0);
        let value = mean(of_method.iter().filter_map(|o| o.value)).unwrap_or(0.0);
        (method.clone(), params, value)
    };
    let bars: Vec<Bar> = methods.iter().map(bar).collect();
    // Images that were trained on cannot serve for validation.
    let validated: Vec<&Outcome> = outcomes.iter().filter(|o| o.validation.is_some()).collect();
    let mut curves = Vec::new();
    for task in distinct(validated.iter().map(|o| o.task.clone())) {
        let of_task = validated.iter().filter(|o| o.task == task);
        let of_outcome = |o: &&&Outcome| -> Result<Curve, String> {
            let path = layout.folder(out, o).join("metrics.jsonl");
            Ok((labelled(o, outcomes), curve(&path, "valid", "epoch", "accuracy")?))
        };
        let of_task: Vec<Curve> = of_task.map(|o| of_outcome(&o)).collect::<Result<_, _>>()?;
        curves.push(plots::curves(&task, &of_task)?);
    }
    let mut sections = vec![
        Section {
            rows: rows(results(outcomes)),
            ..Section::default()
        },
        Section {
            title: "Means".into(),
            note: "Test top-1, percent.".into(),
            rows: rows(terminal::means(outcomes)),
            ..Section::default()
        },
        Section {
            title: "Accuracy against trainable parameters".into(),
            plots: vec![plots::bars("mean over tasks; parameters beside the head", &bars)?],
            ..Section::default()
        },
        Section {
            title: "Training curves".into(),
            note: match validated.len() < outcomes.len() {
                true => "None for runs that trained on the validation images too.".into(),
                false => String::new(),
            },
            plots: curves,
            ..Section::default()
        },
        Section {
            title: "Sample predictions".into(),
            note: "Test images; red where the prediction is wrong.".into(),
            ..Section::default()
        },
    ];
    for outcome in outcomes {
        let path = layout.folder(out, outcome).join("samples.json");
        let samples: Vec<Sample> = read_json(&path, "remove it")?.unwrap_or_default();
        let image = |sample: Sample| Image {
            wrong: sample.label != sample.predicted,
            percent: format!("{:.0}", 100.0 * sample.probability),
            // The page must load nothing from the network, so that nobody can track who opens it.
            source: Some(sample.image)
                .filter(|source| source.starts_with("data:image/"))
                .unwrap_or_default(),
            label: sample.label,
            predicted: sample.predicted,
        };
        sections.push(Section {
            title: format!("{}, {}", outcome.task, labelled(outcome, outcomes)),
            images: samples.into_iter().map(image).collect(),
            ..Section::default()
        });
    }
    Ok(sections)
}

fn methods(out: &Path, layout: &Layout, outcomes: &[Outcome], table: &str) -> Result<Vec<Section>, String> {
    let mut drawn = Vec::new();
    let mut losses = Vec::new();
    let texts = matches!(layout, Layout::Texts { .. });
    for outcome in outcomes {
        let label = match texts {
            true => format!("{}, {}", outcome.task, labelled(outcome, outcomes)),
            false => labelled(outcome, outcomes),
        };
        if drawn.contains(&label) {
            continue;
        }
        let path = layout.folder(out, outcome).join("metrics.jsonl");
        let mut curves: Vec<Curve> = Vec::new();
        for split in ["train", "valid"] {
            let points = curve(&path, split, "step", "loss")?;
            if !points.is_empty() {
                curves.push((split.to_string(), points));
            }
        }
        if !curves.is_empty() {
            losses.push(plots::losses(&label, &curves)?);
        }
        drawn.push(label);
    }
    let mut sections = vec![
        Section {
            text: table.into(),
            ..Section::default()
        },
        Section {
            title: "Training".into(),
            plots: losses,
            ..Section::default()
        },
    ];
    for outcome in outcomes {
        let folder = layout.folder(out, outcome);
        let answers: Vec<Value> = match texts {
            true => read_json(&folder.join("samples.json"), "remove it")?.unwrap_or_default(),
            false => {
                let lines = read_lines(&inside(&folder, &format!("{}.jsonl", outcome.task)))?;
                lines.into_iter().map(|(_, answer)| answer).collect()
            }
        };
        if answers.is_empty() {
            continue;
        }
        let text = |answer: &Value, field: &str| answer[field].as_str().unwrap_or("nothing").to_string();
        let shown = |answer: &Value| Shown {
            prompt: text(answer, "prompt"),
            output: text(answer, "output"),
            extracted: text(answer, if texts { "output" } else { "extracted" }),
            gold: text(answer, "gold"),
            right: answer["correct"] == true,
        };
        sections.push(Section {
            title: format!("{}, {}", labelled(outcome, outcomes), outcome.task),
            answers: answers.iter().take(SHOWN).map(shown).collect(),
            ..Section::default()
        });
    }
    Ok(sections)
}

/// A test image and its prediction, as in samples.json.
#[derive(Deserialize)]
struct Sample {
    #[serde(alias = "picture")] // as earlier runs wrote it
    image: String,
    label: String,
    predicted: String,
    probability: f64,
}

/// The method, with its seed if there are several.
fn labelled(outcome: &Outcome, all: &[Outcome]) -> String {
    match all.iter().any(|other| other.seed != outcome.seed) {
        true => format!("{}, seed {}", outcome.method, outcome.seed),
        false => outcome.method.clone(),
    }
}

fn results(outcomes: &[Outcome]) -> Vec<Vec<String>> {
    let heading = [
        "task",
        "method",
        "seed",
        "trainable",
        "%",
        "lr",
        "weight decay",
        "val top-1",
        "test top-1",
        "seconds",
        "steps/s",
        "peak MB",
    ];
    let optional = crate::cli::table::cell;
    let small = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:e}"));
    let row = |o: &Outcome| {
        vec![
            o.task.clone(),
            o.method.clone(),
            o.seed.to_string(),
            o.trainable_params.to_string(),
            format!("{:.3}", o.percent_trainable),
            small(o.learning_rate),
            small(o.weight_decay),
            optional(o.validation, 1),
            optional(o.value, 1),
            format!("{:.1}", o.seconds),
            optional(o.steps_per_second, 1),
            optional(o.peak_mb, 0),
        ]
    };
    let heading = heading.map(String::from).to_vec();
    [heading].into_iter().chain(outcomes.iter().map(row)).collect()
}

/// Values of one split of metrics.jsonl; empty if the file is missing or has none.
fn curve(metrics: &Path, split: &str, x: &str, y: &str) -> Result<Vec<(f64, f64)>, String> {
    let lines = read_lines::<Value>(metrics)?;
    let of_split = lines.iter().filter(|(_, line)| line["split"] == *split);
    Ok(of_split
        .filter_map(|(_, line)| Some((line[x].as_f64()?, line[y].as_f64()?)))
        .collect())
}

/// Rows of a table that has a mean in some rows.
pub fn with_means(cells: Vec<Vec<String>>, is_mean: impl Fn(&str) -> bool) -> Vec<Row> {
    let mut rows = rows(cells);
    for row in &mut rows {
        row.mean = row.cells.first().is_some_and(|name| is_mean(name));
    }
    rows
}
