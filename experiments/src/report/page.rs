//! The report as one HTML file that opens without network.

use std::fmt::Write;

use crate::plots::{Axis, Point, scatter};
use crate::report::formats::cells;
use crate::report::run_folder::{STYLE, escape};
use crate::report::table::{Line, Table};

/// All `tables` with their plots.
///
/// # Errors
/// A plot that cannot be drawn.
pub fn page(tables: &[Table]) -> Result<String, String> {
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>report</title><style>{STYLE} .mean td{{font-weight:600}}\
         </style><h1>Report</h1>\n"
    );
    for table in tables {
        let _ = writeln!(html, "<h2>{}</h2>", escape(&table.experiment));
        html += &results(table);
        html += &plots(table)?;
    }
    Ok(html + "</html>\n")
}

fn results(table: &Table) -> String {
    let mut html = String::from("<table>");
    let is_mean = |name: &String| table.columns.iter().any(|c| c.tasks.len() > 1 && c.name == *name);
    for (index, row) in cells(table).iter().enumerate() {
        let cell = if index == 0 { "th" } else { "td" };
        html += if is_mean(&row[0]) { "<tr class=mean>" } else { "<tr>" };
        for text in row {
            let _ = write!(html, "<{cell}>{}", escape(text));
        }
        html += "</tr>\n";
    }
    html += "</table>\n<p>Mean ± standard deviation over seeds where there are several; (n/m): only n of the m tasks have \
             a result.";
    if table.lines.iter().any(|line| line.published) {
        html += match table.experiment.as_str() {
            "vtab" | "fgvc" => " Published rows: single runs, GPU memory at batch 32.",
            _ => " Published rows: models of 7 or 8 billion values, not comparable with smaller ones.",
        };
    }
    html + "</p>\n"
}

fn plots(table: &Table) -> Result<String, String> {
    let points = |x: fn(&Line) -> Option<f64>| -> Vec<Point> {
        let of_line = |line: &Line| Some((line.label(), x(line)?, line.cells.last().copied().flatten()?.mean));
        table.lines.iter().filter_map(of_line).collect()
    };
    let value = table.columns.last().map_or("", |column| column.name.as_str());
    let y = format!("{}, {value}", table.metric);
    let params = scatter(
        "trainable parameters, %",
        &y,
        Axis::Logarithmic,
        &points(|line| Some(line.percent)),
    )?;
    let memory = scatter("peak memory, MB", &y, Axis::Linear, &points(|line| line.memory_mb))?;
    Ok(format!("{params}\n{memory}\n"))
}
