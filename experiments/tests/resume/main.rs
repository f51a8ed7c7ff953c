//! Runs that are cut, by a signal, in a terminal, or by a full disk, and that go on where they were cut.
#![cfg(unix)]

mod cut;
mod terminal;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn command(out: &Path, epochs: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vtab"));
    command.args(["--task", "digits", "--method", "wegeft", "--epochs", epochs]);
    command
        .args(["--batch-size", "200", "--drop-path", "0.2", "--out"])
        .arg(out);
    command
}

fn resumed(out: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vtab"));
    command.args(["--resume", "--out"]).arg(out).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "{} never came",
            path.display()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}
