//! Whether a dashboard covers the terminal, and how it is given back.

use std::io::StdoutLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::Show;
use crossterm::event::DisableMouseCapture;
use crossterm::execute;
use crossterm::terminal::{LeaveAlternateScreen, disable_raw_mode};

static OPEN: AtomicBool = AtomicBool::new(false);

/// Says that a dashboard covers the terminal, or covers it no more.
pub fn set_open(open: bool) {
    OPEN.store(open, Ordering::SeqCst);
}

/// True while a dashboard covers the terminal.
pub fn is_open() -> bool {
    OPEN.load(Ordering::SeqCst)
}

/// Gives the terminal back, for a program that ends at once. Nothing is drawn while the result is held.
pub fn leave() -> Option<StdoutLock<'static>> {
    if !is_open() {
        return None;
    }
    let mut out = std::io::stdout().lock();
    let _ = disable_raw_mode();
    let _ = execute!(out, DisableMouseCapture, LeaveAlternateScreen, Show);
    Some(out)
}

/// Shows the cursor again.
pub fn show_cursor() {
    let _ = execute!(std::io::stdout(), Show);
}
