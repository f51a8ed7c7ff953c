//! The terminal's table of results for text classification, where every task has its own metrics.

use datasets::language::published::Row;

use crate::cli::table::{cell, distinct, mean, table as markdown};
use crate::report::suite_tables;
use crate::report::terminal::spread;
use crate::run::outcome::Outcome;

/// One row per task and method, then each method's mean over the tasks, then the published rows. Several seeds share
/// one row, which shows mean and standard deviation.
pub fn table(outcomes: &[Outcome], published: &[Row], published_tasks: &[&str]) -> String {
    let header = [
        "task",
        "method",
        "trainable",
        "%",
        "metric",
        "value",
        "held out",
        "others",
        "train s",
        "tokens/s",
        "peak MB",
    ];
    let tasks = distinct(outcomes.iter().map(|outcome| outcome.task.clone()));
    let methods = distinct(outcomes.iter().map(|outcome| outcome.method.clone()));
    let mut rows = Vec::new();
    for task in &tasks {
        for method in &methods {
            let of_both = outcomes.iter().filter(|o| o.task == *task && o.method == *method);
            let of_both: Vec<&Outcome> = of_both.collect();
            let Some(first) = of_both.first() else { continue };
            let all =
                |value: fn(&Outcome) -> Option<f64>| of_both.iter().filter_map(|o| value(o)).collect::<Vec<f64>>();
            rows.push([
                task.clone(),
                method.clone(),
                first.trainable_params.to_string(),
                format!("{:.3}", first.percent_trainable),
                first.metric.clone(),
                spread(&all(|o| o.value), 1),
                spread(&all(|o| o.validation), 1),
                others(&of_both),
                cell(mean(all(|o| Some(o.seconds)).into_iter()), 1),
                cell(mean(all(|o| o.tokens_per_second).into_iter()), 0),
                cell(all(|o| o.peak_mb).into_iter().reduce(f64::max), 0),
            ]);
        }
    }
    let mut text = format!("percent\n{}", markdown(header, rows, 5));
    if tasks.len() > 1 {
        let of_method = |method: &String| {
            let values = tasks.iter().map(|task| {
                let values = outcomes.iter().filter(|o| o.task == *task && o.method == *method);
                mean(values.filter_map(|o| o.value))
            });
            let values: Option<Vec<f64>> = values.collect();
            [
                method.clone(),
                cell(values.and_then(|values| mean(values.into_iter())), 1),
            ]
        };
        let rows: Vec<_> = methods.iter().map(of_method).collect();
        text += &format!(
            "\n\nmean over {} tasks\n{}",
            tasks.len(),
            markdown(["method", "mean"], rows, 1)
        );
    }
    if !published.is_empty() {
        text += &format!(
            "\n\npublished, on validation sets (means over seeds; RoBERTa, not comparable with another model)\n{}",
            suite_tables::published(published, published_tasks)
        );
    }
    text
}

/// The task's other metrics, with their means over seeds.
fn others(outcomes: &[&Outcome]) -> String {
    let names = distinct(outcomes.iter().flat_map(|outcome| outcome.scores.keys().cloned()));
    let shown = names
        .into_iter()
        .filter(|name| outcomes.iter().all(|outcome| outcome.metric != *name));
    let shown: Vec<String> = shown
        .map(|name| {
            let values = outcomes.iter().filter_map(|outcome| outcome.scores.get(&name).copied());
            format!("{name} {}", cell(mean(values), 1))
        })
        .collect();
    if shown.is_empty() { "-".into() } else { shown.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_one_row_and_other_metrics_stand_beside() {
        let outcome = |method: &str, value: f64, seed| Outcome {
            task: "MRPC".into(),
            method: method.into(),
            metric: "accuracy".into(),
            value: Some(value),
            scores: [("accuracy".to_string(), value), ("f1".to_string(), value + 2.0)].into(),
            seed,
            ..Outcome::default()
        };
        let outcomes = [
            outcome("lora", 80.0, 1),
            outcome("lora", 84.0, 2),
            outcome("wegeft", 85.0, 1),
        ];
        let text = table(&outcomes, &[], &[]);
        assert!(text.contains("82.0 ± 2.8") && text.contains("f1 84.0"), "{text}");
        assert!(!text.contains("mean over"), "{text}");
    }
}
