//! Every write of a piece of work fails once: the disk is full or broken, a signal comes, the process is killed, the power
//! goes. One sentence, nothing finished is lost, and the same command ends as if nothing had been.

use std::collections::BTreeMap;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::table::{LANGUAGE, PREPARE, SWEEP, VISION, WORKS, each, named};
use super::work::{Work, fails_with_a_sentence, files_below, folder, remove, root, stderr, strays};

pub const KINDS: [&str; 10] = [
    "ENOSPC", "KILL", "EIO", "POWER", "SHORT", "TERM", "EROFS", "EINTR", "HUP", "EDQUOT",
];

/// Work, what it leaves, and its operations, as an uncut run has them.
pub struct Uncut {
    work: Work,
    folder: PathBuf,
    results: BTreeMap<PathBuf, Vec<u8>>,
    pub operations: Vec<String>,
}

impl Uncut {
    pub fn new(work: Work, folder: &Path) -> Self {
        let (out, log) = (
            folder.join(format!("uncut-{}", work.name)),
            folder.join(format!("log-{}", work.name)),
        );
        let done = finished(work.command(folder, &out).env("WEGEFT_FAULT_LOG", &log));
        assert!(done.status.success(), "{}: {}", work.name, stderr(&done));
        let operations = std::fs::read_to_string(log).unwrap();
        Self {
            work,
            folder: folder.to_path_buf(),
            results: work.results(&out),
            operations: operations.lines().map(String::from).collect(),
        }
    }

    /// Runs with a fault of `kind` at operation `number`, from 1, and again without.
    pub fn fails_at(&self, number: usize, kind: &str) {
        let operation = &self.operations[number - 1];
        let place = format!(
            "{}, {kind} at operation {number}, as a rule {operation}",
            self.work.name
        );
        let out = self.folder.join(format!("{kind}-{number}"));
        let mut command = self.work.command(&self.folder, &out);
        // Several processes count together. A power loss is the end of all of them.
        let several = self.work.several;
        let onwards = if several && kind == "POWER" { "+" } else { "" };
        if several {
            let count = self.folder.join("count");
            std::fs::remove_file(&count).unwrap_or_default();
            command.env("WEGEFT_FAULT_COUNT", &count);
        }
        let output = finished(command.env("WEGEFT_FAULT", format!("{number}{onwards}:{kind}")));
        match kind {
            "SHORT" | "EINTR" => {
                assert!(output.status.success(), "{place}: {}", stderr(&output));
                assert_eq!(self.work.results(&out), self.results, "{place}");
            }
            // The signal may come before anything listens for it, or when all is done.
            "TERM" | "HUP" => match output.status.code() {
                None => assert!(matches!(output.status.signal(), Some(1 | 15)), "{place}: {output:?}"),
                Some(0) => assert_eq!(self.work.results(&out), self.results, "{place}"),
                Some(code) => {
                    let message = stderr(&output);
                    assert!(code == 1 && message.contains("interrupted"), "{place}: {message}");
                    assert!(!message.contains("panicked"), "{place}: {message}");
                }
            },
            // The process that ends may be one that another waits for.
            "KILL" | "POWER" if several => match output.status.code() {
                None => {}
                Some(0) => assert_eq!(self.work.results(&out), self.results, "{place}"),
                Some(_) => drop(fails_with_a_sentence(&output, &place)),
            },
            "KILL" | "POWER" => assert_eq!(output.status.code(), None, "{place}: {}", stderr(&output)),
            // A file that only tells the time, or who holds a lock, ends no run; nor does a removal that a full disk lets
            // through. Checkpoints are written side by side, so that the operation may be its neighbour.
            _ if output.status.success() => assert_eq!(self.work.results(&out), self.results, "{place}"),
            _ => drop(fails_with_a_sentence(&output, &place)),
        }
        self.work.is_part(&out, &self.results, &place);
        let again = self.work.done(&self.folder, &out);
        assert!(again.status.success(), "{place}, then: {}", stderr(&again));
        assert_eq!(self.work.results(&out), self.results, "{place}");
        assert_eq!(strays(&out), Vec::<PathBuf>::new(), "{place}");
        remove(&out);
    }

    /// One kind at each operation, another at its neighbours.
    fn one_kind_each(&self) {
        for number in 1..=self.operations.len() {
            self.fails_at(number, KINDS[number % KINDS.len()]);
        }
    }

    /// One kind at every 41st operation, from one that the name chooses: programs write the same files in the same order.
    fn now_and_then(&self) {
        let first = self.work.name.bytes().map(usize::from).sum::<usize>() % 41;
        for number in (1 + first.min(self.operations.len() - 1)..=self.operations.len()).step_by(41) {
            self.fails_at(number, KINDS[(first + number / 41) % KINDS.len()]);
        }
    }

    /// The kinds that FAULTS_KINDS names, such as `KILL,POWER`, or all, at every operation or at every FAULTS_EVERY-th.
    fn all_kinds(&self) {
        let start = Instant::now();
        let wanted = std::env::var("FAULTS_KINDS").ok();
        let wanted = |kind: &&str| {
            wanted
                .as_ref()
                .is_none_or(|named| named.split(',').any(|name| name == *kind))
        };
        let kinds: Vec<&str> = KINDS.into_iter().filter(wanted).collect();
        let every = std::env::var("FAULTS_EVERY").ok().and_then(|every| every.parse().ok());
        let mut runs = 0;
        for number in (1..=self.operations.len()).step_by(every.unwrap_or(1)) {
            for kind in &kinds {
                self.fails_at(number, kind);
                runs += 1;
            }
        }
        println!(
            "{}: {} operations, {runs} faults ({}) in {:.0} s, no difference",
            self.work.name,
            self.operations.len(),
            kinds.join(", "),
            start.elapsed().as_secs_f64()
        );
    }
}

