//! The table of one experiment: methods against tasks, groups and the mean over tasks.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::table::{deviation, distinct, mean};
use crate::report::rows::Row;

/// Columns and published rows.
pub type Frame = (Vec<Column>, Vec<Line>);

/// Columns and published rows of an experiment whose tasks are the second argument.
pub type Known<'a> = &'a dyn Fn(&str, &[String]) -> Option<Frame>;

/// A task, or the mean over several tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Name.
    pub name: String,
    /// The task, or the tasks that are averaged.
    pub tasks: Vec<String>,
}

impl Column {
    /// The column of one task.
    pub fn of_task(task: &str) -> Self {
        Self {
            name: task.to_string(),
            tasks: vec![task.to_string()],
        }
    }

    /// The column of a mean.
    pub fn mean(name: &str, tasks: Vec<String>) -> Self {
        Self {
            name: name.to_string(),
            tasks,
        }
    }
}

/// Mean and spread over runs that differ in their seed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// Mean over runs.
    pub mean: f64,
    /// Sample standard deviation over runs; absent for one run and for published numbers.
    pub spread: Option<f64>,
    /// Runs.
    pub runs: usize,
    /// How many of the column's tasks have a result, and how many there are.
    pub tasks: (usize, usize),
}

impl Cell {
    /// A published number.
    pub fn published(value: f64) -> Self {
        Self {
            mean: value,
            spread: None,
            runs: 1,
            tasks: (1, 1),
        }
    }

    /// The text of the cell: `70.7`, `70.7 ± 0.3`, with the number of tasks if some are missing.
    pub fn text(&self) -> String {
        let mut text = format!("{:.2}", self.mean);
        if let Some(spread) = self.spread {
            text += &format!(" ± {spread:.2}");
        }
        if self.tasks.0 < self.tasks.1 {
            text += &format!(" ({}/{})", self.tasks.0, self.tasks.1);
        }
        text
    }
}

/// One method with one choice of settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Method.
    pub method: String,
    /// From the paper, not from a run.
    pub published: bool,
    /// Trainable parameters; unknown for published rows.
    pub params: Option<usize>,
    /// Trainable parameters, percent.
    pub percent: f64,
    /// Greatest peak memory of its runs, MB: of the process on a CPU, of the GPU otherwise.
    pub memory_mb: Option<f64>,
    /// One cell per column.
    pub cells: Vec<Option<Cell>>,
}

impl Line {
    /// Name for legends.
    pub fn label(&self) -> String {
        match self.published {
            true => format!("{} (published)", self.method),
            false => self.method.clone(),
        }
    }
}

/// The table of one experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Program.
    pub experiment: String,
    /// Name of the values, or of all of them if tasks have metrics of their own.
    pub metric: String,
    /// Name of the values of each column.
    pub metrics: Vec<String>,
    /// Tasks, then groups, then the mean over all tasks.
    pub columns: Vec<Column>,
    /// Published rows first.
    pub lines: Vec<Line>,
}

/// One table per experiment, in the order of their first rows.
pub fn tables(rows: &[Row], known: Known) -> Vec<Table> {
    distinct(rows.iter().map(|row| row.experiment.clone()))
        .into_iter()
        .map(|experiment| {
            let of_it: Vec<&Row> = rows.iter().filter(|row| row.experiment == experiment).collect();
            table(experiment, &of_it, known)
        })
        .collect()
}

fn table(experiment: String, rows: &[&Row], known: Known) -> Table {
    let (columns, mut lines) = frame(&experiment, rows, known);
    // Runs share a line only if all settings except the seed are equal.
    type Kind<'a> = (&'a String, usize, &'a BTreeMap<String, String>);
    let mut kinds: BTreeMap<Kind, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let kind = (&row.method, row.trainable_params, &row.settings);
        kinds.entry(kind).or_default().push(row);
    }
    let mut settings: BTreeMap<&String, Vec<&BTreeMap<String, String>>> = BTreeMap::new();
    for (method, _, own) in kinds.keys() {
        settings.entry(method).or_default().push(own);
    }
    let told: BTreeMap<&String, usize> = settings.iter().map(|(method, all)| (*method, enough(all))).collect();
    for ((method, params, own), rows) in &kinds {
        lines.push(Line {
            method: (*method).clone() + &differing(own, &settings[method], told[method]),
            published: false,
            params: Some(*params),
            percent: rows[0].percent_trainable,
            memory_mb: rows.iter().filter_map(|row| row.peak_mb).reduce(f64::max),
            cells: columns.iter().map(|column| cell(column, rows)).collect(),
        });
    }
    let metric = |tasks: &dyn Fn(&str) -> bool| {
        let of = rows.iter().filter(|row| tasks(&row.task));
        distinct(of.map(|row| row.metric.clone())).join(", ")
    };
    Table {
        experiment,
        metric: metric(&|_| true),
        metrics: columns
            .iter()
            .map(|column| metric(&|task| column.tasks.iter().any(|of| of == task)))
            .collect(),
        columns,
        lines,
    }
}

