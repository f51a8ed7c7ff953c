//! Looks into adapter folders, merges, exports, compares and converts them.

use clap::Parser;
use experiments::adapter::{Args, adapter};

fn main() {
    if let Err(message) = adapter(&Args::parse()) {
        eprintln!("adapter: {message}");
        std::process::exit(1);
    }
}
