//! Faults at chosen operations: those in which something could be lost that the others do not touch.

use std::collections::BTreeSet;

use super::table::{WORKS, named};
use super::work::{Work, folder, remove, stderr, wegeft};
use super::writing::{KINDS, Uncut, finished};

/// One operation of each kind on each kind of file: between a write and its rename, in the middle of an append, while old
/// checkpoints are removed.
#[test]
fn pretraining_survives_kills_at_chosen_writes() {
    for work in WORKS.iter().filter(|work| work.name.starts_with("pretrain")) {
        let dir = folder();
        let uncut = Uncut::new(*work, dir.path());
        // Numbers of checkpoints and of temporary files do not matter.
        let plain = |operation: &String| -> String {
            let name = operation.rsplit('/').next().unwrap_or_default();
            let kind = operation.split(' ').next().unwrap_or_default();
            let letters = name.chars().filter(|c| c.is_ascii_alphabetic());
            let letters: String = match name.starts_with('.') {
                true => "temporary".into(),
                false => letters.collect(),
            };
            format!("{kind} {letters}")
        };
        let mut seen = BTreeSet::new();
        let mut kills = 0;
        for (index, operation) in uncut.operations.iter().enumerate() {
            let chosen = ["Write", "Rename", "Remove"]
                .iter()
                .any(|kind| operation.starts_with(kind));
            if chosen && seen.insert(plain(operation)) {
                uncut.fails_at(index + 1, ["KILL", "POWER"][kills % 2]);
                kills += 1;
            }
        }
        assert!(kills >= 6, "{}: {:?}", work.name, uncut.operations);
    }
}

/// The training would otherwise go on, and end with checkpoints after which nothing asks the questions again.
#[test]
fn answers_in_a_training_that_cannot_be_written_are_made_up_for() {
    let dir = folder();
    let uncut = Uncut::new(named(["metamath"])[0], dir.path());
    let mut faults = 0;
    for (index, operation) in uncut.operations.iter().enumerate() {
        if operation.contains("/valid/2.json") {
            uncut.fails_at(index + 1, "EIO");
            faults += 1;
        }
    }
    assert!(faults >= 6, "{:?}", uncut.operations);
}

/// Whatever fails while an adapter is written over another one, the folder has one of the two, whole.
#[test]
fn an_adapter_that_is_replaced_is_the_old_one_or_the_new_one() {
    let dir = folder();
    let [new] = named(["convert"]);
    let old = Work {
        line: "adapter convert {here}/vision/colours/wegeft/seed-1/adapter --r 3",
        ..new
    };
    let (out, log) = (dir.path().join("out"), dir.path().join("log"));
    let start_with_the_old_one = || {
        if out.exists() {
            remove(&out);
        }
        let done = old.done(dir.path(), &out);
        assert!(done.status.success(), "{}", stderr(&done));
    };
    start_with_the_old_one();
    let done = finished(new.command(dir.path(), &out).env("WEGEFT_FAULT_LOG", &log));
    assert!(done.status.success(), "{}", stderr(&done));
    let whole = new.results(&out);
    let operations = std::fs::read_to_string(log).unwrap().lines().count();
    for number in 1..=operations {
        let kind = KINDS[number % KINDS.len()];
        let place = format!("{kind} at operation {number}");
        start_with_the_old_one();
        finished(
            new.command(dir.path(), &out)
                .env("WEGEFT_FAULT", format!("{number}:{kind}")),
        );
        let shown = wegeft().args(["adapter", "inspect"]).arg(&out).output().unwrap();
        let text = String::from_utf8_lossy(&shown.stdout);
        assert!(shown.status.success(), "{place}: {}", stderr(&shown));
        assert!(text.contains("WEGEFT"), "{place}: {text}");
        let again = new.done(dir.path(), &out);
        assert!(again.status.success(), "{place}, then: {}", stderr(&again));
        assert_eq!(new.results(&out), whole, "{place}");
    }
}
