//! Small pieces of work for the programs: command lines, and what must be the same however often they were stopped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// One piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A vision transformer with two seeds.
    Vision,
    /// A language model trained and tested on questions.
    Language,
    /// A language model tested as it is.
    Evaluation,
    /// A grid in two processes, and the runs that it chooses.
    Sweep,
    /// A language model trained on a file of examples, of which the best checkpoint is kept.
    Finetune,
    /// A text classifier.
    Classify,
    /// A vision transformer trained from nothing.
    Pretrain,
    /// A language model trained from nothing.
    PretrainLm,
    /// A task folder from TFDS records.
    Prepare,
    /// A merged backbone.
    Merge,
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

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One sentence, no panic.
pub fn fails_with_a_sentence(output: &Output, place: &str) -> String {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{place}: {message}");
    assert!(!message.contains("panicked"), "{place}: {message}");
    assert_eq!(message.trim_end().lines().count(), 1, "{place}: {message}");
    message
}

pub fn wegeft() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wegeft"));
    command.env("RAYON_NUM_THREADS", "1").env_remove("WEGEFT_FAULT");
    command
}

/// Every kind of work but [`Work::Merge`], which is over before it can be stopped at random.
pub const WORKS: [Work; 9] = [
    Work::Vision,
    Work::Language,
    Work::Evaluation,
    Work::Sweep,
    Work::Prepare,
    Work::Finetune,
    Work::Classify,
    Work::Pretrain,
    Work::PretrainLm,
];

pub fn fixture(name: &str) -> String {
    format!(
        "{}/../crates/backbones/tests/fixtures/{name}",
        env!("CARGO_MANIFEST_DIR")
    )
}

/// A task of two colours: 12 images to train on, 4 to validate on, 8 to test on.
pub fn two_colours(data: &Path) {
    let task = data.join("colours");
    std::fs::create_dir_all(task.join("images")).unwrap();
    for index in 0..24_u8 {
        let image = image::RgbImage::from_pixel(8, 8, image::Rgb([40 + 160 * (index % 2), index, 50]));
        image.save(task.join(format!("images/{index}.png"))).unwrap();
    }
    for (list, range) in [("train800", 0..12), ("val200", 12..16), ("test", 16..24)] {
        let line = |index: i32| format!("images/{index}.png {}\n", index % 2);
        let lines: String = range.map(line).collect();
        std::fs::write(task.join(format!("{list}.txt")), lines).unwrap();
    }
}

