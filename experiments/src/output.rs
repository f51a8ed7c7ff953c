//! What the programs print. Neither a reader that went away nor a full disk may make them panic.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// A line of progress, lost where nobody can read it: it must not end a training.
pub fn tell(line: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A line that was asked for.
///
/// # Errors
/// Output that cannot be written. A reader that has read enough (`| head`) is no error.
pub fn print(line: impl Display) -> Result<(), String> {
    match writeln!(std::io::stdout().lock(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("cannot write to standard output: {error}")),
        _ => Ok(()),
    }
}

/// A number with its noun: `1 epoch`, `3 epochs`.
pub fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// The end of a program: 0, or its one sentence on the error output and 1.
pub fn end(program: &str, result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Some libraries' messages have several lines, or end in an empty one.
            let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            let _ = writeln!(std::io::stderr().lock(), "{program}: {}", lines.join(" "));
            ExitCode::FAILURE
        }
    }
}
