//! Running the programs.

use std::process::{Command, Stdio};

pub fn wegeft(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wegeft"));
    command.args(args).stdin(Stdio::null());
    // Where it is not set, Mesa says so on standard error.
    command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs it; it must succeed. What it printed.
pub fn succeeds(args: &[&str]) -> String {
    let output = wegeft(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The GPU backend of this build.
pub const GPU: &str = experiments::cli::device::GPU.unwrap();

/// True on a machine without a GPU, where nothing can be tested, unless the environment says that it has one.
pub fn no_gpu() -> bool {
    let Err(message) = experiments::cli::device::device(GPU) else {
        return false;
    };
    assert!(std::env::var_os("WEGEFT_NEEDS_GPU").is_none(), "{message}");
    println!("not tested: {message}");
    true
}