impl Work {
    /// What it needs, made in `folder`; the command that does it into `out`.
    pub fn command(self, folder: &Path, out: &Path) -> Command {
        let mut command = wegeft();
        let data = folder.join("data");
        let examples = folder.join("examples.jsonl");
        let vision = |command: &mut Command| {
            if !data.exists() {
                two_colours(&data);
            }
            command.args(["vtab", "--task", "colours", "--r", "2", "--batch-size", "6", "--model"]);
            command.arg(fixture("vit")).arg("--data").arg(&data);
        };
        match self {
            Self::Vision => {
                vision(&mut command);
                command.args(["--method", "wegeft", "--epochs", "2", "--seed", "1,2"]);
            }
            Self::Sweep => {
                vision(&mut command);
                command.args(["--method", "wegeft,lora", "--epochs", "2", "--sweep", "--jobs", "2"]);
                command.args(["--sweep-lr", "1e-2,1e-3", "--sweep-weight-decay", "0"]);
            }
            Self::Language => {
                command.args([
                    "arithmetic",
                    "--sets",
                    "one-step",
                    "--method",
                    "wegeft",
                    "--train-limit",
                    "8",
                ]);
                command.args(["--test-limit", "6", "--batch-size", "4", "--epochs", "2", "--r", "2"]);
                command.args(["--eval-batch-size", "2", "--max-new-tokens", "4"]);
            }
            Self::Evaluation => {
                command.args(["arithmetic", "--sets", "one-step,groups", "--method", "none"]);
                command.args(["--test-limit", "10", "--eval-batch-size", "2", "--max-new-tokens", "8"]);
            }
            Self::Finetune => {
                lines(
                    &examples,
                    |i| json!({"prompt": format!("Add {i} and 1."), "completion": (i + 1).to_string()}),
                );
                command.args([
                    "finetune",
                    "--method",
                    "lora",
                    "--lora-r",
                    "2",
                    "--epochs",
                    "2",
                    "--batch-size",
                    "4",
                ]);
                command.args(["--eval-steps", "2", "--validation", "0.25", "--keep", "best"]);
                command.arg("--train-file").arg(&examples);
            }
            Self::Classify => {
                lines(
                    &examples,
                    |i| json!({"text": format!("{} {i}", ["bad", "good"][i % 2]), "label": i % 2}),
                );
                command.args([
                    "classify",
                    "--method",
                    "wegeft",
                    "--r",
                    "2",
                    "--epochs",
                    "2",
                    "--batch-size",
                    "4",
                ]);
                command.arg("--train-file").arg(&examples);
            }
            Self::Pretrain => {
                command.args(["pretrain", "--steps", "250", "--batch-size", "1", "--classes", "2"]);
                command.args(["--d-model", "32", "--depth", "1"]);
            }
            Self::PretrainLm => {
                command.args(["pretrain-lm", "--steps", "250", "--batch-size", "1", "--length", "8"]);
                command.args(["--vocab-size", "300", "--d-model", "32", "--depth", "1"]);
            }
            Self::Prepare => {
                if !data.exists() {
                    records(&data);
                }
                command
                    .args(["prepare", "--task", "dtd", "--any-version", "--tfds"])
                    .arg(&data);
            }
            Self::Merge => {
                let trained = folder.join("trained");
                if !trained.exists() {
                    let done = Self::Language.command(folder, &trained).output().unwrap();
                    assert!(done.status.success(), "{}", stderr(&done));
                }
                command.args(["adapter", "merge"]).arg(trained.join("wegeft/adapter"));
            }
        }
        command.arg("--out").arg(out);
        command
    }

    /// Does it without a fault.
    pub fn done(self, folder: &Path, out: &Path) -> Output {
        self.command(folder, out).output().unwrap()
    }

    /// What it leaves: files that must be the same, by name. Times, and what is made of times, are left out.
    pub fn results(self, out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![out.to_path_buf()];
        while let Some(folder) = waiting.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let name = entry.file_name().into_string().unwrap();
                // Checkpoints hold numbers of parameters that each process draws anew; a report holds times.
                let passing = name.starts_with('.') || name == "checkpoints" || name == "seconds.json";
                if passing || name.starts_with("report.") {
                    continue;
                }
                if path.is_dir() {
                    waiting.push(path);
                    continue;
                }
                let bytes = std::fs::read(&path).unwrap();
                let timed = [
                    "summary.json",
                    "outcome.json",
                    "trained.json",
                    "answered.json",
                    "tuning.json",
                    "pretraining.json",
                    "config.json",
                ];
                let bytes = match timed.contains(&name.as_str()) {
                    true => without_times(&bytes),
                    false => bytes,
                };
                found.insert(path.strip_prefix(out).unwrap().to_path_buf(), bytes);
            }
        }
        found
    }

    /// That what an interrupted run has left is a part of `whole`: files that are whole, lines that are the first ones.
    pub fn is_part(self, out: &Path, whole: &BTreeMap<PathBuf, Vec<u8>>, place: &str) {
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
                    !name.contains("seconds")
                        && !name.contains("per_second")
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

/// A file of 24 examples, unless it is there.
fn lines(path: &Path, line: impl Fn(usize) -> Value) {
    if path.exists() {
        return;
    }
    let text: String = (0..24).map(|index| format!("{}\n", line(index))).collect();
    std::fs::write(path, text).unwrap();
}

/// DTD's records, few of them and small.
fn records(data: &Path) {
    crate::writer::write_dataset(
        &data.join("dtd/3.0.1"),
        "dtd",
        &[("train", &[820]), ("validation", &[210]), ("test", &[40])],
        |_, index| {
            let label = index % 47;
            crate::writer::example(&[
                ("image", crate::writer::bytes(&crate::writer::png(5 * label as u8))),
                ("label", crate::writer::ints(&[label as i64])),
            ])
        },
    );
}
