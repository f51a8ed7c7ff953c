//! Running workers and the programs that use them.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

pub const TOKEN: &str = "a token that no file shows";

pub fn wegeft(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wegeft"));
    command.args(args).env_remove("WEGEFT_TOKEN").stdin(Stdio::null());
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A worker that lends flex, killed at the end.
pub struct Worker {
    child: Child,
    pub port: u16,
}

impl Worker {
    /// On a port that is free.
    pub fn start() -> Self {
        Self::start_on(0, &[])
    }

    pub fn start_on(port: u16, more: &[&str]) -> Self {
        let port = port.to_string();
        let mut command = wegeft(&[&["worker", "--port", &port], more].concat());
        command.env("WEGEFT_TOKEN", TOKEN).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("lending flex as ws://127.0.0.1:").unwrap();
        let port = address.strip_suffix("#0").unwrap().parse().unwrap();
        // It would wait for a reader of what it prints.
        std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
        Self { child, port }
    }

    /// Its first device.
    pub fn device(&self) -> String {
        format!("{}#0", self.address())
    }

    pub fn address(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file with the token, which nobody else can read.
pub fn token_file(folder: &Path, token: &str) -> PathBuf {
    let path = folder.join("token");
    std::fs::write(&path, token).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    path
}

/// Runs it with the token; it must succeed. What it printed.
pub fn succeeds(args: &[&str]) -> String {
    let output = wegeft(args).env("WEGEFT_TOKEN", TOKEN).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// It failed with one sentence that holds `parts`.
pub fn is_one_sentence(output: &Output, parts: &[&str]) {
    let message = text(&output.stderr);
    assert!(!output.status.success(), "it succeeded: {}", text(&output.stdout));
    assert!(!message.contains("panicked"), "{message}");
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}
