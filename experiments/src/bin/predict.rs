//! Labels and probabilities of pictures, from a backbone and an adapter.

use std::process::ExitCode;

use clap::Parser;
use experiments::output::end;
use experiments::predict::{Args, predict};

fn main() -> ExitCode {
    end("predict", predict(&Args::parse()))
}
