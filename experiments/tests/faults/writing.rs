//! Every write of a piece of work fails once: the disk is full or broken, a signal comes, the process is killed, the power
//! goes. One sentence, nothing finished is lost, and the same command ends as if nothing had been.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::work::{Work, fails_with_a_sentence, folder, stderr};

const KINDS: [&str; 8] = ["ENOSPC", "KILL", "EIO", "POWER", "SHORT", "EROFS", "EINTR", "EDQUOT"];

/// Work, what it leaves, and its operations, as an uncut run has them.
struct Uncut {
    work: Work,
    folder: PathBuf,
    results: BTreeMap<PathBuf, Vec<u8>>,
    operations: Vec<String>,
}

impl Uncut {
    fn new(work: Work, folder: &Path) -> Self {
        let (out, log) = (folder.join("uncut"), folder.join("log"));
        let mut command = work.command(folder, &out);
        let done = command.env("WEGEFT_FAULT_LOG", &log).output().unwrap();
        assert!(done.status.success(), "{work:?}: {}", stderr(&done));
        let operations = std::fs::read_to_string(log).unwrap();
        Self {
            work,
            folder: folder.to_path_buf(),
            results: work.results(&out),
            operations: operations.lines().map(String::from).collect(),
        }
    }

    /// Runs with a fault of `kind` at operation `number`, from 1, and again without.
    fn fails_at(&self, number: usize, kind: &str) {
        let operation = &self.operations[number - 1];
        let place = format!("{:?}, {kind} at operation {number}, as a rule {operation}", self.work);
        let out = self.folder.join(format!("{kind}-{number}"));
        let mut command = self.work.command(&self.folder, &out);
        let output = command
            .env("WEGEFT_FAULT", format!("{number}:{kind}"))
            .output()
            .unwrap();
        match kind {
            "SHORT" | "EINTR" => {
                assert!(output.status.success(), "{place}: {}", stderr(&output));
                assert_eq!(self.work.results(&out), self.results, "{place}");
            }
            "KILL" | "POWER" => assert_eq!(output.status.code(), None, "{place}: {}", stderr(&output)),
            // A file that only tells the time, or who holds a lock, ends no run; nor does a removal that a full disk lets
            // through. Checkpoints are written side by side, so that the operation may be its neighbour.
            _ if output.status.success() => assert_eq!(self.work.results(&out), self.results, "{place}"),
            _ => drop(fails_with_a_sentence(&output, &place)),
        }
        if self.work != Work::Prepare {
            self.work.is_part(&out, &self.results, &place);
        }
        let again = self.work.done(&self.folder, &out);
        assert!(again.status.success(), "{place}, then: {}", stderr(&again));
        assert_eq!(self.work.results(&out), self.results, "{place}");
        std::fs::remove_dir_all(&out).unwrap();
    }

    /// One kind at each operation, another at its neighbours.
    fn one_kind_each(&self) {
        for number in 1..=self.operations.len() {
            self.fails_at(number, KINDS[number % KINDS.len()]);
        }
    }

    fn all_kinds(&self) {
        let start = std::time::Instant::now();
        for number in 1..=self.operations.len() {
            for kind in KINDS {
                self.fails_at(number, kind);
            }
        }
        let runs = self.operations.len() * KINDS.len();
        println!(
            "{:?}: {} operations, {runs} faults in {:.0} s",
            self.work,
            self.operations.len(),
            start.elapsed().as_secs_f64()
        );
    }
}

#[test]
fn a_vision_run_survives_the_failure_of_any_write() {
    let dir = folder();
    Uncut::new(Work::Vision, dir.path()).one_kind_each();
}

#[test]
fn a_language_run_survives_the_failure_of_any_write() {
    let dir = folder();
    Uncut::new(Work::Language, dir.path()).one_kind_each();
}

#[test]
fn a_merge_survives_the_failure_of_any_write() {
    let dir = folder();
    Uncut::new(Work::Merge, dir.path()).one_kind_each();
}

#[test]
fn a_disk_that_stays_full_ends_a_run_with_what_it_has() {
    let dir = folder();
    let uncut = Uncut::new(Work::Vision, dir.path());
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
#[ignore = "long: every kind of fault at every write"]
fn faults_of_every_kind_at_every_write() {
    for work in [Work::Vision, Work::Language, Work::Evaluation, Work::Merge] {
        let dir = folder();
        Uncut::new(work, dir.path()).all_kinds();
    }
    // Images are written by the hundred: some of the operations.
    let dir = folder();
    let uncut = Uncut::new(Work::Prepare, dir.path());
    let mut faults = 0;
    let rare = |operation: &String| !operation.contains("/images/");
    for (index, operation) in uncut.operations.iter().enumerate() {
        if rare(operation) || index % 97 == 0 {
            uncut.fails_at(index + 1, KINDS[faults % KINDS.len()]);
            faults += 1;
        }
    }
    println!("Prepare: {} operations, {faults} faults", uncut.operations.len());
}

/// No other code writes: what the injected faults show would not hold of it.
#[test]
fn one_crate_writes_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
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
    ];
    // What no other process reads: the peak of this one's memory; links of the cache; tests beside the code.
    let known = ["/proc/self/clear_refs", "temporary"];
    let mut waiting: Vec<PathBuf> = [
        "crates/wegeft/src",
        "crates/backbones/src",
        "datasets/src",
        "experiments/src",
    ]
    .map(|folder| root.join(folder))
    .into();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
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
