//! The paper's benchmarks: columns in the order of its tables, and its rows.

use datasets::language::published::{ARITHMETIC, COMMONSENSE, GLUE, GLUE_TASKS, Row as LanguageRow};
use datasets::language::{arithmetic, commonsense};

use crate::report::published::{FGVC, Published, ROWS, VTAB};
use crate::report::table::{Cell, Column, Frame, Line};

/// VTAB-1k, if all tasks in `found` are among its 19.
pub fn vtab(found: &[String]) -> Option<Frame> {
    if !found.iter().all(|task| VTAB.iter().any(|(known, _)| known == task)) {
        return None;
    }
    let tasks: Vec<String> = VTAB.iter().map(|(task, _)| task.to_string()).collect();
    let mut columns: Vec<Column> = tasks.iter().map(|task| Column::of_task(task)).collect();
    for group in ["natural", "specialized", "structured"] {
        let of_group = VTAB.iter().filter(|(_, known)| *known == group);
        columns.push(Column::mean(
            group,
            of_group.map(|(task, _)| task.to_string()).collect(),
        ));
    }
    columns.push(Column::mean("mean over 19", tasks));
    let lines = ROWS.iter().map(|row| vision(row, 19, &row.vtab)).collect();
    Some((columns, lines))
}

/// FGVC, if the name of every task in `found` contains that of one of its five.
pub fn fgvc(found: &[String]) -> Option<Frame> {
    let contains = |task: &String, name: &str| task.to_lowercase().contains(name);
    if !found.iter().all(|task| FGVC.iter().any(|name| contains(task, name))) {
        return None;
    }
    let task = |name: &&str| found.iter().find(|task| contains(task, name)).cloned();
    let tasks: Vec<String> = FGVC.iter().map(|name| task(name).unwrap_or(name.to_string())).collect();
    let mut columns: Vec<Column> = tasks.iter().map(|task| Column::of_task(task)).collect();
    columns.push(Column::mean("mean over 5", tasks));
    let lines = ROWS.iter().map(|row| vision(row, 0, &row.fgvc)).collect();
    Some((columns, lines))
}

/// The commonsense suite, if all tasks in `found` are among its eight sets.
pub fn commonsense(found: &[String]) -> Option<Frame> {
    let scored = commonsense::SETS.map(|set| set.name.to_string());
    suite(found, &scored, &[], &COMMONSENSE)
}

/// GLUE, if all tasks in `found` are among its nine. The mean is over the six that the paper reports.
pub fn glue(found: &[String]) -> Option<Frame> {
    let known = datasets::glue::TASKS.map(|task| task.name.to_string());
    let scored = GLUE_TASKS.map(String::from);
    let others: Vec<String> = known.into_iter().filter(|task| !scored.contains(task)).collect();
    suite(found, &scored, &others, &GLUE)
}

/// The arithmetic suite, if all tasks in `found` are among its sets. The mean is over the four that the paper scores;
/// the others are shown as well if there are results.
pub fn arithmetic(found: &[String]) -> Option<Frame> {
    let (scored, others): (Vec<_>, Vec<_>) = arithmetic::SETS.iter().partition(|set| set.scored);
    let names = |sets: Vec<&arithmetic::Set>| sets.iter().map(|set| set.name.to_string()).collect::<Vec<_>>();
    suite(found, &names(scored), &names(others), &ARITHMETIC)
}

fn suite(found: &[String], scored: &[String], others: &[String], published: &[LanguageRow]) -> Option<Frame> {
    if !found.iter().all(|task| scored.contains(task) || others.contains(task)) {
        return None;
    }
    let others: Vec<&String> = others.iter().filter(|task| found.contains(task)).collect();
    let mut columns: Vec<Column> = scored
        .iter()
        .chain(others.iter().copied())
        .map(|task| Column::of_task(task))
        .collect();
    let over = match others.is_empty() {
        true => scored.len().to_string(),
        false => scored.join(", "),
    };
    columns.push(Column::mean(&format!("mean over {over}"), scored.to_vec()));
    let line = |row: &LanguageRow| {
        let value = |at: usize| row.values.get(at).copied().map(Cell::published);
        let cells = (0..scored.len()).map(value);
        let cells = cells.chain(others.iter().map(|_| None));
        Line {
            method: format!("{} {}", row.model, row.method),
            published: true,
            params: None,
            percent: row.percent,
            memory_mb: None,
            cells: cells.chain([Some(Cell::published(row.average))]).collect(),
        }
    };
    Some((columns, published.iter().map(line).collect()))
}

/// A published row whose `values` belong to the columns after the first `without`.
fn vision(row: &Published, without: usize, values: &[f64]) -> Line {
    let known = values.iter().map(|value| Some(Cell::published(*value)));
    Line {
        method: row.method.to_string(),
        published: true,
        params: None,
        percent: row.percent,
        memory_mb: Some(1000.0 * row.memory_gb),
        cells: std::iter::repeat_n(None, without).chain(known).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(columns: &[Column]) -> Vec<&str> {
        columns.iter().map(|column| column.name.as_str()).collect()
    }

    #[test]
    fn arithmetic_is_scored_on_four_sets() {
        let (columns, lines) = arithmetic(&["MultiArith".into(), "SVAMP".into()]).unwrap();
        assert_eq!(
            names(&columns),
            [
                "AQuA",
                "GSM8K",
                "MAWPS",
                "SVAMP",
                "MultiArith",
                "mean over AQuA, GSM8K, MAWPS, SVAMP"
            ]
        );
        assert_eq!(columns[5].tasks.len(), 4);
        assert_eq!(lines.len(), ARITHMETIC.len());
        for (line, row) in lines.iter().zip(&ARITHMETIC) {
            assert_eq!((line.cells.len(), line.cells[4]), (6, None));
            assert_eq!(line.cells[5].unwrap().mean, row.average);
        }
        assert_eq!(arithmetic(&["one-step".into()]), None);
    }

    #[test]
    fn commonsense_stands_beside_its_published_rows() {
        let (columns, lines) = commonsense(&["PIQA".into()]).unwrap();
        assert_eq!((columns.len(), lines.len()), (9, COMMONSENSE.len()));
        assert_eq!(columns[8].name, "mean over 8");
        assert_eq!(lines[0].cells[1].unwrap().mean, COMMONSENSE[0].values[1]);
        assert_eq!(commonsense(&["true-false".into()]), None);
    }
}
