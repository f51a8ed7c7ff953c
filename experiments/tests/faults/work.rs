//! Pieces of work: how a program is started, and what must be the same however often it was stopped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// One piece of work of a program; `table` has one of each.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Its name in messages, and in FAULTS_WORK.
    pub name: &'static str,
    /// Its command line. `{here}` is the folder of what it needs, `{fixtures}` that of the crate `backbones`, `{shipped}` that
    /// of the shipped files, `{out}` its output, which is given as --out unless it stands there.
    pub line: &'static str,
    /// Makes what it needs in a folder, unless it is there.
    pub needs: fn(&Path),
    /// Several processes write, and count their writes together.
    pub several: bool,
    /// What an interrupted one leaves is a part of what a whole one leaves.
    pub leaves_parts: bool,
}

/// A folder, in memory where the system has such a one: what is tested is the order of writes, not the disk.
pub fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()),
        false => tempfile::tempdir(),
    }
    .unwrap()
}

/// The folder of the project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files at `places` and below them.
pub fn files_below(places: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut waiting: Vec<PathBuf> = places.into_iter().collect();
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        match path.is_dir() {
            true => waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path())),
            false => found.push(path),
        }
    }
    found
}

/// The temporary files and folders in `folder` and below it.
pub fn strays(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_name().to_str() {
            Some(name) if name.starts_with(".tmp") => found.push(entry.path()),
            _ => found.extend(strays(&entry.path())),
        }
    }
    found
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One sentence, no panic.
pub fn fails_with_a_sentence(output: &Output, place: &str) -> String {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{place}: {message}");
    assert!(!message.contains("panicked"), "{place}: {message}");
    // What it has loaded before is told there too.
    let lines: Vec<&str> = message.lines().filter(|line| !line.starts_with("loaded in")).collect();
    assert_eq!(lines.len(), 1, "{place}: {message}");
    lines[0].to_string()
}

pub fn wegeft() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wegeft"));
    command.env("RAYON_NUM_THREADS", "1").env_remove("WEGEFT_FAULT");
    command
}

/// `command` in a shell that redirects its output.
pub fn redirected(command: &Command, how: &str) -> Output {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("exec \"$0\" \"$@\" {how}"));
    shell.arg(command.get_program()).args(command.get_args());
    shell.env("RAYON_NUM_THREADS", "1").output().unwrap()
}

pub fn fixture(name: &str) -> String {
    format!("{FIXTURES}/{name}")
}

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/backbones/tests/fixtures");
const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../datasets");

/// Removes the output of a program, a folder or a file.
pub fn remove(out: &Path) {
    match out.is_dir() {
        true => std::fs::remove_dir_all(out).unwrap(),
        false => std::fs::remove_file(out).unwrap(),
    }
}

impl Work {
    /// The command that does it into `out`; what it needs is made in `folder`.
    pub fn command(&self, folder: &Path, out: &Path) -> Command {
        (self.needs)(folder);
        let mut command = wegeft();
        let (here, place) = (folder.to_str().unwrap(), out.to_str().unwrap());
        for word in self.line.split_whitespace() {
            let word = word.replace("{fixtures}", FIXTURES).replace("{shipped}", SHIPPED);
            command.arg(word.replace("{here}", here).replace("{out}", place));
        }
        if !self.line.contains("{out}") {
            command.arg("--out").arg(out);
        }
        command
    }

    /// Does it without a fault.
    pub fn done(&self, folder: &Path, out: &Path) -> Output {
        self.command(folder, out).output().unwrap()
    }

