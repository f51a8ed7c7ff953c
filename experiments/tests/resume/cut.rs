//! A cut run goes on where it was cut, with the numbers of a run that was not.
#![cfg(unix)]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn command(out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vtab"));
    command.args([
        "--task",
        "digits",
        "--method",
        "wegeft",
        "--epochs",
        "4",
        "--batch-size",
        "200",
    ]);
    command.args(["--drop-path", "0.2", "--out"]).arg(out);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "{} never came",
            path.display()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn interrupt(id: u32) {
    let status = Command::new("kill").args(["-INT", &id.to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_run_that_was_cut_ends_as_one_that_was_not() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    assert!(command(&whole).output().unwrap().status.success());

    let child = command(&cut)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&cut.join("digits/wegeft/checkpoints/scheduler-2.bpk"));
    interrupt(child.id());
    let stopped = child.wait_with_output().unwrap();
    assert!(!stopped.status.success(), "the run ended before it was cut");
    assert!(stderr(&stopped).contains("goes on from there"), "{}", stderr(&stopped));
    assert!(!cut.join("summary.json").exists());

    // What a kill inside an epoch leaves: a checkpoint that is not complete, a line of a later epoch.
    let run = cut.join("digits/wegeft");
    std::fs::write(run.join("checkpoints/model-9.bpk"), "torn").unwrap();
    let resumed = Command::new(env!("CARGO_BIN_EXE_vtab"))
        .args(["--resume", "--out"])
        .arg(&cut)
        .output()
        .unwrap();
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    let read = |out: &Path, file: &str| std::fs::read(out.join("digits/wegeft").join(file)).unwrap();
    for file in ["adapter/adapter_model.safetensors", "metrics.jsonl", "samples.json"] {
        assert_eq!(read(&whole, file), read(&cut, file), "{file}");
    }
    assert!(whole.join("report.html").is_file() && cut.join("report.html").is_file());
}

#[test]
fn the_second_ctrl_c_ends_the_program_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = command(dir.path())
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&dir.path().join("digits/wegeft/checkpoints"));
    interrupt(child.id());
    std::thread::sleep(Duration::from_millis(5));
    interrupt(child.id());
    let status = child.wait().unwrap();
    // Either the second signal came in time (130) or the first had already ended the step.
    assert!(matches!(status.code(), Some(130 | 1)), "{status:?}");
}
