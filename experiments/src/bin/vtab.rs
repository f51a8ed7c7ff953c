//! Fine-tunes a vision transformer on VTAB-style tasks.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::train::Interrupter;
use clap::Parser;
use experiments::settings::Args;

fn main() {
    let args = Args::parse();
    let interrupter = Interrupter::new();
    if let Err(message) = stop_on_ctrl_c(&interrupter).and_then(|()| experiments::vtab::vtab(&args, &interrupter)) {
        eprintln!("vtab: {message}");
        std::process::exit(1);
    }
}

/// The first Ctrl-C ends the step and keeps what is finished; the second one ends the program.
fn stop_on_ctrl_c(interrupter: &Interrupter) -> Result<(), String> {
    static PRESSED: AtomicBool = AtomicBool::new(false);
    let interrupter = interrupter.clone();
    ctrlc::set_handler(move || {
        if PRESSED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("stopping after this step; press Ctrl-C again to stop at once");
        interrupter.stop(Some("Ctrl-C"));
    })
    .map_err(|e| format!("cannot catch Ctrl-C: {e}"))
}
