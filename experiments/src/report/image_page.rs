//! The page of a run folder of image tasks: results, costs, curves, and what each classifier says of the test images.

use std::path::Path;

use crate::cli::table::{cell, deviation, distinct, mean};
use crate::report::layout::{Layout, curve, labelled};
use crate::report::page::{Image, Link, Section, rows};
use crate::report::plots::{self, Axis, Curve, Point};
use crate::report::terminal;
use crate::run::files::read_long_json;
use crate::run::outcome::Outcome;
use crate::vision::confusion::mistakes;
use crate::vision::samples::{ConfusionFile, Sample};

/// Classes of a confusion matrix; of more, the most frequent mistakes are shown.
const MOST_CLASSES: usize = 20;

/// The sections of the page.
///
/// # Errors
/// A plot that cannot be drawn or a file that cannot be read.
pub fn sections(out: &Path, layout: &Layout, outcomes: &[Outcome]) -> Result<Vec<Section>, String> {
    // Images that were trained on validate nothing.
    let validated: Vec<&Outcome> = outcomes.iter().filter(|o| o.validation.is_some()).collect();
    let mut curves = Vec::new();
    for task in distinct(validated.iter().map(|o| o.task.clone())) {
        let of_task = validated.iter().filter(|o| o.task == task);
        let of_outcome = |o: &&&Outcome| -> Result<Curve, String> {
            let path = layout.folder(out, o).join("metrics.jsonl");
            Ok((o.method.clone(), curve(&path, "valid", "epoch", "accuracy")?))
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
            note: "Mean over tasks; bars are standard deviations over seeds.".into(),
            plots: vec![accuracy(outcomes)?],
            ..Section::default()
        },
        Section {
            title: "What each method costs".into(),
            note: "Means over tasks and seeds; the peak is the maximum.".into(),
            rows: rows(costs(outcomes)),
            ..Section::default()
        },
        Section {
            title: "Training curves".into(),
            note: match validated.len() < outcomes.len() {
                true => "One line per seed; none for runs that trained on the validation images too.".into(),
                false => "One line per seed.".into(),
            },
            plots: curves,
            ..Section::default()
        },
    ];
    for outcome in outcomes {
        sections.extend(trial(out, layout, outcome, &labelled(outcome, outcomes))?);
    }
    Ok(sections)
}

/// What one trained classifier says of the test images.
fn trial(out: &Path, layout: &Layout, outcome: &Outcome, label: &str) -> Result<Vec<Section>, String> {
    let folder = layout.folder(out, outcome);
    let samples: Vec<Sample> = read_long_json(&folder.join("samples.json"), "remove it")?.unwrap_or_default();
    let (hard, even): (Vec<Sample>, Vec<Sample>) = samples.into_iter().partition(|sample| sample.hard);
    let images = |samples: Vec<Sample>| samples.into_iter().map(image).collect::<Vec<Image>>();
    let mut sections = vec![Section {
        title: format!("{}, {label}", outcome.task),
        links: adapter_link(out, &folder).into_iter().collect(),
        note: match even.is_empty() {
            true => String::new(),
            false => "Test images; red where the prediction is wrong.".into(),
        },
        images: images(even),
        ..Section::default()
    }];
    if !hard.is_empty() {
        sections.push(Section {
            note: "The hardest: those whose label the model finds the least likely.".into(),
            images: images(hard),
            ..Section::default()
        });
    }
    let confusion: Option<ConfusionFile> = read_long_json(&folder.join("confusion.json"), "remove it")?;
    sections.extend(confusion.map(|file| Section {
        note: match file.counts.len() <= MOST_CLASSES {
            true => "Test images by label (rows) and prediction (columns).".into(),
            false => "The most frequent mistakes on the test images.".into(),
        },
        rows: rows(confused(&file)),
        ..Section::default()
    }));
    Ok(sections)
}

fn image(sample: Sample) -> Image {
    Image {
        wrong: sample.label != sample.predicted,
        percent: format!("{:.0}", 100.0 * sample.probability),
        // A page that loads nothing tells nobody that it was opened.
        source: Some(sample.image)
            .filter(|source| source.starts_with("data:image/"))
            .unwrap_or_default(),
        label: sample.label,
        predicted: sample.predicted,
    }
}

