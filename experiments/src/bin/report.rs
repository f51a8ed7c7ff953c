//! Tables and plots of any set of run folders.

use std::process::ExitCode;

use clap::Parser;
use experiments::output::end;
use experiments::report::program::{Args, report};

fn main() -> ExitCode {
    end("report", report(&Args::parse()))
}
