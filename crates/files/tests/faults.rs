//! Every operation of a small piece of work fails once in each way: what was there before, or what comes after, is found
//! whole. This program is its own child: faults are asked for by the environment.
#![cfg(all(unix, debug_assertions))]

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Output};

use files::{File, Staging, create_folder, current, move_folder, remove_folder, replace, write};

const FOLDER: &str = "WEGEFT_FILES_TEST";
/// Files that belong together.
const PAIR: [&str; 2] = ["weights", "config"];
/// A file of the old pair, which the new one has not.
const EXTRA: &str = "more/extra";
/// Whose the pair is.
const MAKER: &str = "test";

/// What the child does: goes on where it was stopped, and says what is done.
fn work(folder: &Path) -> io::Result<()> {
    let results = folder.join("a/results");
    create_folder(&results)?;
    let mut lines = File::append(&folder.join("lines"))?;
    let path = folder.join("lines");
    let there = fs::read(&path)?;
    let whole = there.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole < there.len() {
        replace(&path, &there[..whole])?;
        lines = File::append(&path)?;
    }
    for number in whole / 6..3 {
        lines.write_line(&format!("line{number}"))?;
        println!("line");
    }
    lines.sync()?;
    println!("synced");
    for content in ["first", "second"] {
        replace(&results.join("result"), content.as_bytes())?;
        println!("{content}");
    }
    let staging = Staging::new(&folder.join("pair"))?;
    for name in PAIR {
        replace(&staging.path().join(name), b"new")?;
    }
    staging.put_as(MAKER, Some(PAIR[1]))?;
    println!("pair put");
    if !folder.join("made").exists() {
        let partial = folder.join("partial");
        remove_folder(&partial)?;
        create_folder(&partial)?;
        create_folder(&partial.join("images"))?;
        write(&partial.join("images/one"), b"pixels")?;
        move_folder(&partial, &folder.join("made"))?;
        println!("made");
    }
    Ok(())
}

/// Started by the test below.
#[test]
#[ignore = "the other test's child"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    if let Err(error) = work(Path::new(&folder)) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn run(folder: &Path, fault: &str, log: Option<&Path>) -> Output {
    run_in(Path::new("."), folder, fault, log)
}

/// [`run`] where `folder` is named from the folder `current`.
fn run_in(current: &Path, folder: &Path, fault: &str, log: Option<&Path>) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.current_dir(current);
    command.args(["--exact", "child", "--ignored", "--nocapture"]);
    command.env(FOLDER, folder).env("WEGEFT_FAULT", fault);
    if let Some(log) = log {
        command.env("WEGEFT_FAULT_LOG", log);
    }
    command.output().unwrap()
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn finished(folder: &Path) {
    assert_eq!(text(&folder.join("lines")).unwrap(), "line0\nline1\nline2\n");
    assert_eq!(text(&folder.join("a/results/result")).unwrap(), "second");
    assert_eq!(text(&folder.join("made/images/one")).unwrap(), "pixels");
    for name in PAIR {
        assert_eq!(text(&folder.join("pair").join(name)).as_deref(), Some("new"));
    }
    assert!(!folder.join("pair/more").exists());
}

/// The folder that a child works in, with an old pair.
fn started(folder: &Path) {
    let pair = folder.join("pair");
    fs::create_dir_all(pair.join("more")).unwrap();
    for name in [PAIR[0], PAIR[1], EXTRA] {
        fs::write(pair.join(name), "old").unwrap();
    }
    fs::write(pair.join(".made-by"), format!("{MAKER}\nconfig\n{EXTRA}\nweights\n")).unwrap();
}

/// The content of both files of the pair, which must be the same.
fn pair(folder: &Path, place: &str) -> String {
    let [weights, config] = PAIR.map(|name| text(&current(&folder.join("pair").join(name))));
    assert_eq!(weights, config, "{place}");
    config.unwrap_or_else(|| panic!("{place}: the pair is gone"))
}

