//! Ctrl-C, and the signals that ask a program to end: SIGTERM (from a scheduler or a shutdown) and SIGHUP (a closed
//! terminal).

use std::sync::atomic::{AtomicBool, Ordering};

// Re-exported here, so that only `train` and this file name burn-train. Its trainer watches the same object.
pub use burn::train::Interrupter;

use crate::cli::output::note;
use crate::cli::terminal;

/// The first Ctrl-C or signal stops the run after the current step and keeps finished results; the second one ends the
/// program with exit code 130.
///
/// # Errors
/// A system that does not allow the signal to be caught.
pub fn stop_on_ctrl_c(interrupter: &Interrupter) -> Result<(), String> {
    static PRESSED: AtomicBool = AtomicBool::new(false);
    let interrupter = interrupter.clone();
    ctrlc::set_handler(move || {
        if PRESSED.swap(true, Ordering::SeqCst) {
            let _held = terminal::leave();
            std::process::exit(130);
        }
        interrupter.stop(Some("Ctrl-C"));
        if !terminal::is_open() {
            note("stopping after this step; press Ctrl-C again to stop at once");
        }
    })
    .map_err(|e| format!("cannot catch Ctrl-C: {e}"))
}
