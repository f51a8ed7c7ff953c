//! report.html of a run folder: one file that opens without network.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;
use wegeft::storage::write_then_rename;

use crate::plots::{self, Curve};
use crate::run::Outcome;
use crate::samples::Sample;
use crate::table::{distinct, mean, means};

pub(crate) const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;margin:1rem 0}th,td{padding:.25rem .7rem;border-bottom:1px solid #ccc;text-align:right}\
th:nth-child(-n+2),td:nth-child(-n+2){text-align:left}figure{display:inline-block;margin:.3rem;text-align:center;font-size:12px}\
figure img{width:72px;height:72px;image-rendering:pixelated}.wrong{color:#b00}svg{max-width:100%}pre{background:#f4f4f4;padding:1rem}";

/// Writes `report.html` into the run folder `out`, from its config.toml, the outcomes, and each run's metrics.jsonl
/// and samples.json.
///
/// # Errors
/// A plot that cannot be drawn or a file that cannot be written.
pub fn write(out: &Path, outcomes: &[Outcome]) -> Result<(), String> {
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>vtab</title><style>{STYLE}</style><h1>vtab: {}</h1>\n",
        escape(&out.display().to_string())
    );
    html += &results(outcomes);
    html += &mean_rows(outcomes);
    let methods = distinct(outcomes.iter().map(|o| o.method.clone()));
    let bars: Vec<plots::Bar> = methods
        .iter()
        .map(|method| {
            let of_method: Vec<&Outcome> = outcomes.iter().filter(|o| o.method == *method).collect();
            let params = of_method.iter().map(|o| o.trainable_params).max().unwrap_or(0);
            (
                method.clone(),
                params,
                mean(of_method.iter().map(|o| o.value)).unwrap_or(0.0),
            )
        })
        .collect();
    html += "<h2>Accuracy against trainable parameters</h2>\n";
    html += &plots::bars("mean over tasks; parameters beside the head", &bars)?;
    html += "<h2>Training curves</h2>\n";
    // Pictures that were trained on validate nothing.
    let validated: Vec<&Outcome> = outcomes.iter().filter(|o| o.validation.is_some()).collect();
    if validated.len() < outcomes.len() {
        html += "<p>None for runs that trained on the validation pictures too.</p>\n";
    }
    for task in distinct(validated.iter().map(|o| o.task.clone())) {
        let of_task = validated.iter().filter(|o| o.task == task);
        let curves: Vec<Curve> = of_task
            .map(|o| {
                (
                    o.method.clone(),
                    curve(&out.join(&task).join(&o.method).join("metrics.jsonl")),
                )
            })
            .collect();
        html += &plots::curves(&task, &curves)?;
    }
    html += "<h2>Sample predictions</h2>\n<p>Test pictures; red where the prediction is wrong.</p>\n";
    for outcome in outcomes {
        let path = out.join(&outcome.task).join(&outcome.method).join("samples.json");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let samples: Vec<Sample> = serde_json::from_str(&text).unwrap_or_default();
        html += &pictures(&format!("{}, {}", outcome.task, outcome.method), &samples);
    }
    let config = std::fs::read_to_string(out.join("config.toml")).unwrap_or_default();
    let _ = writeln!(html, "<h2>Settings</h2><pre>{}</pre></html>", escape(&config));
    write_then_rename(&out.join("report.html"), html.as_bytes()).map_err(|e| e.to_string())
}

fn results(outcomes: &[Outcome]) -> String {
    let mut html = String::from(
        "<table><tr><th>task<th>method<th>trainable<th>%<th>lr<th>weight decay<th>val top-1<th>test top-1<th>seconds<th>steps/s<th>peak MB</tr>\n",
    );
    for o in outcomes {
        let optional = |value: Option<f64>, digits: usize| value.map_or("-".into(), |v| format!("{v:.digits$}"));
        let _ = writeln!(
            html,
            "<tr><td>{}<td>{}<td>{}<td>{:.3}<td>{:e}<td>{:e}<td>{}<td>{:.1}<td>{:.1}<td>{:.1}<td>{}</tr>",
            escape(&o.task),
            escape(&o.method),
            o.trainable_params,
            o.percent_trainable,
            o.lr,
            o.weight_decay,
            optional(o.validation, 1),
            o.value,
            o.seconds,
            o.steps_per_second,
            optional(o.peak_mb, 0),
        );
    }
    html + "</table>\n"
}

fn mean_rows(outcomes: &[Outcome]) -> String {
    let mut html = String::from("<h2>Means</h2>\n<p>Test top-1, percent.</p><table>\n");
    for (index, row) in means(outcomes).iter().enumerate() {
        let cell = if index == 0 { "th" } else { "td" };
        html += "<tr>";
        for text in row {
            let _ = write!(html, "<{cell}>{}", escape(text));
        }
        html += "</tr>\n";
    }
    html + "</table>\n"
}

/// Validation accuracy over epochs; empty if the file is missing or the run had no validation.
fn curve(metrics: &Path) -> Vec<(f64, f64)> {
    let text = std::fs::read_to_string(metrics).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["split"] == "valid")
        .filter_map(|line| Some((line["epoch"].as_f64()?, line["accuracy"].as_f64()?)))
        .collect()
}

fn pictures(title: &str, samples: &[Sample]) -> String {
    let mut html = format!("<h3>{}</h3>\n", escape(title));
    for sample in samples {
        let class = if sample.label == sample.predicted {
            ""
        } else {
            " class=wrong"
        };
        let _ = write!(
            html,
            "<figure{class}><img alt=\"{label}\" src=\"{}\"><br>{}<br>{:.0} %<br>is {label}</figure>",
            escape(&sample.picture),
            escape(&sample.predicted),
            100.0 * sample.probability,
            label = escape(&sample.label),
        );
    }
    html
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_cannot_become_markup() {
        assert_eq!(super::escape("<b a=\"&\">"), "&lt;b a=&quot;&amp;&quot;&gt;");
    }
}
