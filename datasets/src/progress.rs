//! Progress bars of all readers.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `total` steps.
pub(crate) fn bar(total: usize, message: String) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}").unwrap_or(ProgressStyle::default_bar());
    ProgressBar::new(total as u64)
        .with_message(plain(&message))
        .with_style(style)
}

/// A spinner for work of unknown length.
pub(crate) fn spinner(message: String) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(plain(&message));
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// `text` without characters that would control the terminal, since folder names may contain anything.
fn plain(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}
