//! A cut run goes on where it was cut, with the numbers of a run that was not.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{command, resumed, stderr, wait_for};

/// Where the runs of `command` lie in the run folder.
const RUN: &str = "digits/wegeft";

fn interrupt(id: u32) {
    let status = Command::new("kill").args(["-INT", &id.to_string()]).status().unwrap();
    assert!(status.success());
}

fn same_numbers(whole: &Path, cut: &Path) {
    let read = |out: &Path, file: &str| std::fs::read(out.join(RUN).join(file)).unwrap();
    for file in ["adapter/adapter_model.safetensors", "metrics.jsonl", "samples.json"] {
        assert_eq!(read(whole, file), read(cut, file), "{file}");
    }
    assert!(cut.join("report.html").is_file());
}

#[test]
fn a_run_that_was_cut_ends_as_one_that_was_not() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    assert!(command(&whole, "4").output().unwrap().status.success());

    let child = command(&cut, "4")
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&cut.join(RUN).join("checkpoints/scheduler-2.bpk"));
    interrupt(child.id());
    let stopped = child.wait_with_output().unwrap();
    assert!(!stopped.status.success(), "the run ended before it was cut");
    assert!(
        stderr(&stopped).contains("continues from there"),
        "{}",
        stderr(&stopped)
    );
    assert!(!cut.join("summary.json").exists());

    // What a kill inside an epoch leaves: a checkpoint that is not complete, a line of a later epoch. And the last
    // whole checkpoint has been damaged since: the one before it is as good.
    let checkpoints = cut.join(RUN).join("checkpoints");
    std::fs::write(checkpoints.join("model-9.bpk"), "torn").unwrap();
    let optim = |epoch: usize| checkpoints.join(format!("optim-{epoch}.bpk"));
    let last = (2..4).rev().find(|epoch| optim(*epoch).exists()).unwrap();
    std::fs::write(optim(last), "torn").unwrap();
    let done = resumed(&cut);
    assert!(done.status.success(), "{}", stderr(&done));
    same_numbers(&whole, &cut);

    // Trained, but cut before it was tested.
    for file in [
        "summary.json",
        "digits/wegeft/outcome.json",
        "digits/wegeft/adapter/adapter_model.safetensors",
    ] {
        std::fs::remove_file(cut.join(file)).unwrap();
    }
    let done = resumed(&cut);
    assert!(done.status.success(), "{}", stderr(&done));
    same_numbers(&whole, &cut);
}

#[test]
fn a_checkpoint_that_cannot_be_written_ends_the_run_with_the_last_one_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    assert!(command(&whole, "3").output().unwrap().status.success());
    let full = cut.join(RUN).join("checkpoints/optim-2.bpk");
    // A folder stands in its place: no file can.
    std::fs::create_dir_all(full.join("in the way")).unwrap();
    let failed = command(&cut, "3").output().unwrap();
    let message = stderr(&failed);
    assert_eq!(failed.status.code(), Some(1), "{message}");
    for part in ["task digits, method wegeft: cannot write", "optim-2.bpk"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    assert!(!message.contains("Unknown error"), "{message}");
    std::fs::remove_dir_all(&full).unwrap();
    let done = resumed(&cut);
    assert!(done.status.success(), "{}", stderr(&done));
    same_numbers(&whole, &cut);
}

#[test]
fn damaged_checkpoints_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = dir.path().join(RUN).join("checkpoints");
    std::fs::create_dir_all(&checkpoints).unwrap();
    for record in ["model", "optim", "scheduler"] {
        std::fs::write(checkpoints.join(format!("{record}-1.bpk")), "torn").unwrap();
    }
    let failed = command(dir.path(), "2").output().unwrap();
    let message = stderr(&failed);
    assert_eq!(failed.status.code(), Some(1), "{message}");
    assert!(
        message.contains("-1.bpk is damaged") && message.contains("start anew"),
        "{message}"
    );
}

#[test]
fn the_second_ctrl_c_ends_the_program_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = command(dir.path(), "4")
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&dir.path().join(RUN).join("checkpoints"));
    interrupt(child.id());
    std::thread::sleep(Duration::from_millis(5));
    interrupt(child.id());
    let status = child.wait().unwrap();
    // Either the second signal came in time (130) or the first had already ended the step.
    assert!(matches!(status.code(), Some(130 | 1)), "{status:?}");
}
