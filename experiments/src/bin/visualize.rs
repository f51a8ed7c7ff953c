//! Token-cluster maps of a trained WeGeFT adapter.

use std::process::ExitCode;

use clap::Parser;
use experiments::output::end;
use experiments::visualize::program::{Args, visualize};

fn main() -> ExitCode {
    end("visualize", visualize(&Args::parse()))
}
