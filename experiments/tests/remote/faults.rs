//! What can go wrong with a worker: one sentence, and what was finished is kept.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::halves::make_task;
use crate::program::{TOKEN, Worker, is_one_sentence, succeeds, token_file, wegeft};
use crate::trained::{differences, short};

#[test]
fn a_worker_that_lets_nobody_in_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path(), "halves", 4);
    let (data, out) = (dir.path().to_str().unwrap(), dir.path().join("run"));
    let worker = Worker::start();
    let fails = |devices: &str, token: Option<&str>, parts: &[&str]| {
        let args = [
            &short(data, out.to_str().unwrap())[..],
            &["--epochs", "1", "--devices", devices],
        ]
        .concat();
        let mut command = wegeft(&args);
        if let Some(token) = token {
            command.env("WEGEFT_TOKEN", token);
        }
        is_one_sentence(&command.output().unwrap(), parts);
    };
    let (device, address) = (worker.device(), worker.address());
    fails(
        &device,
        Some("another token, as long"),
        &[&address, "refuses the token of WEGEFT_TOKEN"],
    );
    fails(&device, None, &["--token-file", "WEGEFT_TOKEN"]);
    fails(&device, Some("short"), &["WEGEFT_TOKEN", "16 characters"]);
    fails(
        &format!("{address}#3"),
        Some(TOKEN),
        &[&address, "lends one device", "not 3"],
    );
    fails(
        &format!("flex,{address}#x"),
        Some(TOKEN),
        &["'x' is not a device number"],
    );
    let silent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    fails(
        &format!("ws://{silent}#0"),
        Some(TOKEN),
        &[&format!("ws://{silent}"), "wegeft worker"],
    );
    // Something else listens there.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = other.local_addr().unwrap();
    std::thread::spawn(move || other.incoming().for_each(drop));
    fails(
        &format!("ws://{place}#0"),
        Some(TOKEN),
        &[&format!("ws://{place}"), "wegeft worker"],
    );
    let args = [
        &short(data, out.to_str().unwrap())[..],
        &["--devices", &device, "--token-file"],
    ]
    .concat();
    let nothing = dir.path().join("nothing");
    let output = wegeft(&[&args[..], &[nothing.to_str().unwrap()]].concat())
        .output()
        .unwrap();
    is_one_sentence(&output, &["nothing"]);
}

#[test]
fn a_worker_that_cannot_start_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let token = token_file(dir.path(), TOKEN);
    let fails = |more: &[&str], parts: &[&str]| {
        let args = [&["worker", "--token-file", token.to_str().unwrap()], more].concat();
        is_one_sentence(&wegeft(&args).output().unwrap(), parts);
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    fails(&["--port", &port], &[&port, "--port"]);
    fails(&["--port", "0", "--device", "tpu"], &["--device tpu"]);
    fails(
        &["--port", "0", "--device", "flex,ndarray"],
        &["flex,ndarray", "backend"],
    );
    let worker = Worker::start();
    let device = worker.device();
    let args = ["worker", "--port", "0", "--device", &device];
    let output = wegeft(&args).env("WEGEFT_TOKEN", TOKEN).output().unwrap();
    is_one_sentence(&output, &["its own machine"]);
    is_one_sentence(&wegeft(&["worker", "--port", "0"]).output().unwrap(), &["--token-file"]);
}

#[test]
fn a_worker_that_is_killed_ends_the_run_and_the_same_command_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path(), "halves", 8);
    let data = dir.path().to_str().unwrap();
    let out = |name: &str| dir.path().join(name);
    let (first, cut) = (out("first"), out("cut"));
    let (one, mut two) = (Worker::start(), Worker::start());
    let devices = format!("{},{}", one.device(), two.device());
    let more = ["--epochs", "8", "--devices", &devices];
    succeeds(&[&short(data, first.to_str().unwrap())[..], &more].concat());

    let args = [&short(data, cut.to_str().unwrap())[..], &more].concat();
    let mut command = wegeft(&args);
    command
        .env("WEGEFT_TOKEN", TOKEN)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let (begun, checkpoints) = (Instant::now(), cut.join("halves/wegeft/checkpoints"));
    let saved = || {
        let files = std::fs::read_dir(&checkpoints).into_iter().flatten();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".bpk")).count()
    };
    // Model, optimizer and schedule of an epoch.
    while saved() < 3 {
        assert!(begun.elapsed() < Duration::from_secs(120), "no checkpoint");
        std::thread::sleep(Duration::from_millis(2));
    }
    two.kill();
    let output = child.wait_with_output().unwrap();
    let address = two.address();
    is_one_sentence(
        &output,
        &[
            &format!("the worker at {address}"),
            "the same command goes on from there",
        ],
    );
    assert!(saved() >= 3 && !cut.join("halves/wegeft/adapter").exists());

    // The worker is started again, where it was.
    let again = Worker::start_on(two.port, &[]);
    assert_eq!(again.address(), address);
    let printed = succeeds(&args);
    let (weights, losses) = differences(&first.join("halves/wegeft"), &cut.join("halves/wegeft"));
    assert_eq!((weights, losses), (0.0, 0.0), "{printed}");
}
