//! Tracks whether a dashboard covers the terminal, and restores the terminal.

use std::io::StdoutLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::Show;
use crossterm::event::DisableMouseCapture;
use crossterm::execute;
use crossterm::terminal::{LeaveAlternateScreen, disable_raw_mode};

static OPEN: AtomicBool = AtomicBool::new(false);

/// Records whether a dashboard covers the terminal.
pub fn set_open(open: bool) {
    OPEN.store(open, Ordering::SeqCst);
}

/// True while a dashboard covers the terminal.
pub fn is_open() -> bool {
    OPEN.load(Ordering::SeqCst)
}

/// Restores the terminal for a program that ends immediately. Nothing is drawn while the returned lock is held.
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
