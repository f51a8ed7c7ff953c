//! Tables in the terminal: Markdown, with numbers aligned right.

use comfy_table::{CellAlignment, Table, presets};

/// A table whose columns from `numbers` on hold numbers.
pub fn table<H, R>(header: H, rows: R, numbers: usize) -> Table
where
    H: IntoIterator<Item: Into<String>>,
    R: IntoIterator<Item: IntoIterator<Item: Into<String>>>,
{
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    let texts = |row: &mut dyn Iterator<Item = String>| row.collect::<Vec<_>>();
    table.set_header(texts(&mut header.into_iter().map(Into::into)));
    for row in rows {
        table.add_row(texts(&mut row.into_iter().map(Into::into)));
    }
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// `value` with that many digits, or `-` if there is none.
pub fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".into(), |value| format!("{value:.digits$}"))
}

/// Each name once, in order of first appearance.
pub fn distinct<T: PartialEq>(names: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

/// The mean; `None` for no values.
pub fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The sample standard deviation; `None` for fewer than two values.
pub fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values.iter().copied())?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}
