//! Times forward passes and training steps.

use clap::Parser;
use experiments::bench::{Args, bench};

fn main() {
    if let Err(message) = bench(&Args::parse()) {
        eprintln!("bench: {message}");
        std::process::exit(1);
    }
}
