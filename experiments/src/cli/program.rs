//! How a program starts: its command line, its version, its messages about wrong flags.

use std::ffi::OsString;
use std::io::ErrorKind::BrokenPipe;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command};

use crate::cli::output::{note, one_line};

static PREFIX: OnceLock<Vec<String>> = OnceLock::new();

/// Sets the subcommand that this process was started with; the processes that it starts get the same one.
pub fn set_prefix(prefix: Vec<String>) {
    // Set once, at the start.
    let _ = PREFIX.set(prefix);
}

/// The first arguments of a process of this program: its subcommand, if it has one.
pub fn prefix() -> &'static [String] {
    PREFIX.get().map_or(&[], Vec::as_slice)
}

/// The start of the command that builds this program with a feature and runs it.
pub fn built_with(feature: &str) -> String {
    let path = std::env::current_exe().unwrap_or_default();
    let program = path.file_stem().unwrap_or_default().to_string_lossy();
    let words = prefix().iter().map(|word| format!("{word} "));
    format!(
        "cargo run -p experiments --features {feature} --bin {program} -- {}",
        words.collect::<String>()
    )
}

/// Makes a write beyond the limit on file sizes (`ulimit -f`) fail like one on a full disk; it would end the program
/// without a word. Programs that this one starts are not concerned: what is caught is not inherited.
#[cfg(unix)]
pub fn catch_the_limit_on_files() {
    use signal_hook::consts::SIGXFSZ;
    // Nobody reads the flag: the write itself returns the error. Where the signal cannot be caught, all else works.
    let _ = signal_hook::flag::register(SIGXFSZ, std::sync::Arc::default());
}

/// Other systems have no such signal.
#[cfg(not(unix))]
pub fn catch_the_limit_on_files() {}

/// The version and the compiled-in backends, as `--version` prints them.
pub fn version() -> &'static str {
    let backends = [
        ("flex", cfg!(feature = "flex")),
        ("ndarray", cfg!(feature = "ndarray")),
        ("wgpu", cfg!(feature = "wgpu")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("metal", cfg!(feature = "metal")),
        ("webgpu", cfg!(feature = "webgpu")),
        ("cuda", cfg!(feature = "cuda")),
        ("rocm", cfg!(feature = "rocm")),
        ("remote", cfg!(feature = "remote")),
    ];
    let compiled: Vec<&str> = backends.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    // clap needs it for as long as the program runs.
    format!("{} (backends: {})", env!("CARGO_PKG_VERSION"), compiled.join(", ")).leak()
}

/// Parses the command line; prints the help, or one sentence about what is wrong, if the program is to end.
///
/// # Errors
/// The exit code: 0 after help, 2 after wrong flags.
pub fn matches(command: Command) -> Result<ArgMatches, ExitCode> {
    let mut name = command.get_name().to_string();
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let mut called = &command;
    for arg in args.iter().skip(1).filter_map(|arg| arg.to_str()) {
        let Some(program) = called.find_subcommand(arg) else {
            break;
        };
        name += &format!(" {}", program.get_name());
        called = program;
    }
    // clap's own `help` takes no flags: drop -h and --help, and it prints the same help.
    if command.has_subcommands() && args.get(1).is_some_and(|arg| arg == "help") {
        args.retain(|arg| arg != "-h" && arg != "--help");
    }
    with_negative_numbers(command)
        .version(version())
        .try_get_matches_from(args)
        .map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match error.print() {
                // A closed pipe (`| head`) is no failure.
                Err(failed) if failed.kind() != BrokenPipe => {
                    note(format_args!("{name}: cannot print: {failed}"));
                    ExitCode::FAILURE
                }
                _ => ExitCode::SUCCESS,
            },
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                let _ = error.print();
                ExitCode::from(2)
            }
            _ => {
                note(format_args!("{name}: {}", sentence(&error)));
                ExitCode::from(2)
            }
        })
}

/// `command`, in which -1 after a flag is its value, so that the message names the flag and not the number.
pub fn with_negative_numbers(command: Command) -> Command {
    let command = command.mut_args(|arg| match arg.get_action().takes_values() && !arg.is_positional() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    });
    command.mut_subcommands(with_negative_numbers)
}

/// True if the suggested flag is the given one with a letter or two changed.
fn is_near(error: &clap::Error) -> bool {
    let of = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.trim_start_matches('-').to_string()),
        _ => None,
    };
    let (given, near) = (of(ContextKind::InvalidArg), of(ContextKind::SuggestedArg));
    let pair = given.zip(near);
    pair.is_none_or(|(given, near)| strsim::normalized_damerau_levenshtein(&given, &near) > 0.6)
}

/// A clap error in one sentence.
fn sentence(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let near = is_near(error);
    let told: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        // All values are named below.
        .filter(|line| !line.trim_start().starts_with("[possible values:") && !line.contains("a similar value exists"))
        .filter(|line| near || !line.contains("a similar argument exists"))
        .collect();
    let mut told = one_line(&told.join("\n"));
    told = told.strip_prefix("error: ").unwrap_or(&told).replace(" tip: ", "; ");
    for (from, to) in [
        ("invalid digit found in string", "expected a whole number of 0 or more"),
        ("cannot parse integer from empty string", "expected a whole number"),
        ("cannot parse float from empty string", "expected a number"),
        ("number too large to fit in target type", "the number is too large"),
        ("invalid float literal", "expected a number"),
    ] {
        told = told.replace(from, to);
    }
    if let Some(ContextValue::Strings(values)) = error.get(ContextKind::ValidValue)
        && let Some((last, others)) = values.split_last()
    {
        told += &match others.is_empty() {
            true => format!("; choose {last}"),
            false => format!("; choose {} or {last}", others.join(", ")),
        };
    }
    told + "; --help lists the flags"
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    #[test]
    fn a_wrong_flag_is_told_in_one_sentence() {
        let command = Command::new("x").arg(Arg::new("kind").long("kind").value_parser(["new", "old"]));
        let of = |args: [&str; 3]| sentence(&command.clone().try_get_matches_from(args).unwrap_err());
        let message = of(["x", "--kind", "newest"]);
        assert!(
            message.contains("'newest'") && message.contains("choose new or old"),
            "{message}"
        );
        let command = command
            .clone()
            .arg(Arg::new("r").long("r").value_parser(clap::value_parser!(usize)));
        let command = with_negative_numbers(command);
        let of = |args: [&str; 3]| sentence(&command.clone().try_get_matches_from(args).unwrap_err());
        let message = of(["x", "--r", "-1"]);
        assert!(
            message.contains("'-1' for '--r <r>': expected a whole number"),
            "{message}"
        );
        // Not every flag that shares a letter is meant.
        let message = of(["x", "--workers", "1"]);
        assert!(!message.contains("similar"), "{message}");
        let message = of(["x", "--kinds", "new"]);
        assert!(message.contains("'--kinds'") && !message.contains('\n'), "{message}");
    }
}
