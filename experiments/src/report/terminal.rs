//! The terminal's table of results for separate trainings per task.

use crate::cli::table::{cell, deviation, distinct, mean, table as markdown};
use crate::run::outcome::Outcome;

/// One row per task and method, then group means and the mean over tasks of each method. Several seeds of a method
/// share one row, which shows mean and standard deviation.
pub fn table(outcomes: &[Outcome]) -> String {
    let header = [
        "task",
        "method",
        "trainable",
        "%",
        "val top-1",
        "test top-1",
        "seconds",
        "peak MB",
    ];
    let mut seen: Vec<(&str, &str)> = Vec::new();
    let mut rows: Vec<[String; 8]> = Vec::new();
    for first in outcomes {
        let key = (first.task.as_str(), first.method.as_str());
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let of_key: Vec<&Outcome> = outcomes
            .iter()
            .filter(|o| (o.task.as_str(), o.method.as_str()) == key)
            .collect();
        let all = |value: fn(&Outcome) -> Option<f64>| of_key.iter().filter_map(|o| value(o)).collect::<Vec<f64>>();
        rows.push([
            first.task.clone(),
            first.method.clone(),
            first.trainable_params.to_string(),
            format!("{:.3}", first.percent_trainable),
            spread(&all(|o| o.validation), 1),
            spread(&all(|o| o.value), 1),
            cell(mean(of_key.iter().map(|o| o.seconds)), 1),
            cell(all(|o| o.peak_mb).into_iter().reduce(f64::max), 0),
        ]);
    }
    let mut means = means(outcomes).into_iter();
    let head = means.next().unwrap_or_default();
    format!(
        "{}\n\ntest top-1, percent\n{}",
        markdown(header, rows, 2),
        markdown(head, means, 1)
    )
}

/// Test top-1 of each method, its mean over each group and over all tasks; the first row is the heading. For several
/// seeds, the mean and standard deviation of those means.
pub fn means(outcomes: &[Outcome]) -> Vec<Vec<String>> {
    let groups = distinct(outcomes.iter().map(|o| o.group.clone()));
    let mut rows: Vec<Vec<String>> = vec![["method".to_string()].into_iter().chain(groups.clone()).collect()];
    rows[0].push("mean over tasks".to_string());
    for method in distinct(outcomes.iter().map(|o| o.method.clone())) {
        let of_method: Vec<&Outcome> = outcomes.iter().filter(|o| o.method == method).collect();
        let mut seeds: Vec<u64> = of_method.iter().map(|o| o.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        let over = |chosen: &dyn Fn(&Outcome) -> bool| {
            let of_seed = |seed: &u64| {
                let values = of_method.iter().filter(|o| o.seed == *seed && chosen(o));
                mean(values.filter_map(|o| o.value))
            };
            spread(&seeds.iter().filter_map(of_seed).collect::<Vec<_>>(), 1)
        };
        let mut row = vec![method.clone()];
        row.extend(groups.iter().map(|group| over(&|o| o.group == *group)));
        row.push(over(&|_| true));
        rows.push(row);
    }
    rows
}

/// The mean of some values, with their standard deviation if there are several; `-` for no values.
pub fn spread(values: &[f64], digits: usize) -> String {
    let mean = cell(mean(values.iter().copied()), digits);
    match deviation(values) {
        Some(deviation) => format!("{mean} ± {deviation:.digits$}"),
        None => mean,
    }
}
