//! Continuations of prompts, from a language model and an adapter.

use std::process::ExitCode;

use clap::Parser;
use experiments::generate::{Args, generate};
use experiments::output::end;

fn main() -> ExitCode {
    end("generate", generate(&Args::parse()))
}