/// Runs `command` until it and every process that it started have ended.
pub fn finished(command: &mut Command) -> Output {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().unwrap();
    let group = format!("-{}", child.id());
    let output = child.wait_with_output().unwrap();
    let start = Instant::now();
    let runs = || {
        let mut kill = Command::new("kill");
        kill.args(["-s", "0", "--", &group]).stderr(Stdio::null());
        kill.status().unwrap().success()
    };
    while runs() {
        assert!(start.elapsed() < Duration::from_secs(60), "{group} goes on: {output:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    output
}

#[test]
fn a_vision_run_survives_the_failure_of_any_write() {
    let dir = folder();
    Uncut::new(VISION, dir.path()).one_kind_each();
}

#[test]
fn a_language_run_survives_the_failure_of_any_write() {
    let dir = folder();
    Uncut::new(LANGUAGE, dir.path()).one_kind_each();
}

/// Those that make one folder or file of another one: all of their few operations.
#[test]
fn tools_survive_the_failure_of_any_write() {
    let dir = folder();
    let tools = named([
        "merge-language",
        "merge-vision",
        "export-lora",
        "convert",
        "report",
        "predict",
        "logits",
    ]);
    each(&tools, |work| Uncut::new(*work, dir.path()).one_kind_each());
}

#[test]
fn a_sweep_in_two_processes_survives_the_failure_of_its_writes() {
    let dir = folder();
    Uncut::new(SWEEP, dir.path()).now_and_then();
}

#[test]
fn suites_survive_the_failure_of_their_writes() {
    let dir = folder();
    let suites = named([
        "evaluation",
        "finetune",
        "classify",
        "fgvc",
        "glue",
        "code",
        "instruct",
        "metamath",
        "gsm8k",
        "commonsense",
        "visualize",
        "man",
    ]);
    each(&suites, |work| Uncut::new(*work, dir.path()).now_and_then());
}

#[test]
fn a_disk_that_stays_full_ends_a_run_with_what_it_has() {
    let dir = folder();
    let uncut = Uncut::new(VISION, dir.path());
    for share in 1..6 {
        let number = uncut.operations.len() * share / 6;
        let out = dir.path().join(format!("full-{share}"));
        let mut command = uncut.work.command(dir.path(), &out);
        let output = command
            .env("WEGEFT_FAULT", format!("{number}+:ENOSPC"))
            .output()
            .unwrap();
        let place = format!("full from operation {number} on");
        let message = fails_with_a_sentence(&output, &place);
        assert!(message.contains("No space left"), "{message}");
        uncut.work.is_part(&out, &uncut.results, &place);
        assert!(uncut.work.done(dir.path(), &out).status.success());
        assert_eq!(uncut.work.results(&out), uncut.results, "{place}");
    }
}

#[test]
#[ignore = "long: every kind of fault at every write of each program; FAULTS_WORK chooses programs"]
fn faults_at_every_write() {
    // Its images are written by the hundred.
    let works: Vec<Work> = WORKS.iter().filter(|work| work.name != PREPARE.name).copied().collect();
    each(&works, |work| {
        let dir = folder();
        Uncut::new(*work, dir.path()).all_kinds();
    });
}

#[test]
#[ignore = "long: a fault at some hundred writes"]
fn faults_at_writes_of_prepare() {
    // Images are written by the hundred: some of the operations.
    let dir = folder();
    let uncut = Uncut::new(PREPARE, dir.path());
    let mut faults = 0;
    let rare = |operation: &String| !operation.contains("/images/");
    for (index, operation) in uncut.operations.iter().enumerate() {
        if rare(operation) || index % 97 == 0 {
            uncut.fails_at(index + 1, KINDS[faults % KINDS.len()]);
            faults += 1;
        }
    }
    println!("prepare: {} operations, {faults} faults", uncut.operations.len());
}

/// No other code writes: what the injected faults show would not hold of it.
#[test]
fn one_crate_writes_files() {
    let writes = [
        "fs::write(",
        "File::create",
        "fs::rename(",
        "OpenOptions",
        "File::options",
        "fs::remove_",
        "fs::create_dir",
        "fs::copy(",
        ".set_len(",
        "NamedTempFile",
        // A folder that others write to, too; `tempfile` makes private ones.
        "env::temp_dir",
    ];
    // What no other process reads: the peak of this one's memory; links of the cache; tests beside the code.
    let known = ["/proc/self/clear_refs", "temporary"];
    let folders = [
        "crates/wegeft/src",
        "crates/backbones/src",
        "crates/capture/src",
        "datasets/src",
        "experiments/src",
    ];
    for path in files_below(folders.map(|folder| root().join(folder))) {
        if path.extension().is_none_or(|ending| ending != "rs") || path.ends_with("tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            let line = line.trim();
            let comment = line.starts_with("//");
            // An open file of the writing crate has the same name for it.
            let ours = line.contains("files::") || line.contains("out.set_len") || line.contains(".set_len(0)");
            if comment || ours || known.iter().any(|known| line.contains(known)) {
                continue;
            }
            let found = writes.iter().find(|write| line.contains(**write));
            assert_eq!(
                found,
                None,
                "{}:{}: write it with the crate `files`",
                path.display(),
                number + 1
            );
        }
    }
}
