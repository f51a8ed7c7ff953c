//! Faults at chosen operations: those in which something could be lost that the others do not touch.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use wegeft::AdapterFiles;

use super::table::{MERGE, WORKS, named};
use super::work::{Work, folder, remove, stderr, strays};
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
                // A power loss would take what is half written of the model with it.
                let kind = match operation.ends_with("/model.safetensors") {
                    true => "KILL",
                    false => ["KILL", "POWER"][kills % 2],
                };
                uncut.fails_at(index + 1, kind);
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

/// Whatever fails while a result is written over an earlier one, the folder has one of the two, whole; then nothing of the
/// old one is left, and what others put there is.
#[test]
fn a_result_that_is_replaced_is_the_old_one_or_the_new_one() {
    let dir = folder();
    let [convert, export, merge] = named(["convert", "export-lora", "merge-vision"]);
    for (old, new) in [
        (
            "adapter convert {here}/vision/colours/wegeft/seed-1/adapter --r 3",
            convert,
        ),
        (
            "adapter export-lora {here}/vision/colours/wegeft/seed-2/adapter",
            export,
        ),
        ("adapter merge {here}/vision/colours/wegeft/seed-2/adapter", merge),
    ] {
        replaced(dir.path(), Work { line: old, ..new }, new);
    }
}

fn replaced(dir: &Path, old: Work, new: Work) {
    let [out, before, fresh, aside, log] =
        ["out", "before", "fresh", "aside", "log"].map(|name| dir.join(format!("{name}-{}", new.name)));
    for (work, place) in [(old, &before), (new, &fresh)] {
        let done = work.done(dir, place);
        assert!(done.status.success(), "{}: {}", new.name, stderr(&done));
        std::fs::write(place.join("notes.txt"), "mine").unwrap();
    }
    // The old one has a file more.
    std::fs::create_dir(before.join("more")).unwrap();
    std::fs::write(before.join("more/left.txt"), "old").unwrap();
    let mark = before.join(".made-by");
    let names = std::fs::read_to_string(&mark).unwrap();
    std::fs::write(&mark, names + "more/left.txt\n").unwrap();
    let start_with_the_old_one = || {
        if out.exists() {
            remove(&out);
        }
        copy(&before, &out);
    };
    start_with_the_old_one();
    let (was, whole) = (new.results(&out), new.results(&fresh));
    let done = finished(new.command(dir, &out).env("WEGEFT_FAULT_LOG", &log));
    assert!(done.status.success(), "{}: {}", new.name, stderr(&done));
    assert_eq!(new.results(&out), whole, "{}", new.name);
    let operations = std::fs::read_to_string(&log).unwrap().lines().count();
    for number in 1..=operations {
        let kind = KINDS[number % KINDS.len()];
        let place = format!("{}, {kind} at operation {number}", new.name);
        start_with_the_old_one();
        finished(new.command(dir, &out).env("WEGEFT_FAULT", format!("{number}:{kind}")));
        if new.name != "merge-vision" {
            AdapterFiles::read(&out).unwrap_or_else(|e| panic!("{place}: {e}"));
        }
        copy(&out, &aside);
        files::finish(&out).unwrap();
        let now = new.results(&out);
        assert!(now == was || now == whole, "{place}: {:?}", now.keys());
        remove(&out);
        std::fs::rename(&aside, &out).unwrap();
        let again = new.done(dir, &out);
        assert!(again.status.success(), "{place}, then: {}", stderr(&again));
        assert_eq!(new.results(&out), whole, "{place}");
        assert_eq!(strays(&out), Vec::<PathBuf>::new(), "{place}");
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// With the files of a language model, a head's description or plots of its own, which the next result has not.
#[test]
fn a_result_over_one_of_another_kind_is_as_in_a_new_folder() {
    let dir = folder();
    let [export, convert, report, visualize, vision] =
        named(["export-lora", "convert", "report", "visualize", "merge-vision"]);
    let with = |work: Work, line| Work {
        line,
        needs: report.needs,
        ..work
    };
    for (number, (old, new)) in [
        (MERGE, vision),
        (vision, MERGE),
        (
            export,
            with(export, "adapter export-lora {here}/language/wegeft/adapter"),
        ),
        (
            convert,
            with(convert, "adapter convert {here}/language/wegeft/adapter --r 2"),
        ),
        (report, with(report, "report {here}/vision")),
        (
            visualize,
            with(
                visualize,
                "visualize {here}/data/colours/images/1.png --adapter {here}/vision/colours/wegeft/seed-1/adapter \
                 --sheets-only",
            ),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let [out, fresh] = ["out", "fresh"].map(|name| dir.path().join(format!("{name}-{number}")));
        for (work, place) in [(old, &out), (new, &out), (new, &fresh)] {
            let done = work.done(dir.path(), place);
            assert!(done.status.success(), "{}: {}", work.line, stderr(&done));
            std::fs::write(place.join("notes.txt"), "mine").unwrap();
        }
        assert_eq!(new.results(&out), new.results(&fresh), "{}", new.line);
    }
}