#[test]
fn whatever_fails_nothing_is_lost_and_the_next_start_ends_as_if_nothing_had() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let uncut = dir.path().join("uncut");
    started(&uncut);
    assert!(run(&uncut, "0:EIO", Some(&log)).status.success());
    finished(&uncut);
    assert_eq!(fs::read_dir(uncut.join("pair")).unwrap().count(), 3);
    let operations: Vec<String> = text(&log).unwrap().lines().map(String::from).collect();
    for kind in [
        "Create ",
        "Write ",
        "Sync ",
        "Rename ",
        "MakeFolder ",
        "SyncFolder ",
        "Remove ",
    ] {
        assert!(
            operations.iter().any(|line| line.starts_with(kind)),
            "no {kind}: {operations:?}"
        );
    }
    for kind in ["ENOSPC", "EIO", "EINTR", "SHORT", "KILL", "POWER"] {
        for (number, operation) in operations.iter().enumerate() {
            let folder = dir.path().join(format!("{kind}-{number}"));
            started(&folder);
            let place = format!("{kind} at operation {}: {operation}", number + 1);
            let output = run(&folder, &format!("{}:{kind}", number + 1), None);
            let harmless = kind == "EINTR" || kind == "SHORT" || kind == "ENOSPC" && operation.starts_with("Remove");
            assert_eq!(output.status.success(), harmless, "{place}");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let has = |word: &str| said.contains(word);
            // What was said to be done is there.
            let result = text(&folder.join("a/results/result"));
            match (has("second"), has("first")) {
                (true, _) => assert_eq!(result.as_deref(), Some("second"), "{place}"),
                (_, true) => assert!(
                    matches!(result.as_deref(), Some("first" | "second")),
                    "{place}: {result:?}"
                ),
                _ => assert!(matches!(result.as_deref(), None | Some("first")), "{place}: {result:?}"),
            }
            let both = pair(&folder, &place);
            assert!(both == "new" || both == "old" && !has("pair put"), "{place}: {both}");
            let lines = text(&folder.join("lines")).unwrap_or_default();
            let told = if kind == "POWER" && !has("synced") {
                0
            } else {
                said.matches("line\n").count()
            };
            assert!(lines.matches('\n').count() >= told, "{place}: {lines:?}");
            assert!(
                !folder.join("made").exists() || text(&folder.join("made/images/one")).as_deref() == Some("pixels"),
                "{place}"
            );
            assert!(run(&folder, "0:EIO", None).status.success(), "{place}");
            finished(&folder);
        }
    }
}

/// A file may be named from the current folder, and its folder, or the file that becomes it, from the root.
#[test]
fn what_is_on_the_disk_outlives_a_power_loss_under_a_relative_name_too() {
    let dir = tempfile::tempdir().unwrap();
    let (log, work) = (dir.path().join("log"), Path::new("work"));
    fs::create_dir(dir.path().join("uncut")).unwrap();
    assert!(
        run_in(dir.path(), Path::new("uncut"), "0:EIO", Some(&log))
            .status
            .success()
    );
    let operations = text(&log).unwrap().lines().count();
    let folder = dir.path().join("work");
    let mut reached = 0;
    for number in 1..=operations {
        fs::create_dir(&folder).unwrap();
        let output = run_in(dir.path(), work, &format!("{number}:POWER"), None);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if said.contains("second") {
            reached += 1;
            let result = text(&folder.join("a/results/result"));
            assert_eq!(result.as_deref(), Some("second"), "{number}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
    assert!(reached > 0);
}

#[test]
fn a_disk_that_stays_full_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(dir.path(), "0:EIO", None).status.success());
    let failed = run(dir.path(), "1+:ENOSPC", None);
    assert!(!failed.status.success());
    assert!(
        String::from_utf8_lossy(&failed.stderr).contains("No space left"),
        "{failed:?}"
    );
    finished(dir.path());
}
