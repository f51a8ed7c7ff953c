//! Labels and probabilities of pictures, from a backbone and an adapter.

use clap::Parser;
use experiments::predict::{Args, predict};

fn main() {
    if let Err(message) = predict(&Args::parse()) {
        eprintln!("predict: {message}");
        std::process::exit(1);
    }
}
