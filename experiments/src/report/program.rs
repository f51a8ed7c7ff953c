//! The `report` program: run folders in, tables and plots out.

use std::path::PathBuf;

use clap::Parser;
use wegeft::storage::write_then_rename;

use crate::output::print;
use crate::report::formats::{CSV_HEAD, csv, latex, markdown};
use crate::report::page::page;
use crate::report::rows::read;
use crate::report::table::tables;

/// Gathers run folders of any program into one table an experiment, mean and spread over seeds, VTAB-1k, FGVC
/// and the language suites beside the published rows. Prints it, and writes report.html (opens without network), report.md, report.tex and report.csv.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    /// Run folders, folders of run folders, or summary.json files.
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// Folder for the files.
    #[arg(long, default_value = "runs/report")]
    pub out: PathBuf,
}

/// Runs the program.
///
/// # Errors
/// One sentence: a folder without results, a malformed file, a file that cannot be written.
pub fn report(args: &Args) -> Result<(), String> {
    let rows = read(&args.runs)?;
    let tables = tables(&rows);
    if tables.is_empty() {
        return Err("the run folders hold no finished run yet".into());
    }
    let (mut md, mut tex, mut lines) = (String::new(), String::new(), CSV_HEAD.to_string());
    for table in &tables {
        md += &format!("## {}\n\n{}\n\n", table.experiment, markdown(table));
        tex += &format!("% {}\n{}\n", table.experiment, latex(table));
        lines += &csv(table);
    }
    std::fs::create_dir_all(&args.out).map_err(|e| format!("cannot make {}: {e}", args.out.display()))?;
    let html = page(&tables)?;
    for (name, text) in [
        ("report.md", &md),
        ("report.tex", &tex),
        ("report.csv", &lines),
        ("report.html", &html),
    ] {
        write_then_rename(&args.out.join(name), text.as_bytes()).map_err(|e| e.to_string())?;
    }
    print(format_args!(
        "{md}{} results; files in {}",
        rows.len(),
        args.out.display()
    ))
}
