//! Tables and plots of any set of run folders.

use clap::Parser;
use experiments::report::program::{Args, report};

fn main() {
    if let Err(message) = report(&Args::parse()) {
        eprintln!("report: {message}");
        std::process::exit(1);
    }
}