/// The number of settings, three or more, that tell the lines of a method apart, as far as they can be.
fn enough(all: &[&BTreeMap<String, String>]) -> usize {
    const LEAST: usize = 3;
    let told = |most| {
        let texts: BTreeSet<String> = all.iter().map(|own| differing(own, all, most)).collect();
        texts.len()
    };
    let different = told(usize::MAX);
    (LEAST..).find(|most| told(*most) == different).unwrap_or(LEAST)
}

/// The settings in `own` that differ from those of the method's other lines, in brackets; at most `most` of them.
fn differing(own: &BTreeMap<String, String>, all: &[&BTreeMap<String, String>], most: usize) -> String {
    let names: BTreeSet<&String> = all.iter().flat_map(|settings| settings.keys()).collect();
    let differs = |name: &&&String| all.iter().any(|settings| settings.get(**name) != own.get(**name));
    let mut parts: Vec<String> = names
        .iter()
        .filter(differs)
        .map(|name| {
            format!(
                "{name} {}",
                own.get(*name).map_or("unset", |value| value.trim_matches('"'))
            )
        })
        .collect();
    if parts.len() > most {
        parts.truncate(most);
        parts.push("…".into());
    }
    match parts.is_empty() {
        true => String::new(),
        false => format!(" ({})", parts.join(", ")),
    }
}

/// The columns, and the published rows of the benchmark if it is one of the paper's.
fn frame(experiment: &str, rows: &[&Row], known: Known) -> Frame {
    let found = distinct(rows.iter().map(|row| row.task.clone()));
    if let Some(frame) = known(experiment, &found) {
        return frame;
    }
    let mut columns: Vec<Column> = found.iter().map(|task| Column::of_task(task)).collect();
    let groups = distinct(
        rows.iter()
            .map(|row| row.group.clone())
            .filter(|group| !group.is_empty()),
    );
    for group in groups.iter().filter(|_| groups.len() > 1) {
        let of_group = rows.iter().filter(|row| row.group == *group);
        let tasks = distinct(of_group.map(|row| row.task.clone()));
        columns.push(Column::mean(group, tasks));
    }
    if found.len() > 1 {
        columns.push(Column::mean("mean over tasks", found));
    }
    (columns, Vec::new())
}

/// The mean over the column's tasks for each seed, then mean and spread over seeds. Only seeds that have every task
/// with results count; if there are none, the cell shows the mean over the tasks' own means, with their number.
fn cell(column: &Column, rows: &[&Row]) -> Option<Cell> {
    let of_task = |task: &str, seed: Option<u64>| {
        let chosen = rows
            .iter()
            .filter(|row| row.task == task && seed.is_none_or(|seed| row.seed == seed));
        average(&chosen.filter_map(|row| row.value).collect::<Vec<_>>())
    };
    let over_tasks =
        |seed: Option<u64>| -> Vec<f64> { column.tasks.iter().filter_map(|task| of_task(task, seed)).collect() };
    let all = column.tasks.len();
    let present = over_tasks(None).len();
    let seeds: BTreeSet<u64> = rows.iter().map(|row| row.seed).collect();
    let whole: Vec<f64> = seeds
        .into_iter()
        .map(|seed| over_tasks(Some(seed)))
        .filter(|values| values.len() == present)
        .filter_map(|values| average(&values))
        .collect();
    if let Some(mean) = average(&whole) {
        return Some(Cell {
            mean,
            spread: deviation(&whole),
            runs: whole.len(),
            tasks: (present, all),
        });
    }
    let partial = over_tasks(None);
    average(&partial).map(|mean| Cell {
        mean,
        spread: None,
        runs: 1,
        tasks: (partial.len(), all),
    })
}