/// The adapter of a trial, from the page's own folder.
fn adapter_link(out: &Path, folder: &Path) -> Option<Link> {
    let adapter = folder.join("adapter");
    let path = adapter.strip_prefix(out).ok().filter(|_| adapter.is_dir())?;
    let text = path.display().to_string().replace('\\', "/");
    let href = text.bytes().map(|byte| match byte {
        b'/' | b'-' | b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    });
    // A name with a colon in its first part would be a scheme; they are escaped.
    Some(Link {
        href: href.collect(),
        text,
    })
}

/// The matrix, or of many classes the most frequent mistakes.
fn confused(file: &ConfusionFile) -> Vec<Vec<String>> {
    let name = |class: usize| file.classes.get(class).cloned().unwrap_or_else(|| class.to_string());
    let side = file.counts.len();
    if side <= MOST_CLASSES {
        let head = ["label".to_string()].into_iter().chain((0..side).map(name)).collect();
        let row = |(label, row): (usize, &Vec<usize>)| {
            let cells = row.iter().map(usize::to_string);
            [name(label)].into_iter().chain(cells).collect()
        };
        return [head]
            .into_iter()
            .chain(file.counts.iter().enumerate().map(row))
            .collect();
    }
    let head = ["label", "predicted", "images"].map(String::from).to_vec();
    let rows = mistakes(&file.counts, MOST_CLASSES).into_iter();
    let rows = rows.map(|(count, label, predicted)| vec![name(label), name(predicted), count.to_string()]);
    [head].into_iter().chain(rows).collect()
}

/// Each method's mean over the tasks against its parameters.
fn accuracy(outcomes: &[Outcome]) -> Result<String, String> {
    let point = |method: String| {
        let of_method: Vec<&Outcome> = outcomes.iter().filter(|o| o.method == method).collect();
        let seeds = distinct(of_method.iter().map(|o| o.seed));
        let of_seed = |seed: &u64| mean(of_method.iter().filter(|o| o.seed == *seed).filter_map(|o| o.value));
        let means: Vec<f64> = seeds.iter().filter_map(of_seed).collect();
        Point {
            x: of_method.iter().map(|o| o.trainable_params).max().unwrap_or(0) as f64,
            y: mean(means.iter().copied()).unwrap_or(0.0),
            spread: deviation(&means),
            name: method,
        }
    };
    let points: Vec<Point> = distinct(outcomes.iter().map(|o| o.method.clone()))
        .into_iter()
        .map(point)
        .collect();
    plots::scatter(
        "trainable parameters beside the head",
        "mean test top-1, %",
        Axis::Logarithmic,
        &points,
    )
}

/// A row per method: parameters, time and memory.
fn costs(outcomes: &[Outcome]) -> Vec<Vec<String>> {
    let heading = [
        "method",
        "trainable",
        "adapter kB (f32)",
        "seconds",
        "steps/s",
        "peak MB",
    ];
    let row = |method: String| {
        let of_method: Vec<&Outcome> = outcomes.iter().filter(|o| o.method == method).collect();
        let all = |value: fn(&Outcome) -> Option<f64>| of_method.iter().filter_map(move |o| value(o));
        let params = of_method.iter().map(|o| o.trainable_params).max().unwrap_or(0);
        vec![
            method,
            params.to_string(),
            format!("{:.0}", params as f64 * 4.0 / 1e3),
            cell(mean(all(|o| Some(o.seconds))), 1),
            cell(mean(all(|o| o.steps_per_second)), 1),
            cell(all(|o| o.peak_mb).reduce(f64::max), 0),
        ]
    };
    let methods = distinct(outcomes.iter().map(|o| o.method.clone())).into_iter();
    [heading.map(String::from).to_vec()]
        .into_iter()
        .chain(methods.map(row))
        .collect()
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
    let optional = cell;
    let small = |value: Option<f64>| match value {
        Some(0.0) => "0".into(),
        Some(value) => format!("{value:e}"),
        None => "-".into(),
    };
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
