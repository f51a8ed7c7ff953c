//! Reads a split of a task from a data root, in any of the possible places and either of the two formats.

use std::path::{Path, PathBuf};

use super::tasks::{GlueTask, Label};
use crate::language::TextError;
use crate::texts::Row;
use crate::texts::rows::{read as read_rows, table};

/// Which part of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// For training.
    Train,
    /// GLUE's dev set. The number is an index into [`GlueTask::variants`]: MNLI has matched (0) and mismatched (1).
    Validation(usize),
    /// The test set, which has no labels in the official files.
    Test(usize),
}

/// A text or a pair.
#[derive(Debug, Clone, PartialEq)]
pub struct GlueItem {
    /// The text, or the first of a pair.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// The answer, if the file has it.
    pub label: Option<Label>,
}

/// A part of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct GlueSplit {
    /// The texts.
    pub items: Vec<GlueItem>,
    /// Number of rows left out: rows that are truncated in QQP's own files, and rows whose annotators disagreed (`-`).
    pub left_out: usize,
    /// The files.
    pub paths: Vec<PathBuf>,
}

/// Reads a part of `task` under `root`: from `root/SST-2/`, `root/sst2/` or `root/` itself; GLUE's TSV files (`dev.tsv`) or
/// Hugging Face's parquet (`validation-*.parquet`, in a folder `data` too).
///
/// # Errors
/// A missing or malformed file, or a row without a field, with an unknown label, or with none outside a test set, with its
/// position.
pub fn read(root: &Path, task: &GlueTask, part: Part) -> Result<GlueSplit, TextError> {
    // Only test sets come without labels.
    let labelled = !matches!(part, Part::Test(_));
    match files(root, task, part) {
        Some(paths) if paths[0].extension().is_some_and(|ending| ending == "tsv") => {
            return split(task, paths, labelled, |path| tsv(task, path));
        }
        Some(paths) => {
            let wanted = wanted(task);
            return split(task, paths, labelled, |path| read_rows(path, &wanted));
        }
        None => {}
    }
    let name = names(task, part).join(".tsv or ");
    let message = format!(
        "no {}/{name}.tsv in it, and no {}/{}-*.parquet; fetch GLUE's {} from gluebenchmark.com or the Hub's nyu-mll/glue",
        task.name,
        task.hub_name,
        names(task, part).last().map_or("train", String::as_str),
        task.name
    );
    Err(TextError::read(root, message))
}

/// The files of a part of `task` under `root`, if they exist, in any of the places and formats of [`read`].
pub fn files(root: &Path, task: &GlueTask, part: Part) -> Option<Vec<PathBuf>> {
    let folders = [root.join(task.name), root.join(task.hub_name), root.to_path_buf()];
    for folder in &folders {
        for name in names(task, part) {
            let path = folder.join(format!("{name}.tsv"));
            if path.is_file() {
                return Some(vec![path]);
            }
            let found = parquet_files(folder, &name);
            if !found.is_empty() {
                return Some(found);
            }
        }
    }
    None
}

/// Possible names of the part's file, GLUE's own first.
fn names(task: &GlueTask, part: Part) -> Vec<String> {
    let suffix = |variant: usize| task.variants[variant].0;
    match part {
        Part::Train => vec!["train".into()],
        Part::Validation(variant) => ["dev", "validation"]
            .map(|name| format!("{name}{}", suffix(variant)))
            .into(),
        Part::Test(variant) => vec![format!("test{}", suffix(variant))],
    }
}

fn parquet_files(folder: &Path, name: &str) -> Vec<PathBuf> {
    let is_of_it = |path: &PathBuf| {
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        let rest = file.strip_prefix(name).and_then(|rest| rest.strip_suffix(".parquet"));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let listed = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_of_it).collect();
        paths.sort();
        paths
    };
    let paths = listed(folder);
    if paths.is_empty() {
        listed(&folder.join("data"))
    } else {
        paths
    }
}

