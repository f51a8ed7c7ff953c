//! Token-cluster maps of a trained WeGeFT adapter.

use clap::Parser;
use experiments::visualize::program::{Args, visualize};

fn main() {
    if let Err(message) = visualize(&Args::parse()) {
        eprintln!("visualize: {message}");
        std::process::exit(1);
    }
}
