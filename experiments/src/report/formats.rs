//! A table as text: Markdown (which the terminal shows too), LaTeX and CSV.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table as TextTable, presets};

use crate::report::table::{Line, Table};

const NONE: &str = "-";

/// Facts of a line beside its results: name and text.
pub fn facts(line: &Line) -> [(&'static str, String); 3] {
    [
        ("trainable", line.params.map_or(NONE.into(), |count| count.to_string())),
        ("%", format!("{:.3}", line.percent)),
        ("peak MB", line.memory_mb.map_or(NONE.into(), |mb| format!("{mb:.0}"))),
    ]
}

/// The table's cells, a heading first: tasks down, methods across, so that 19 tasks fit a terminal; methods down where
/// there are more of them than columns.
pub fn cells(table: &Table) -> Vec<Vec<String>> {
    let row = |name: &str, values: &dyn Fn(&Line) -> String| -> Vec<String> {
        let values = table.lines.iter().map(values);
        [name.to_string()].into_iter().chain(values).collect()
    };
    let mut rows = vec![row(&table.metric, &Line::label)];
    if let Some(first) = table.lines.first() {
        let names = facts(first).map(|(name, _)| name);
        rows.extend((0..3).map(|fact| row(names[fact], &|line| facts(line)[fact].1.clone())));
    }
    for (index, column) in table.columns.iter().enumerate() {
        let text = |line: &Line| line.cells[index].map_or(NONE.into(), |cell| cell.text());
        rows.push(row(&column.name, &text));
    }
    match table.lines.len() > table.columns.len() {
        true => transposed(rows),
        false => rows,
    }
}

/// Markdown, aligned.
pub fn markdown(table: &Table) -> String {
    let mut text = TextTable::new();
    text.load_preset(presets::ASCII_MARKDOWN);
    let mut rows = cells(table).into_iter();
    text.set_header(rows.next().unwrap_or_default());
    text.add_rows(rows);
    for column in text.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    text.to_string()
}

fn transposed(rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let width = rows.first().map_or(0, Vec::len);
    let column = |at: usize| rows.iter().map(|row| row[at].clone()).collect();
    (0..width).map(column).collect()
}

/// LaTeX with the packages booktabs and graphicx: the paper's orientation, methods down.
pub fn latex(table: &Table) -> String {
    let escape = |text: &str| text.replace('_', "\\_").replace('%', "\\%").replace(" ± ", " $\\pm$ ");
    let mut text = format!(
        "\\begin{{tabular}}{{lr{}}}\n\\toprule\n",
        "r".repeat(table.columns.len())
    );
    text += "method & \\%";
    for column in &table.columns {
        let _ = write!(text, " & \\rotatebox{{90}}{{{}}}", escape(&column.name));
    }
    text += " \\\\\n\\midrule\n";
    for (index, line) in table.lines.iter().enumerate() {
        if index > 0 && table.lines[index - 1].published && !line.published {
            text += "\\midrule\n";
        }
        let _ = write!(text, "{} & {:.3}", escape(&line.label()), line.percent);
        for cell in &line.cells {
            let _ = write!(text, " & {}", cell.map_or("--".into(), |cell| escape(&cell.text())));
        }
        text += " \\\\\n";
    }
    text + "\\bottomrule\n\\end{tabular}\n"
}

/// The head of [`csv`].
pub const CSV_HEAD: &str = "experiment,source,method,trainable_params,percent_trainable,peak_mb,column,metric,mean,spread,runs,tasks,of_tasks\n";

/// CSV, a line a cell. Names hold no comma or quote in our own programs; a field of another one that does is quoted.
pub fn csv(table: &Table) -> String {
    let quoted = |text: &str| match text.contains([',', '"', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_string(),
    };
    let mut text = String::new();
    for line in &table.lines {
        let source = if line.published { "published" } else { "runs" };
        let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        for (column, cell) in table.columns.iter().zip(&line.cells) {
            let Some(cell) = cell else { continue };
            let fields = [
                quoted(&table.experiment),
                source.to_string(),
                quoted(&line.method),
                line.params.map_or(String::new(), |count| count.to_string()),
                line.percent.to_string(),
                number(line.memory_mb),
                quoted(&column.name),
                quoted(&table.metric),
                cell.mean.to_string(),
                number(cell.spread),
                cell.runs.to_string(),
                cell.tasks.0.to_string(),
                cell.tasks.1.to_string(),
            ];
            text += &fields.join(",");
            text.push('\n');
        }
    }
    text
}