/// The columns that [`item`] reads; MNLI's files have parse trees beside them.
fn wanted(task: &GlueTask) -> Vec<&'static str> {
    let fields = [task.fields, task.hub_fields].concat();
    fields.into_iter().chain([task.label_field, "label", "qid1"]).collect()
}

/// GLUE's own format: tab-separated columns, in which quotes have no special meaning.
fn tsv(task: &GlueTask, path: &Path) -> Result<Vec<Row>, TextError> {
    if task.name == "CoLA" && path.file_name().is_none_or(|name| name != "test.tsv") {
        // Without a header; the columns are a source, the label, the author's mark and the sentence.
        let header = ["source", "label", "mark", "sentence"];
        let rows = table(path, b'\t', false, Some(&header), &[])?;
        let headed = rows[0]
            .text("label")
            .is_ok_and(|label| label.as_deref() == Some("label"));
        return if headed {
            table(path, b'\t', false, None, &wanted(task))
        } else {
            Ok(rows)
        };
    }
    table(path, b'\t', false, None, &wanted(task))
}

fn split(
    task: &GlueTask,
    paths: Vec<PathBuf>,
    labelled: bool,
    rows: impl Fn(&Path) -> Result<Vec<Row>, TextError>,
) -> Result<GlueSplit, TextError> {
    let mut split = GlueSplit {
        items: Vec::new(),
        left_out: 0,
        paths: Vec::new(),
    };
    for path in &paths {
        for row in rows(path)? {
            match item(task, &row)? {
                Some(item) if labelled && item.label.is_none() => {
                    let message = format!("no label in '{}'; only a test set comes without", task.label_field);
                    return Err(row.error(message));
                }
                Some(item) => split.items.push(item),
                None => split.left_out += 1,
            }
        }
    }
    split.paths = paths;
    Ok(split)
}

/// The text of a row; `None` if it is to be left out.
fn item(task: &GlueTask, row: &Row) -> Result<Option<GlueItem>, TextError> {
    let hub = !task.fields.iter().all(|field| row.has(field));
    let fields = if hub { task.hub_fields } else { task.fields };
    // Some of QQP's rows end at a line break within a question.
    if task.name == "QQP" && fields.iter().any(|field| !row.has(field)) {
        return Ok(None);
    }
    let mut texts = Vec::new();
    for field in fields {
        texts.push(row.required(field)?);
    }
    let label_field = [task.label_field, "label"].into_iter().find(|field| row.has(field));
    let label = match label_field {
        Some(field) => row.text(field)?.filter(|label| !label.is_empty()),
        None if task.name == "QQP" && row.has("qid1") => return Ok(None),
        None => None,
    };
    if label.as_deref() == Some("-") {
        return Ok(None);
    }
    let label = match label.as_deref() {
        None | Some("-1" | "-1.0") => None,
        Some(label) => Some(answer(task, label).map_err(|message| row.error(message))?),
    };
    let mut texts = texts.into_iter();
    Ok(Some(GlueItem {
        text: texts.next().unwrap_or_default(),
        pair: texts.next(),
        label,
    }))
}

/// A label, given by number or name, or a score.
fn answer(task: &GlueTask, label: &str) -> Result<Label, String> {
    if task.is_regression() {
        return match label.trim().parse::<f32>() {
            Ok(score) if (0.0..=5.0).contains(&score) => Ok(Label::Score(score)),
            _ => Err(format!("score '{label}' is no number from 0 to 5")),
        };
    }
    let named = task.labels.iter().position(|name| *name == label);
    let numbered = label.parse::<usize>().ok().filter(|number| *number < task.labels.len());
    named.or(numbered).map(Label::Class).ok_or_else(|| {
        let names = task.labels.join(", ");
        format!(
            "label '{label}' is none of {names}, nor a number below {}",
            task.labels.len()
        )
    })
}
