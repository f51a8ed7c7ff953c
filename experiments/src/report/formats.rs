//! A table as text: Markdown (which the terminal shows too), LaTeX and CSV.

use std::fmt::Write;

use crate::cli::output::plain;
use crate::cli::table::table as markdown_table;
use crate::report::table::{Line, Table};

const NONE: &str = "-";

/// Further facts about a line, besides its results: name and text.
pub fn facts(line: &Line) -> [(&'static str, String); 3] {
    [
        ("trainable", line.params.map_or(NONE.into(), |count| count.to_string())),
        ("%", format!("{:.3}", line.percent)),
        ("peak MB", line.memory_mb.map_or(NONE.into(), |mb| format!("{mb:.0}"))),
    ]
}

/// The cells of the table, starting with a heading. Tasks are rows and methods are columns, so that 19 tasks fit into a
/// terminal; methods are rows if there are more of them than table columns.
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
        let metric = &table.metrics[index];
        let name = match metric.is_empty() || *metric == table.metric {
            true => column.name.clone(),
            false => format!("{} ({metric})", column.name),
        };
        rows.push(row(&name, &text));
    }
    match table.lines.len() > table.columns.len() {
        true => transposed(rows),
        false => rows,
    }
}

/// Markdown, aligned.
pub fn markdown(table: &Table) -> String {
    // Names of tasks and settings may hold what Markdown reads as the end of a cell, or as HTML.
    let plain = |cell: String| {
        let line = plain(&cell).replace(['\n', '\t'], " ");
        line.replace('|', "\\|").replace('<', "&lt;")
    };
    let mut rows = cells(table)
        .into_iter()
        .map(|row| row.into_iter().map(plain).collect::<Vec<_>>());
    let head = rows.next().unwrap_or_default();
    markdown_table(head, rows, 1).to_string()
}

fn transposed(rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let width = rows.first().map_or(0, Vec::len);
    let column = |at: usize| rows.iter().map(|row| row[at].clone()).collect();
    (0..width).map(column).collect()
}

/// `text` escaped for LaTeX.
fn escaped(text: &str) -> String {
    let mut shown = String::new();
    for c in plain(text).chars() {
        match c {
            '\\' => shown += "\\textbackslash{}",
            '~' => shown += "\\textasciitilde{}",
            '^' => shown += "\\textasciicircum{}",
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => shown.extend(['\\', c]),
            '<' => shown += "\\textless{}",
            '>' => shown += "\\textgreater{}",
            '|' => shown += "\\textbar{}",
            // A cell is one paragraph, which an empty line would end.
            c if c.is_control() => shown.push(' '),
            '±' => shown += "$\\pm$",
            '…' => shown += "\\ldots{}",
            c => shown.push(c),
        }
    }
    shown
}

/// LaTeX with the packages booktabs and graphicx, in the paper's orientation: methods are rows.
pub fn latex(table: &Table) -> String {
    let escape = escaped;
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

/// The header of [`csv`].
const CSV_HEAD: [&str; 13] = [
    "experiment",
    "source",
    "method",
    "trainable_params",
    "percent_trainable",
    "peak_mb",
    "column",
    "metric",
    "mean",
    "spread",
    "runs",
    "tasks",
    "of_tasks",
];

/// True for what [`csv()`] has made.
pub fn is_csv(bytes: &[u8]) -> bool {
    bytes.starts_with(CSV_HEAD.join(",").as_bytes())
}

/// A name as a cell of a table: a spreadsheet must not take it for a formula.
fn name(text: &str) -> String {
    let text = plain(text);
    match text.starts_with(['=', '+', '-', '@', '\t', '\n']) {
        true => format!("'{text}"),
        false => text,
    }
}

/// CSV of all `tables`, one line per cell.
///
/// # Errors
/// An error of the CSV writer.
pub fn csv(tables: &[Table]) -> Result<String, String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(CSV_HEAD).map_err(|e| e.to_string())?;
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    for table in tables {
        for line in &table.lines {
            let source = if line.published { "published" } else { "runs" };
            for (index, (column, cell)) in table.columns.iter().zip(&line.cells).enumerate() {
                let Some(cell) = cell else { continue };
                writer
                    .write_record([
                        name(&table.experiment).as_str(),
                        source,
                        &name(&line.method),
                        &line.params.map_or(String::new(), |count| count.to_string()),
                        &line.percent.to_string(),
                        &number(line.memory_mb),
                        &name(&column.name),
                        &name(&table.metrics[index]),
                        &cell.mean.to_string(),
                        &number(cell.spread),
                        &cell.runs.to_string(),
                        &cell.tasks.0.to_string(),
                        &cell.tasks.1.to_string(),
                    ])
                    .map_err(|e| e.to_string())?;
            }
        }
    }
    let bytes = writer.into_inner().map_err(|e| e.to_string())?;
    String::from_utf8(bytes).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::table::{Cell, Column};

    #[test]
    fn names_cannot_become_latex() {
        let shown = escaped("a_b%&#${}~^\\<|>\n\u{1b}");
        for bad in ['_', '%', '&', '#', '$', '{', '}'] {
            let at: Vec<usize> = shown.match_indices(bad).map(|(at, _)| at).collect();
            let of_command =
                |at: &usize| bad == '{' && shown[..*at].ends_with(|c: char| c.is_alphabetic()) || bad == '}';
            assert!(
                at.iter().all(|at| shown[..*at].ends_with('\\') || of_command(at)),
                "'{bad}' in {shown}"
            );
        }
        assert!(!shown.contains(['~', '^', '<', '>', '|', '\n', '\u{1b}']), "{shown}");
        assert!(
            shown.starts_with("a\\_b\\%") && shown.contains("\\textbackslash{}"),
            "{shown}"
        );
    }

    #[test]
    fn names_cannot_turn_the_text_around_them_or_be_formulas() {
        let odd = "\u{202e}=1|\n<b>";
        let table = Table {
            experiment: "mine".into(),
            metric: "top1".into(),
            metrics: vec!["top1".into()],
            columns: vec![Column::of_task(odd)],
            lines: vec![Line {
                method: odd.into(),
                published: false,
                params: None,
                percent: 0.1,
                memory_mb: None,
                cells: vec![Some(Cell::published(50.0))],
            }],
        };
        let (md, tex, cells) = (markdown(&table), latex(&table), csv(&[table]).unwrap());
        for text in [&md, &tex, &cells] {
            assert!(!text.contains('\u{202e}') && text.contains("u202e"), "{text}");
        }
        assert!(md.contains("\\u202e=1\\| &lt;b>"), "{md}");
        assert_eq!(name("=1"), "'=1");
        assert_eq!(name("lora"), "lora");
    }
}
