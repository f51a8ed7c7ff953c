//! Which outcomes are runs of one row: those whose settings agree, and for each task what the outcomes themselves say.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::cli::output::note;
use crate::cli::table::distinct;
use crate::report::rows::{self, Row};

/// What outcomes state themselves, the rates first: a sweep chooses them for each task.
const FACTS: [&str; 4] = ["learning_rate", "weight_decay", "metric", "questions"];

/// The outcomes of every run folder in or below `paths`, whose settings are equal if they are runs of one row.
///
/// # Errors
/// A path without any summary.json, a file that cannot be read or is malformed.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Row>, String> {
    let mut rows = rows::read(paths)?;
    add_facts(&mut rows);
    Ok(without_repeats(rows))
}

/// Facts of outcomes, by task and name.
type Facts = BTreeMap<(String, &'static str), String>;

/// What an outcome says of itself, for its task.
fn facts(row: &Row) -> Facts {
    let number = |value: Option<f64>| value.map(|value| value.to_string());
    let values = [
        number(row.lr),
        number(row.weight_decay),
        Some(row.metric.clone()),
        row.questions.map(|count| count.to_string()),
    ];
    let known = FACTS
        .into_iter()
        .zip(values)
        .filter_map(|(name, value)| Some((name, value?)));
    known.map(|(name, value)| ((row.task.clone(), name), value)).collect()
}

/// Outcomes, by index, whose facts agree.
struct Group {
    facts: Facts,
    rows: Vec<usize>,
}

impl Group {
    fn agrees(&self, other: &Self) -> bool {
        let mut facts = other.facts.iter();
        facts.all(|(of, value)| self.facts.get(of).is_none_or(|known| known == value))
    }

    /// The values of a fact; with the tasks that they belong to, if there are several.
    fn text(&self, name: &str) -> Option<String> {
        let of_name = || self.facts.iter().filter(|((_, of), _)| *of == name);
        let values = distinct(of_name().map(|(_, value)| value.clone()));
        let parts = values.iter().map(|value| {
            let tasks: Vec<&str> = of_name()
                .filter(|(_, of)| *of == value)
                .map(|((task, _), _)| task.as_str())
                .collect();
            match values.len() {
                1 => value.clone(),
                _ => format!("{value} for {}", tasks.join(" and ")),
            }
        });
        let text = parts.collect::<Vec<_>>().join(", ");
        (!text.is_empty()).then_some(text)
    }
}

/// Joins each of `parts` to the first group that it agrees with, those that say most first: what a run of some tasks joins does not
/// depend on its name.
fn joined(parts: impl IntoIterator<Item = Group>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut parts: Vec<Group> = parts.into_iter().collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.facts.len()));
    for part in parts {
        match groups.iter_mut().find(|group| group.agrees(&part)) {
            Some(group) => {
                group.facts.extend(part.facts);
                group.rows.extend(part.rows);
            }
            None => groups.push(part),
        }
    }
    groups
}

/// Adds what outcomes say of themselves to their settings, so that only those that agree have equal ones.
fn add_facts(rows: &mut [Row]) {
    type Kind = (String, String, usize, BTreeMap<String, String>);
    let mut kinds: BTreeMap<Kind, BTreeMap<PathBuf, Vec<usize>>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        let kind = (
            row.experiment.clone(),
            row.method.clone(),
            row.trainable_params,
            row.settings.clone(),
        );
        let of_run = kinds.entry(kind).or_default().entry(row.run.clone()).or_default();
        of_run.push(index);
    }
    for runs in kinds.into_values() {
        let of_row = |index: usize| Group {
            facts: facts(&rows[index]),
            rows: vec![index],
        };
        // What one run says of several tasks belongs together.
        let of_runs = runs.into_values().flat_map(|rows| joined(rows.into_iter().map(of_row)));
        let groups = joined(of_runs.collect::<Vec<_>>());
        let names: &[&str] = match groups.len() {
            1 => &FACTS[..2], // the rates
            _ => &FACTS,
        };
        for group in &groups {
            for name in names {
                let Some(text) = group.text(name) else { continue };
                for index in &group.rows {
                    rows[*index].settings.insert((*name).to_string(), text.clone());
                }
            }
        }
    }
}

