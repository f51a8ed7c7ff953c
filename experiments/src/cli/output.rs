//! Printing. A closed pipe or a full disk must not cause a panic, and text from a model or a file must not control the
//! terminal.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};

const QUIET: u8 = 0;
const NORMAL: u8 = 1;
const VERBOSE: u8 = 2;

static LEVEL: AtomicU8 = AtomicU8::new(NORMAL);

/// From now on, prints less (only results) or more.
pub fn set_verbosity(quiet: bool, verbose: bool) {
    let level = match (quiet, verbose) {
        (true, _) => QUIET,
        (_, true) => VERBOSE,
        _ => NORMAL,
    };
    LEVEL.store(level, Ordering::Relaxed);
}

/// True after -v.
pub fn is_verbose() -> bool {
    LEVEL.load(Ordering::Relaxed) >= VERBOSE
}

/// Prints a line of progress. A write error is ignored: it must not end a training.
pub fn tell(line: impl Display) {
    if LEVEL.load(Ordering::Relaxed) >= NORMAL {
        let _ = writeln!(std::io::stdout().lock(), "{}", plain(&line.to_string()));
    }
}

/// Prints a line of progress that is shown only with -v.
pub fn detail(line: impl Display) {
    if is_verbose() {
        tell(line);
    }
}

/// Prints a line on standard error, separate from the results; the middle of a long one is left out. A write error is
/// ignored.
pub fn note(line: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{}", plain(&shortened(line.to_string())));
}

/// Prints a line of results.
///
/// # Errors
/// Output that cannot be written. A pipe that its reader has closed (`| head`) is not an error.
pub fn print(line: impl Display) -> Result<(), String> {
    write(format_args!("{line}\n"))
}

/// Prints text of results and flushes it.
///
/// # Errors
/// As [`print()`].
pub fn write(text: impl Display) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    match write!(out, "{}", plain(&text.to_string())).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("cannot write to standard output: {error}")),
        _ => Ok(()),
    }
}

/// `text` with control characters other than line breaks and tabs, and those that change the direction of what follows,
/// escaped as in JSON: a terminal does not obey them, and JSON keeps its meaning.
pub fn plain(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => shown.push(c),
            c if c.is_control() || turns(c) => shown += &format!("\\u{:04x}", u32::from(c)),
            c => shown.push(c),
        }
    }
    shown
}

/// A number with its noun: `1 epoch`, `3 epochs`.
pub fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// The exit code of a program: 0, or 1 after printing its error, one sentence, on standard error.
pub fn end(program: &str, result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            note(format_args!("{program}: {}", one_line(&message)));
            ExitCode::FAILURE
        }
    }
}

/// Joins the lines of a message: those of some libraries have several lines or end in an empty one. The middle of a long
/// one is left out.
pub fn one_line(message: &str) -> String {
    let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    shortened(lines.join(" "))
}

/// `message`, or its start and its end if it is long: it may repeat a field of a file.
fn shortened(message: String) -> String {
    const START: usize = 2000;
    const END: usize = 1000;
    let count = message.chars().count();
    if count <= START + END {
        return message;
    }
    let characters = || message.chars();
    let (start, end): (String, String) = (
        characters().take(START).collect(),
        characters().skip(count - END).collect(),
    );
    format!("{start} … {end}")
}

/// A line about a flag that was given although nothing reads it.
pub fn no_effect(flag: &str, why: &str) -> String {
    format!("{flag} has no effect: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_steer_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\tc\nd\r"), "a\\u001b[2Jb\tc\nd\\u000d");
        assert_eq!(plain("photo_\u{202e}gpj.exe\u{2066}"), "photo_\\u202egpj.exe\\u2066");
    }

    #[test]
    fn a_message_is_one_line_of_a_length_that_can_be_read() {
        assert_eq!(one_line(" a\n\n b \n"), "a b");
        let fits = "é".repeat(3000);
        assert_eq!(one_line(&fits), fits);
        let long = one_line(&format!(
            "field 'bias' is \"{}\"; set it to none",
            "x".repeat(1_000_000)
        ));
        assert_eq!(long.chars().count(), 3003);
        assert!(long.starts_with("field 'bias'") && long.ends_with("set it to none"));
    }
}
