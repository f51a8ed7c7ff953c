//! Continuations of prompts, from a language model and an adapter.

use clap::Parser;
use experiments::generate::{Args, generate};

fn main() {
    if let Err(message) = generate(&Args::parse()) {
        eprintln!("generate: {message}");
        std::process::exit(1);
    }
}
