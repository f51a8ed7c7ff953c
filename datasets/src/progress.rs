//! The progress bar of every reader.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `total` steps.
pub(crate) fn bar(total: usize, message: String) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}").unwrap_or(ProgressStyle::default_bar());
    ProgressBar::new(total as u64).with_message(message).with_style(style)
}
