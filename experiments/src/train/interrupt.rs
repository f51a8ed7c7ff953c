//! Ctrl-C, and the signals that ask a program to end: SIGTERM (a scheduler, a shutdown) and SIGHUP (a terminal that is
//! closed).

use std::sync::atomic::{AtomicBool, Ordering};

use burn::train::Interrupter;

use crate::cli::output::note;
use crate::cli::terminal;

/// The first Ctrl-C or signal ends the step and keeps what is finished; the second one ends the program, with code 130.
///
/// # Errors
/// A system that does not let the signal be caught.
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
