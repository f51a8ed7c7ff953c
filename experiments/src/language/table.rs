//! The tables of results in the terminal.

use comfy_table::{CellAlignment, Table, presets};
use datasets::language::published::Row;

use crate::language::outcome::Outcome;
use crate::table::{distinct, mean};

/// One row a method: accuracy on each set, the mean over the `scored` ones, what it cost; then the published rows.
pub fn suite(outcomes: &[Outcome], scored: &[&str], published: &[Row], published_sets: &[&str]) -> String {
    let sets = distinct(outcomes.iter().map(|outcome| outcome.task.clone()));
    let methods = distinct(outcomes.iter().map(|outcome| outcome.method.clone()));
    let of = |method: &str, set: &str| outcomes.iter().find(|o| o.method == *method && o.task == *set);
    let mut table = new_table(
        ["method", "trainable", "%"]
            .iter()
            .map(|name| name.to_string())
            .chain(sets.clone())
            .chain(
                ["average", "train s", "tokens/s", "peak MB"]
                    .iter()
                    .map(|name| name.to_string()),
            ),
    );
    let cell = |value: Option<f64>, digits: usize| value.map_or("-".to_string(), |value| format!("{value:.digits$}"));
    for method in &methods {
        let Some(first) = outcomes.iter().find(|outcome| outcome.method == *method) else {
            continue;
        };
        let values: Vec<Option<f64>> = sets.iter().map(|set| of(method, set)?.value).collect();
        let average = average(outcomes, method, scored, |outcome| outcome.value);
        let mut row = vec![
            method.clone(),
            first.trainable_params.to_string(),
            format!("{:.3}", first.percent_trainable),
        ];
        row.extend(values.iter().map(|value| cell(*value, 1)));
        row.push(cell(average, 1));
        row.push(format!("{:.1}", first.training_seconds));
        row.push(cell(first.tokens_per_second, 0));
        let of_method = outcomes.iter().filter(|outcome| outcome.method == *method);
        row.push(cell(
            of_method.filter_map(|outcome| outcome.peak_mb).reduce(f64::max),
            0,
        ));
        table.add_row(row);
    }
    right_aligned(&mut table);
    let mut text = format!("accuracy by generation, percent\n{table}");
    if outcomes.iter().any(|outcome| outcome.likelihood.is_some()) {
        let header = ["method".to_string()]
            .into_iter()
            .chain(sets.clone())
            .chain(["average".to_string()]);
        let mut table = new_table(header);
        for method in &methods {
            let mut row = vec![method.clone()];
            row.extend(
                sets.iter()
                    .map(|set| cell(of(method, set).and_then(|o| o.likelihood), 1)),
            );
            row.push(cell(average(outcomes, method, scored, |outcome| outcome.likelihood), 1));
            table.add_row(row);
        }
        right_aligned(&mut table);
        text += &format!("\n\naccuracy of the most likely option, percent\n{table}");
    }
    if !published.is_empty() {
        text += &format!(
            "\n\npublished (7 or 8 billion values; not comparable with a smaller model)\n{}",
            self::published(published, published_sets)
        );
    }
    text
}

fn published(rows: &[Row], sets: &[&str]) -> Table {
    let names = ["model", "method", "%"].iter().chain(sets).chain(&["average"]);
    let mut table = new_table(names.map(|name| name.to_string()));
    for row in rows {
        let value = |at: usize| {
            row.values
                .get(at)
                .map_or("-".to_string(), |value| format!("{value:.1}"))
        };
        let mut cells = vec![
            row.model.to_string(),
            row.method.to_string(),
            format!("{:.3}", row.percent),
        ];
        cells.extend((0..sets.len()).map(value));
        cells.push(format!("{:.1}", row.average));
        table.add_row(cells);
    }
    right_aligned(&mut table);
    table
}

/// One row: what was trained, and what it gives.
pub fn finetune(outcome: &Outcome) -> String {
    let mut table = new_table(
        [
            "method",
            "trainable",
            "%",
            "validation loss",
            "train s",
            "tokens/s",
            "peak MB",
        ]
        .iter()
        .map(|n| n.to_string()),
    );
    let cell = |value: Option<f64>, digits: usize| value.map_or("-".to_string(), |value| format!("{value:.digits$}"));
    table.add_row([
        outcome.method.clone(),
        outcome.trainable_params.to_string(),
        format!("{:.3}", outcome.percent_trainable),
        cell(outcome.value, 4),
        format!("{:.1}", outcome.training_seconds),
        cell(outcome.tokens_per_second, 0),
        cell(outcome.peak_mb, 0),
    ]);
    right_aligned(&mut table);
    table.to_string()
}

/// The mean over the `scored` sets, if the method has all of them.
fn average(outcomes: &[Outcome], method: &str, scored: &[&str], value: fn(&Outcome) -> Option<f64>) -> Option<f64> {
    let values: Option<Vec<f64>> = scored
        .iter()
        .map(|set| value(outcomes.iter().find(|o| o.method == *method && o.task == **set)?))
        .collect();
    mean(values?.into_iter())
}

fn new_table(header: impl Iterator<Item = String>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(header);
    table
}

fn right_aligned(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}
