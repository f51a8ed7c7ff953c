//! The page of a run folder of language models or text classifiers: the table, losses, and some of the answers.

use std::path::Path;

use serde_json::Value;

use crate::report::layout::{Layout, curve, inside, labelled};
use crate::report::page::{Section, Shown};
use crate::report::plots::{self, Curve};
use crate::run::files::{read_lines, read_long_json};
use crate::run::outcome::Outcome;

/// Answers of each method and set that are shown.
const SHOWN: usize = 3;

/// The sections of the page. `table` is the table as the terminal shows it.
///
/// # Errors
/// A plot that cannot be drawn or a file that cannot be read.
pub fn sections(out: &Path, layout: &Layout, outcomes: &[Outcome], table: &str) -> Result<Vec<Section>, String> {
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
            true => read_long_json(&folder.join("samples.json"), "remove it")?.unwrap_or_default(),
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
