//! Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::train::Interrupter;

/// The first Ctrl-C ends the step and keeps what is finished; the second one ends the program.
///
/// # Errors
/// A system that does not let it be caught.
pub fn stop_on_ctrl_c(interrupter: &Interrupter) -> Result<(), String> {
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
