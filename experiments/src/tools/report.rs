//! The `report` program: turns run folders into tables and plots.

use std::path::{Path, PathBuf};

use clap::Parser;

use crate::cli::output::{counted, plain, print};
use crate::report::agreement::read;
use crate::report::formats::{cells, csv, is_csv, latex, markdown};
use crate::report::page::{Section, page, with_means};
use crate::report::plots::{Axis, Point, scatter};
use crate::report::table::{Known, Line, Table, tables};
use crate::run::files::replace_texts;
use crate::run::lock::Lock;
use crate::run::place::refuse_another;

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
        // Of a stranger's file, which must not end a heading or a comment.
        let name = plain(&table.experiment.replace(char::is_control, " "));
        md += &format!("## {}\n\n{}\n\n", name.replace('<', "&lt;"), markdown(table));
        tex += &format!("% {name}\n{}\n", latex(table));
    }
    let (mut sections, mut texts) = (Vec::new(), Vec::new());
    for table in &tables {
        let section = section(table)?;
        if let Some(plot) = section.plots.first() {
            texts.push((file_name(&table.experiment), plain(plot)));
        }
        sections.push(section);
    }
    let html = page("Report", "", &sections)?;
    texts.extend([
        ("report.md".to_string(), md.clone()),
        ("report.tex".to_string(), tex),
        (CSV.to_string(), csv(&tables)?),
        ("report.html".to_string(), html),
    ]);
    // The lock first: it finishes what a killed process began.
    let _lock = Lock::for_writing(&args.out)?;
    write(&args.out, &texts)?;
    print(format_args!(
        "{md}{}; files in {}",
        counted(rows.len(), "result"),
        args.out.display()
    ))
}

/// The table, by which a report from before there were marks is recognised.
const CSV: &str = "report.csv";
/// By which a report is known.
const MAKER: &str = "wegeft report";

/// Writes the report into `out`, where it replaces an earlier one and nothing else.
fn write(out: &Path, texts: &[(String, String)]) -> Result<(), String> {
    refuse_another(out, false)?;
    if files::read_regular(&out.join(CSV)).is_ok_and(|bytes| is_csv(&bytes)) {
        files::adopt(out, MAKER, texts.iter().map(|(name, _)| name.as_str()))
            .map_err(|e| format!("cannot write into {}: {e}", out.display()))?;
    }
    replace_texts(out, Some(MAKER), texts)
}

/// Name of an experiment's plot, whatever its name may be.
fn file_name(experiment: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || c == '_' { c } else { '-' };
    format!("{}.svg", experiment.chars().map(plain).collect::<String>())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_earlier_report_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        let written = |names: &[&str]| {
            let text = |name: &&str| (name.to_string(), csv(&[]).unwrap());
            write(out, &names.iter().map(text).collect::<Vec<_>>())
        };
        written(&["vtab.svg", "report.tex", CSV]).unwrap();
        // Nothing is left of one of other runs.
        written(&["report.tex", CSV]).unwrap();
        assert!(!out.join("vtab.svg").exists());
        std::fs::write(out.join("vtab.svg"), "my plot").unwrap();
        let message = written(&["vtab.svg", CSV]).unwrap_err();
        assert!(
            message.contains("vtab.svg there is not of an earlier result"),
            "{message}"
        );
        assert_eq!(std::fs::read(out.join("vtab.svg")).unwrap(), b"my plot");
        // One of before there were marks has a table of its own.
        std::fs::remove_file(out.join(".made-by")).unwrap();
        written(&["vtab.svg", CSV]).unwrap();
        for name in [".made-by", CSV] {
            std::fs::remove_file(out.join(name)).unwrap();
        }
        assert!(
            written(&["vtab.svg", CSV])
                .unwrap_err()
                .contains("vtab.svg there is not")
        );
        std::fs::write(out.join("adapter_config.json"), "{}").unwrap();
        assert!(written(&[CSV]).unwrap_err().contains("of another model or adapter"));
    }

    #[test]
    fn a_plot_stays_in_its_folder() {
        assert_eq!(file_name("vtab"), "vtab.svg");
        assert_eq!(file_name("../../etc/cron\n"), "------etc-cron-.svg");
    }
}
