//! The `report` program: turns run folders into tables and plots.

use std::path::{Path, PathBuf};

use clap::Parser;
use files::Staged;

use crate::cli::output::{counted, print};
use crate::report::agreement::read;
use crate::report::formats::{cells, csv, latex, markdown};
use crate::report::page::{Section, page, with_means};
use crate::report::plots::{Axis, Point, scatter};
use crate::report::table::{Known, Line, Table, tables};
use crate::run::lock::Lock;

/// Gather run folders of any program into one table per experiment
///
/// Mean and standard deviation are over seeds: runs share a row only if all their other settings agree. VTAB-1k, FGVC
/// and the language suites are shown next to the published rows. Prints the tables, and writes report.html (opens
/// without network), report.md, report.tex, report.csv and, for each experiment, a plot of its scores against the
/// number of trainable parameters (vtab.svg and so on).
#[derive(Debug, Parser)]
#[command(name = "report")]
pub struct Args {
    /// Run folders, folders of run folders, or summary.json files.
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// Folder to write the files to.
    #[arg(long, alias = "output-dir", default_value = "runs/report")]
    pub out: PathBuf,
}

/// Runs the program.
///
/// # Errors
/// One sentence: a folder without results, a malformed file, a file that cannot be written.
pub fn report(args: &Args, known: Known) -> Result<(), String> {
    let rows = read(&args.runs)?;
    let tables = tables(&rows, known);
    if tables.is_empty() {
        return Err("the run folders hold no finished run yet".into());
    }
    let (mut md, mut tex) = (String::new(), String::new());
    for table in &tables {
        md += &format!("## {}\n\n{}\n\n", table.experiment, markdown(table));
        tex += &format!("% {}\n{}\n", table.experiment, latex(table));
    }
    let _lock = Lock::for_writing(&args.out)?;
    // None of the files of an earlier report goes before all new ones are there.
    let (mut sections, mut staged) = (Vec::new(), Vec::new());
    for table in &tables {
        let section = section(table)?;
        if let Some(plot) = section.plots.first() {
            staged.push(stage(&args.out.join(format!("{}.svg", table.experiment)), plot)?);
        }
        sections.push(section);
    }
    let html = page("Report", "", &sections)?;
    for (name, text) in [
        ("report.md", &md),
        ("report.tex", &tex),
        ("report.csv", &csv(&tables)?),
        ("report.html", &html),
    ] {
        staged.push(stage(&args.out.join(name), text)?);
    }
    for (path, file) in staged {
        file.put()
            .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    print(format_args!(
        "{md}{}; files in {}",
        counted(rows.len(), "result"),
        args.out.display()
    ))
}

fn stage(path: &Path, text: &str) -> Result<(PathBuf, Staged), String> {
    match files::stage(path, text.as_bytes()) {
        Ok(file) => Ok((path.to_path_buf(), file)),
        Err(error) => Err(format!("cannot write {}: {error}", path.display())),
    }
}

/// A table with its plots.
fn section(table: &Table) -> Result<Section, String> {
    let is_mean = |name: &str| table.columns.iter().any(|c| c.tasks.len() > 1 && c.name == name);
    let mut note =
        "Mean ± standard deviation over seeds where there are several; (n/m): only n of the m tasks have a result."
            .to_string();
    if table.lines.iter().any(|line| line.published) {
        note += match table.experiment.as_str() {
            "vtab" | "fgvc" => " Published rows: single runs, GPU memory at batch 32.",
            _ => " Published rows: models of 7 or 8 billion parameters, not comparable with smaller ones.",
        };
    }
    Ok(Section {
        title: table.experiment.clone(),
        rows: with_means(cells(table), is_mean),
        plots: plots(table)?.into(),
        note,
        ..Section::default()
    })
}

fn plots(table: &Table) -> Result<[String; 2], String> {
    let points = |x: fn(&Line) -> Option<f64>| -> Vec<Point> {
        let of_line = |line: &Line| {
            let cell = line.cells.last().copied().flatten()?;
            Some(Point {
                name: line.label(),
                x: x(line)?,
                y: cell.mean,
                spread: cell.spread,
            })
        };
        table.lines.iter().filter_map(of_line).collect()
    };
    let value = table.columns.last().map_or("", |column| column.name.as_str());
    let y = format!("{}, {value}", table.metric);
    Ok([
        scatter(
            "trainable parameters, %",
            &y,
            Axis::Logarithmic,
            &points(|line| Some(line.percent)),
        )?,
        scatter("peak memory, MB", &y, Axis::Linear, &points(|line| line.memory_mb))?,
    ])
}
