//! The terminal's tables of results for trainings that are tested on several sets or judged by their loss.

use datasets::language::published::Row;

use crate::cli::table::{cell, distinct, mean, table};
use crate::report::terminal::spread;
use crate::run::outcome::{FORGETTING, Outcome};

/// One row per method: accuracy on each set, the mean over the `scored` ones, the cost; then the published rows.
/// Several seeds are shown as mean and standard deviation.
pub fn suite(outcomes: &[Outcome], scored: &[String], published: &[Row], published_sets: &[&str]) -> String {
    let sets = distinct(outcomes.iter().map(|outcome| outcome.task.clone()));
    let methods = distinct(outcomes.iter().map(|outcome| outcome.method.clone()));
    let texts = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let forgets = outcomes.iter().any(|outcome| outcome.scores.contains_key(FORGETTING));
    let mut head = [
        texts(&["method", "trainable", "%"]),
        sets.clone(),
        texts(&["average", "train s", "tokens/s", "peak MB"]),
    ]
    .concat();
    if forgets {
        head.push(FORGETTING.to_string());
    }
    let rows = methods.iter().map(|method| {
        let of_method: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.method == *method).collect();
        let all = |value: fn(&Outcome) -> Option<f64>| of_method.iter().filter_map(|o| value(o)).collect::<Vec<f64>>();
        let mut row = vec![
            method.clone(),
            of_method[0].trainable_params.to_string(),
            format!("{:.3}", of_method[0].percent_trainable),
        ];
        row.extend(values(&of_method, &sets, scored, |outcome| outcome.value));
        row.push(cell(mean(all(|o| o.training_seconds).into_iter()), 1));
        row.push(cell(mean(all(|o| o.tokens_per_second).into_iter()), 0));
        row.push(cell(all(|o| o.peak_mb).into_iter().reduce(f64::max), 0));
        if forgets {
            row.push(cell(mean(all(|o| o.scores.get(FORGETTING).copied()).into_iter()), 3));
        }
        row
    });
    let metrics = distinct(
        outcomes
            .iter()
            .filter(|outcome| outcome.group.is_empty())
            .map(|outcome| outcome.metric.clone()),
    );
    let title = match metrics.iter().all(|metric| metric == "accuracy") {
        true => "accuracy by generation, percent".to_string(),
        false => metrics.join("; "),
    };
    let mut text = format!("{title}\n{}", table(head, rows, 1));
    if outcomes.iter().any(|outcome| outcome.likelihood.is_some()) {
        let head = [texts(&["method"]), sets.clone(), texts(&["average"])].concat();
        let rows = methods.iter().map(|method| {
            let of_method: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.method == *method).collect();
            let mut row = vec![method.clone()];
            row.extend(values(&of_method, &sets, scored, |outcome| outcome.likelihood));
            row
        });
        text += &format!(
            "\n\naccuracy of the most likely option, percent\n{}",
            table(head, rows, 1)
        );
    }
    if !published.is_empty() {
        text += &format!(
            "\n\npublished (7 or 8 billion parameters; not comparable with a smaller model)\n{}",
            self::published(published, published_sets)
        );
    }
    text
}

/// A method's values on each set, and the mean over the scored sets, for the seeds that have all of them.
fn values(
    of_method: &[&Outcome],
    sets: &[String],
    scored: &[String],
    value: fn(&Outcome) -> Option<f64>,
) -> Vec<String> {
    let mut seeds: Vec<u64> = of_method.iter().map(|outcome| outcome.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let of = |seed: u64, set: &String| {
        let found = of_method
            .iter()
            .find(|outcome| outcome.seed == seed && outcome.task == *set);
        found.and_then(|outcome| value(outcome))
    };
    let on_set = |set: &String| spread(&seeds.iter().filter_map(|seed| of(*seed, set)).collect::<Vec<_>>(), 1);
    let average = |seed: &u64| {
        let values: Option<Vec<f64>> = scored.iter().map(|set| of(*seed, set)).collect();
        mean(values?.into_iter())
    };
    let averages: Vec<f64> = seeds.iter().filter_map(average).collect();
    sets.iter().map(on_set).chain([spread(&averages, 1)]).collect()
}

/// Published rows with their values for `sets`.
pub fn published(rows: &[Row], sets: &[&str]) -> String {
    let names = ["model", "method", "%"].iter().chain(sets).chain(&["average"]);
    let row = |row: &Row| {
        let mut cells = vec![
            row.model.to_string(),
            row.method.to_string(),
            format!("{:.3}", row.percent),
        ];
        cells.extend((0..sets.len()).map(|at| cell(row.values.get(at).copied(), 1)));
        cells.push(format!("{:.1}", row.average));
        cells
    };
    table(names.map(|name| name.to_string()), rows.iter().map(row), 1).to_string()
}

/// One row per method: what was trained, and the result.
pub fn losses(outcomes: &[Outcome]) -> String {
    let head = [
        "method",
        "trainable",
        "%",
        "validation loss",
        "train s",
        "tokens/s",
        "peak MB",
    ];
    let methods = distinct(outcomes.iter().map(|outcome| outcome.method.clone()));
    let rows = methods.iter().map(|method| {
        let of_method: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.method == *method).collect();
        let all = |value: fn(&Outcome) -> Option<f64>| of_method.iter().filter_map(|o| value(o)).collect::<Vec<f64>>();
        [
            method.clone(),
            of_method[0].trainable_params.to_string(),
            format!("{:.3}", of_method[0].percent_trainable),
            spread(&all(|o| o.value), 4),
            cell(mean(all(|o| o.training_seconds).into_iter()), 1),
            cell(mean(all(|o| o.tokens_per_second).into_iter()), 0),
            cell(all(|o| o.peak_mb).into_iter().reduce(f64::max), 0),
        ]
    });
    table(head, rows, 1).to_string()
}
