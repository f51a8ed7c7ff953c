//! The process in which a program runs: this executable starts itself again, gives up its rights and then becomes the
//! interpreter.

use std::ffi::OsString;
use std::io::Write;
use std::process::{Command, ExitCode};

use super::launch::Launch;
use super::protection::Holds;

/// The hidden first argument that makes this executable act as the launcher.
pub const NAME: &str = "__sandbox";

/// Runs the launcher, if this process was started as one.
pub fn entry() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != NAME {
        return None;
    }
    let failed = launch(args.next());
    // Returns only after a failure; otherwise this process has become the interpreter.
    eprintln!("{failed}");
    Some(ExitCode::from(FAILED))
}

/// The exit code of a launcher that failed.
pub const FAILED: u8 = 125;

/// Becomes the program; returns only if that fails, with the reason.
fn launch(given: Option<OsString>) -> String {
    let given = given.unwrap_or_default();
    let launch: Launch = match serde_json::from_str(&given.to_string_lossy()) {
        Ok(launch) => launch,
        Err(error) => return format!("the sandbox is for this program's own use ({error})"),
    };
    if let Err(error) = std::env::set_current_dir(&launch.folder) {
        return format!("cannot enter {}: {error}", launch.folder.display());
    }
    let holds = match confine(&launch) {
        Ok(holds) => holds,
        Err(message) => return message,
    };
    let said = serde_json::to_string(&holds).unwrap_or_default();
    let mut stdout = std::io::stdout();
    if let Err(error) = writeln!(stdout, "{said}").and_then(|()| stdout.flush()) {
        return format!("cannot write to the parent process: {error}");
    }
    let mut command = Command::new(&launch.program);
    command.args(&launch.args);
    become_program(&mut command, &launch)
}

#[cfg(target_os = "linux")]
fn confine(launch: &Launch) -> Result<Holds, String> {
    super::linux::confine(launch)
}

#[cfg(all(unix, not(target_os = "linux")))]
fn confine(launch: &Launch) -> Result<Holds, String> {
    super::limits::set(&launch.limits)?;
    Ok(Holds {
        limits: true,
        ..Holds::default()
    })
}

#[cfg(not(unix))]
fn confine(_launch: &Launch) -> Result<Holds, String> {
    Ok(Holds::default())
}

#[cfg(unix)]
fn become_program(command: &mut Command, launch: &Launch) -> String {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    format!("cannot start {}: {error}", launch.program.display())
}

#[cfg(not(unix))]
fn become_program(command: &mut Command, launch: &Launch) -> String {
    match command.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => format!("cannot start {}: {error}", launch.program.display()),
    }
}
