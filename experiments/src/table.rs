//! The table of results in the terminal.

use comfy_table::{CellAlignment, Table, presets};

use crate::run::Outcome;

/// One row per outcome, then group means and the mean over tasks of each method.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "task",
        "method",
        "trainable",
        "%",
        "val top-1",
        "test top-1",
        "seconds",
        "peak MB",
    ]);
    for outcome in outcomes {
        table.add_row([
            outcome.task.clone(),
            outcome.method.clone(),
            outcome.trainable_params.to_string(),
            format!("{:.3}", outcome.percent_trainable),
            outcome.validation.map_or("-".into(), |value| format!("{value:.1}")),
            format!("{:.1}", outcome.value),
            format!("{:.1}", outcome.seconds),
            outcome.peak_mb.map_or("-".into(), |value| format!("{value:.0}")),
        ]);
    }
    right_aligned(&mut table, 2);
    let mut means_table = Table::new();
    means_table.load_preset(presets::ASCII_MARKDOWN);
    let mut rows = means(outcomes).into_iter();
    means_table.set_header(rows.next().unwrap_or_default());
    means_table.add_rows(rows);
    right_aligned(&mut means_table, 1);
    format!("{table}\n\ntest top-1, percent\n{means_table}")
}

/// Test top-1 of each method, its mean over each group and over all tasks; the first row is the heading.
pub fn means(outcomes: &[Outcome]) -> Vec<Vec<String>> {
    let groups = distinct(outcomes.iter().map(|o| o.group.clone()));
    let mut rows: Vec<Vec<String>> = vec![["method".to_string()].into_iter().chain(groups.clone()).collect()];
    rows[0].push("mean over tasks".to_string());
    for method in distinct(outcomes.iter().map(|o| o.method.clone())) {
        let of_method = |outcome: &&Outcome| outcome.method == method;
        let cell = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.1}"));
        let mut row = vec![method.clone()];
        for group in &groups {
            let in_group = outcomes.iter().filter(of_method).filter(|o| o.group == *group);
            row.push(cell(mean(in_group.map(|o| o.value))));
        }
        row.push(cell(mean(outcomes.iter().filter(of_method).map(|o| o.value))));
        rows.push(row);
    }
    rows
}

fn right_aligned(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// The mean; `None` of nothing.
pub fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Each name once, in order of first appearance.
pub fn distinct(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}