    /// What it leaves: files that must be the same, by name. Times, and what is made of times, are left out.
    pub fn results(&self, out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        if out.is_file() {
            return BTreeMap::from([("the file".into(), std::fs::read(out).unwrap())]);
        }
        // The report of a run has its times, one of several runs those of its input.
        let is_run = out.join("config.toml").exists();
        let mut found = BTreeMap::new();
        let mut waiting = vec![out.to_path_buf()];
        while let Some(folder) = waiting.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let name = entry.file_name().into_string().unwrap();
                // Checkpoints hold numbers of parameters that each process draws anew.
                let hidden = name.starts_with('.') && name != ".made-by";
                let passing = hidden || name == "checkpoints" || name == "seconds.json";
                if passing || is_run && name.starts_with("report.") {
                    continue;
                }
                if path.is_dir() {
                    waiting.push(path);
                    continue;
                }
                let bytes = std::fs::read(&path).unwrap();
                let bytes = match is_timed(&path) {
                    true => without_times(&bytes),
                    // A merged backbone names itself.
                    false if name == "classifier.json" => without(&bytes, out),
                    false => bytes,
                };
                found.insert(path.strip_prefix(out).unwrap().to_path_buf(), bytes);
            }
        }
        found
    }

    /// That what an interrupted run has left is a part of `whole`: files that are whole, lines that are the first ones.
    pub fn is_part(&self, out: &Path, whole: &BTreeMap<PathBuf, Vec<u8>>, place: &str) {
        if !self.leaves_parts {
            return;
        }
        for (path, bytes) in self.results(out) {
            let name = path.file_name().unwrap().to_str().unwrap();
            let expected = whole
                .get(&path)
                .unwrap_or_else(|| panic!("{place}: {} is new", path.display()));
            let lines = name.ends_with(".jsonl");
            // These list what is finished so far; a folder that is being made has its files one by one.
            let growing = ["summary.json", "answered.json"].contains(&name);
            // A round that was cut has lines of the steps that it came to: the next start drops them.
            let bytes = match name {
                "metrics.jsonl" => without_the_last_round(&bytes),
                _ => bytes,
            };
            match lines {
                true => assert!(
                    expected.starts_with(&bytes) || torn(&bytes, expected),
                    "{place}: {}",
                    path.display()
                ),
                false if growing => drop(serde_json::from_slice::<Value>(&bytes).unwrap()),
                false => assert_eq!(&bytes, expected, "{place}: {}", path.display()),
            }
        }
    }
}

/// True for the files that hold times beside results.
fn is_timed(path: &Path) -> bool {
    let timed = [
        "summary.json",
        "outcome.json",
        "trained.json",
        "answered.json",
        "tuning.json",
        "pretraining.json",
        "peft_result.json",
        "config.json",
    ];
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // The scores of a validation on questions are named after its step.
    let is_validation = name.ends_with(".json") && path.parent().is_some_and(|folder| folder.ends_with("valid"));
    is_validation || timed.contains(&name)
}

/// A text without the path of the folder that it lies in.
fn without(bytes: &[u8], folder: &Path) -> Vec<u8> {
    let folder = std::fs::canonicalize(folder).unwrap();
    let text = String::from_utf8_lossy(bytes);
    text.replace(folder.to_str().unwrap(), "the folder").into_bytes()
}

fn without_the_last_round(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let round = |line: &&str| serde_json::from_str::<Value>(line).ok()?["epoch"].as_u64();
    let last = text.lines().filter_map(|line| round(&line)).max();
    let before = text.lines().filter(|line| round(line).is_some() && round(line) < last);
    before.flat_map(|line| format!("{line}\n").into_bytes()).collect()
}

/// True if the whole lines of `bytes` are lines of `expected`: answers come in any order of their batches.
fn torn(bytes: &[u8], expected: &[u8]) -> bool {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    expected.starts_with(&bytes[..whole])
}

fn without_times(bytes: &[u8]) -> Vec<u8> {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, _| {
                    let timed = [
                        "seconds",
                        "per_second",
                        "_time",
                        " time",
                        "created_at",
                        "mem reserved",
                        "_memory_",
                    ];
                    !timed.iter().any(|part| name.contains(part))
                        && name != "peak_mb"
                        && name != "memory_mb"
                        // The checksum of the times, too.
                        && name != "crc32c"
                });
                fields.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut value: Value = serde_json::from_slice(bytes).unwrap();
    strip(&mut value);
    serde_json::to_vec(&value).unwrap()
}
