//! What every experiment gets from the spine: settings, run folders, trials, reports. Run as a user runs them.

mod adapters;
mod docs;
mod faults;
mod folders;
mod methods;
mod quotes;
mod settings;

use std::path::Path;
#[cfg(unix)]
use std::process::{Child, Stdio};
use std::process::{Command, Output};

/// The one command.
pub fn wegeft(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wegeft")).args(args).output().unwrap()
}

/// Starts a program and does not wait for it.
#[cfg(unix)]
fn start(args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wegeft"));
    command
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Ends it with a signal, which it respects.
#[cfg(unix)]
fn interrupt(child: Child, signal: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{}", text(&ended.stderr));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeds(args: &[&str]) -> String {
    let output = wegeft(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs a program that must fail with one sentence that holds `parts`; its exit code.
pub fn fails(args: &[&str], parts: &[&str]) -> i32 {
    let output = wegeft(args);
    let message = text(&output.stderr);
    assert!(!output.status.success(), "{args:?} succeeded");
    assert!(!message.contains("panicked"), "{message}");
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
    output.status.code().unwrap_or(-1)
}

/// A task of `n` images per list: left half bright is class 0, right half bright class 1.
pub fn make_task(root: &Path, name: &str, n: usize) {
    let folder = root.join(name);
    std::fs::create_dir_all(folder.join("images")).unwrap();
    for list in ["train800", "val200", "test"] {
        let mut lines = String::new();
        for i in 0..n {
            let image = image::RgbImage::from_fn(32, 32, |x, y| {
                let bright = (x < 16) == (i % 2 == 0);
                image::Rgb([if bright { 220 } else { 30 }, 9 * i as u8, y as u8])
            });
            image.save(folder.join(format!("images/{list}{i}.png"))).unwrap();
            lines += &format!("images/{list}{i}.png {}\n", i % 2);
        }
        std::fs::write(folder.join(format!("{list}.txt")), lines).unwrap();
    }
}

/// A file of sums, one JSON object per line.
pub fn sums(path: &Path, count: usize) {
    let line = |i: usize| {
        let (a, b) = (1 + i % 9, 1 + i / 9 % 9);
        format!(
            "{{\"instruction\": \"Add {a} and {b}.\", \"output\": \"The sum is {}.\"}}\n",
            a + b
        )
    };
    std::fs::write(path, (0..count).map(line).collect::<String>()).unwrap();
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}
