//! Fine-tunes a vision transformer on VTAB-style tasks.

use burn::train::Interrupter;
use clap::Parser;
use experiments::ctrl_c::stop_on_ctrl_c;
use experiments::settings::Args;

fn main() {
    let args = Args::parse();
    let interrupter = Interrupter::new();
    if let Err(message) = stop_on_ctrl_c(&interrupter).and_then(|()| experiments::vtab::vtab(&args, &interrupter)) {
        eprintln!("vtab: {message}");
        std::process::exit(1);
    }
}
