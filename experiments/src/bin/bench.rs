//! Times forward passes and training steps.

use std::process::ExitCode;

use clap::Parser;
use experiments::bench::{Args, bench};
use experiments::output::end;

fn main() -> ExitCode {
    end("bench", bench(&Args::parse()))
}
