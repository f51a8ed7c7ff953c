//! report.html of a language run folder: one file that opens without network.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;
use wegeft::storage::write_then_rename;

use crate::language::evaluate::Answer;
use crate::language::outcome::Outcome;
use crate::plots::{self, Curve};
use crate::report::run_folder::escape;
use crate::table::distinct;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}\
pre{background:#f4f4f4;padding:1rem;overflow-x:auto;white-space:pre-wrap}pre.table{white-space:pre}.wrong{border-left:4px solid #b00}\
.right{border-left:4px solid #080}svg{max-width:100%}";

/// Answers of each method and set that are shown.
const SHOWN: usize = 3;

/// Writes `report.html` into the run folder `out`: the tables as printed, the curves of each method's metrics.jsonl,
/// the first answers to each set, the settings.
///
/// # Errors
/// A plot that cannot be drawn or a file that cannot be written.
pub fn write(out: &Path, title: &str, outcomes: &[Outcome], table: &str) -> Result<(), String> {
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style><h1>{title}: {}</h1>\n\
         <pre class=table>{}</pre>\n",
        escape(&out.display().to_string()),
        escape(table)
    );
    let methods = distinct(outcomes.iter().map(|outcome| outcome.method.clone()));
    html += "<h2>Training</h2>\n";
    for method in &methods {
        let path = out.join(method).join("metrics.jsonl");
        let curves: Vec<Curve> = ["train", "valid"]
            .iter()
            .map(|split| (split.to_string(), curve(&path, split)))
            .filter(|(_, points)| !points.is_empty())
            .collect();
        if !curves.is_empty() {
            html += &plots::losses(method, &curves)?;
        }
    }
    for outcome in outcomes {
        let path = out.join(&outcome.method).join(format!("{}.jsonl", outcome.task));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let answers = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Answer>(line).ok());
        for (number, answer) in answers.take(SHOWN).enumerate() {
            if number == 0 {
                let _ = writeln!(html, "<h2>{}, {}</h2>", escape(&outcome.method), escape(&outcome.task));
            }
            let class = if answer.verdict.correct { "right" } else { "wrong" };
            let _ = writeln!(
                html,
                "<pre class={class}>{}<b>{}</b>\n[extracted: {}; right: {}]</pre>",
                escape(&answer.prompt),
                escape(&answer.output),
                escape(answer.verdict.extracted.as_deref().unwrap_or("nothing")),
                escape(&answer.gold)
            );
        }
    }
    let config = std::fs::read_to_string(out.join("config.toml")).unwrap_or_default();
    let _ = writeln!(html, "<h2>Settings</h2><pre>{}</pre></html>", escape(&config));
    write_then_rename(&out.join("report.html"), html.as_bytes()).map_err(|e| e.to_string())
}

/// Loss over steps of one split; empty if the file is missing.
fn curve(metrics: &Path, split: &str) -> Vec<(f64, f64)> {
    let text = std::fs::read_to_string(metrics).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["split"] == *split)
        .filter_map(|line| Some((line["step"].as_f64()?, line["loss"].as_f64()?)))
        .collect()
}