fn average(values: &[f64]) -> Option<f64> {
    mean(values.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::benchmarks;
    use crate::report::published::VTAB;

    fn tables(rows: &[Row]) -> Vec<Table> {
        super::tables(rows, &|experiment, found| match experiment {
            "vtab" => benchmarks::vtab(found),
            "fgvc" => benchmarks::fgvc(found),
            _ => None,
        })
    }

    fn row(experiment: &str, task: &str, method: &str, value: f64, seed: u64) -> Row {
        Row {
            experiment: experiment.into(),
            task: task.into(),
            group: datasets::vtab::group(task).into(),
            method: method.into(),
            trainable_params: 10,
            percent_trainable: 0.1,
            metric: "top1".into(),
            value: Some(value),
            peak_mb: Some(100.0 + value),
            seed,
            ..Row::default()
        }
    }

    #[test]
    fn runs_of_different_settings_are_rows_of_their_own() {
        let with = |rate: &str, value: f64, seed: u64| {
            let mut row = row("mine", "a", "wegeft", value, seed);
            row.settings.insert("learning_rate".into(), rate.into());
            row.settings.insert("epochs".into(), "3".into());
            row
        };
        let rows = [with("0.02", 100.0, 1), with("0.02", 98.0, 2), with("0.000001", 50.0, 1)];
        let table = &tables(&rows)[0];
        let shown: Vec<(&str, String)> = table
            .lines
            .iter()
            .map(|l| (l.method.as_str(), l.cells[0].unwrap().text()))
            .collect();
        assert_eq!(
            shown,
            [
                ("wegeft (learning_rate 0.000001)", "50.00".to_string()),
                ("wegeft (learning_rate 0.02)", "99.00 ± 1.41".to_string())
            ]
        );
    }

    #[test]
    fn lines_are_told_apart_and_columns_have_their_own_metric() {
        let with = |last: &str| {
            let mut row = row("mine", "a", "wegeft", 1.0, 1);
            for (name, value) in [("a", "1"), ("b", "1"), ("c", "1"), ("d", last)] {
                row.settings.insert(name.into(), value.into());
            }
            row
        };
        let mut other = with("1");
        for name in ["a", "b", "c"] {
            other.settings.insert(name.into(), "2".into());
        }
        let mut third = row("mine", "b", "wegeft", 1.0, 1);
        third.settings = other.settings.clone();
        third.metric = "pearson".into();
        let table = &tables(&[with("1"), with("2"), other, third])[0];
        let names: BTreeSet<&str> = table.lines.iter().map(|line| line.method.as_str()).collect();
        assert_eq!(names.len(), table.lines.len(), "{names:?}");
        assert_eq!(table.metrics[..2], ["top1".to_string(), "pearson".to_string()]);
    }

    #[test]
    fn seeds_give_mean_and_spread_and_missing_tasks_are_said() {
        let rows: Vec<Row> = VTAB
            .iter()
            .flat_map(|(task, _)| [row("vtab", task, "lora", 60.0, 1), row("vtab", task, "lora", 62.0, 2)])
            .chain([
                row("vtab", "svhn", "wegeft", 80.0, 1),
                row("vtab", "cifar", "wegeft", 70.0, 1),
                row("vtab", "svhn", "wegeft", 82.0, 2),
                row("vtab", "cifar", "wegeft", 72.0, 2),
            ])
            .collect();
        let table = &tables(&rows)[0];
        assert_eq!((table.columns.len(), table.lines.len()), (19 + 3 + 1, 4 + 2));
        let lora = &table.lines[4];
        assert_eq!(lora.cells[22].unwrap().text(), "61.00 ± 1.41");
        assert_eq!((lora.memory_mb, lora.cells[0].unwrap().runs), (Some(162.0), 2));
        let wegeft = &table.lines[5];
        assert_eq!(wegeft.cells[5].unwrap().text(), "81.00 ± 1.41");
        assert_eq!(wegeft.cells[1], None);
        assert_eq!(wegeft.cells[19].unwrap().text(), "76.00 ± 1.41 (2/7)");
        assert_eq!(table.lines[3].cells[22].unwrap().mean, 74.09);
        assert!(table.lines[3].published && table.lines[3].cells[0].is_none());
    }

    #[test]
    fn any_experiment_gets_its_own_columns() {
        let rows = [
            row("mine", "boolq", "wegeft", 69.0, 1),
            row("mine", "piqa", "wegeft", 81.0, 1),
            row("fgvc", "cub", "wegeft", 89.0, 1),
        ];
        let tables = tables(&rows);
        let names = |table: &Table| table.columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&tables[0]), ["boolq", "piqa", "mean over tasks"]);
        assert_eq!(tables[0].lines[0].cells[2].unwrap().mean, 75.0);
        assert_eq!(
            names(&tables[1]),
            ["cub", "nabirds", "flowers", "dogs", "cars", "mean over 5"]
        );
        assert_eq!(tables[1].lines[3].cells[0].unwrap().mean, 89.71);
        assert_eq!(tables[1].lines[4].cells[5].unwrap().text(), "89.00 (1/5)");
    }

    #[test]
    fn a_run_without_a_result_has_an_empty_cell() {
        let mut none = row("finetune", "sums.jsonl", "lora", 0.0, 1);
        none.value = None;
        let rows = [none, row("finetune", "sums.jsonl", "wegeft", 0.5, 1)];
        let table = &tables(&rows)[0];
        assert_eq!((table.columns.len(), table.lines.len()), (1, 2));
        assert_eq!(table.lines[0].cells, [None]);
        assert_eq!(table.lines[1].cells[0].unwrap().mean, 0.5);
    }

    #[test]
    fn names_of_one_benchmark_mean_nothing_in_another_program() {
        let rows = [
            row("mine", "cars", "lora", 90.0, 1),
            row("finetune", "svhn", "lora", 80.0, 1),
        ];
        for table in tables(&rows) {
            assert_eq!((table.columns.len(), table.lines.len()), (1, 1), "{}", table.experiment);
        }
    }
}