/// Drops outcomes that are there twice, and says which runs of one seed have different results: their mean would be
/// taken for one over seeds.
fn without_repeats(rows: Vec<Row>) -> Vec<Row> {
    type Place = (String, String, String, usize, BTreeMap<String, String>, u64);
    let mut first: BTreeMap<Place, Vec<(Option<u64>, PathBuf)>> = BTreeMap::new();
    let mut kept = Vec::new();
    for row in rows {
        let place = (
            row.experiment.clone(),
            row.task.clone(),
            row.method.clone(),
            row.trainable_params,
            row.settings.clone(),
            row.seed,
        );
        let value = row.value.map(f64::to_bits);
        let known = first.entry(place).or_default();
        if known.iter().any(|(of, _)| *of == value) {
            continue;
        }
        if let Some((_, run)) = known.first() {
            note(format_args!(
                "{} and {} differ for {} on {} with the same seed {} and the same settings; both are counted",
                run.display(),
                row.run.display(),
                row.method,
                row.task,
                row.seed
            ));
        }
        known.push((value, row.run.clone()));
        kept.push(row);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(run: &str, task: &str, lr: f64, seed: u64) -> Row {
        Row {
            experiment: "mine".into(),
            task: task.into(),
            method: "lora".into(),
            metric: "top1".into(),
            value: Some(100.0 * lr),
            lr: Some(lr),
            seed,
            run: run.into(),
            ..Row::default()
        }
    }

    fn rates(rows: &[Row]) -> Vec<&str> {
        rows.iter().map(|row| row.settings["learning_rate"].as_str()).collect()
    }

    #[test]
    fn rates_that_a_sweep_chose_are_one_setting_of_all_tasks() {
        let mut rows = [row("a", "x", 0.1, 1), row("a", "y", 0.2, 1), row("b", "x", 0.1, 2)];
        add_facts(&mut rows);
        assert_eq!(rates(&rows), ["0.1 for x, 0.2 for y"; 3]);
        // Another choice for one of the tasks is another row, whole runs together.
        let mut rows = [
            row("a", "x", 0.1, 1),
            row("a", "y", 0.2, 1),
            row("b", "x", 0.1, 2),
            row("b", "y", 0.1, 2),
        ];
        add_facts(&mut rows);
        assert_eq!(
            rates(&rows),
            ["0.1 for x, 0.2 for y", "0.1 for x, 0.2 for y", "0.1", "0.1"]
        );
        // One file with both.
        let mut rows = [row("a", "x", 0.1, 1), row("a", "x", 0.2, 2)];
        add_facts(&mut rows);
        assert_eq!(rates(&rows), ["0.1", "0.2"]);
    }

    #[test]
    fn other_metrics_and_numbers_of_questions_are_other_rows() {
        let mut rows = [row("a", "x", 0.1, 1), row("b", "x", 0.1, 2), row("c", "x", 0.1, 3)];
        rows[1].metric = "loss".into();
        rows[2].questions = Some(5);
        rows[0].questions = Some(100);
        add_facts(&mut rows);
        assert!(rows[0].settings != rows[1].settings && rows[0].settings != rows[2].settings);
        assert_eq!(rows[2].settings["questions"], "5");
    }

    #[test]
    fn a_run_that_is_given_twice_counts_once() {
        let rows = vec![row("a", "x", 0.1, 1), row("b", "x", 0.1, 1), row("c", "x", 0.1, 2)];
        assert_eq!(without_repeats(rows.clone()).len(), 2);
        let mut differs = rows;
        differs[1].value = Some(3.0);
        assert_eq!(without_repeats(differs).len(), 3);
    }
}
