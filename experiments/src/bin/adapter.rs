//! Looks into adapter folders, merges, exports, compares and converts them.

use std::process::ExitCode;

use clap::Parser;
use experiments::adapter::{Args, adapter};
use experiments::output::end;

fn main() -> ExitCode {
    end("adapter", adapter(&Args::parse()))
}
