//! The report as one HTML file that opens without network.

use std::fmt::Write;

use crate::plots::{Axis, Point, scatter};
use crate::report::formats::facts;
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
    let mut html = format!("<table><tr><th>{}", escape(&table.metric));
    for line in &table.lines {
        let _ = write!(html, "<th>{}", escape(&line.label()));
    }
    html += "</tr>\n";
    for fact in 0..3 {
        for (index, line) in table.lines.iter().enumerate() {
            let (name, value) = &facts(line)[fact];
            if index == 0 {
                let _ = write!(html, "<tr><td>{name}");
            }
            let _ = write!(html, "<td>{value}");
        }
        html += "</tr>\n";
    }
    for (index, column) in table.columns.iter().enumerate() {
        let class = if column.tasks.len() > 1 { " class=mean" } else { "" };
        let _ = write!(html, "<tr{class}><td>{}", escape(&column.name));
        for line in &table.lines {
            let _ = write!(html, "<td>{}", line.cells[index].map_or("-".into(), |cell| cell.text()));
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
