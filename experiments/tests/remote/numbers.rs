//! Two workers give the numbers of one machine, and few bytes go between them.

use std::path::Path;

use crate::halves::make_task;
use crate::program::{TOKEN, Worker, succeeds};
use crate::trained::{differences, short};

/// Kilobytes per step, to the workers and from them, as a training printed them.
fn per_step(printed: &str) -> f64 {
    let line = printed
        .lines()
        .find(|line| line.contains("kB to the workers"))
        .expect(printed);
    let numbers = line.split(' ').filter_map(|word| word.parse::<f64>().ok());
    numbers.sum()
}

/// All files below `folder`.
fn files(folder: &Path, found: &mut Vec<Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(std::fs::read(path).unwrap()),
        }
    }
}

#[test]
fn images_on_two_workers_give_the_numbers_of_one_machine() {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path(), "halves", 8);
    let data = dir.path().to_str().unwrap();
    let run = |name: &str, devices: &str| {
        let out = dir.path().join(name);
        let more = [
            "--epochs",
            "2",
            "--mixup",
            "0.4",
            "--max-grad-norm",
            "0.5",
            "--devices",
            devices,
        ];
        let printed = succeeds(&[&short(data, out.to_str().unwrap())[..], &more].concat());
        (out.join("halves/wegeft"), printed)
    };
    let (one, two) = (Worker::start(), Worker::start());
    let (local, _) = run("local", "flex,flex");
    for (name, devices) in [
        ("away", format!("{},{}", one.device(), two.device())),
        ("both", format!("flex,{}", one.device())),
        ("back", format!("{},flex", two.device())),
    ] {
        let (trained, printed) = run(name, &devices);
        let (weights, losses) = differences(&local, &trained);
        assert!(weights < 1e-4 && losses < 1e-6, "{name}: {weights} {losses}");
        assert!(per_step(&printed) > 0.0);
        let mut all = vec![printed.into_bytes()];
        files(&dir.path().join(name), &mut all);
        let shows = |file: &Vec<u8>| file.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes());
        assert!(
            all.len() > 5 && !all.iter().any(shows),
            "{name}: the token is in a file"
        );
    }
}

#[test]
fn texts_on_two_workers_give_the_numbers_of_one_machine_and_the_model_moves_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("sums.jsonl");
    let line = |i: usize| format!("{{\"prompt\": \"Add {i} and 2.\", \"completion\": \" {}\"}}\n", i + 2);
    std::fs::write(&data, (0..14).map(line).collect::<String>()).unwrap();
    let run = |name: &str, devices: &str| {
        let out = dir.path().join(name);
        let args = [
            "finetune",
            "--train-file",
            data.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
            "--method",
            "wegeft",
            "--epochs",
            "2",
            "--batch-size",
            "4",
            "--r",
            "4",
            "--log-steps",
            "1",
            "--devices",
            devices,
        ];
        let printed = succeeds(&args);
        (out.join("wegeft"), printed)
    };
    let (one, two) = (Worker::start(), Worker::start());
    let (local, _) = run("local", "flex,flex");
    let (trained, printed) = run("away", &format!("{},{}", one.device(), two.device()));
    let (weights, losses) = differences(&local, &trained);
    // Losses of about 8: 1e-6 of them.
    assert!(weights < 1e-4 && losses < 8e-6, "{weights} {losses}");
    let model = experiments::cli::shipped::language_model().unwrap();
    // The file has 16 bits for each of its weights, the devices 32.
    let frozen = 2.0 * std::fs::metadata(model.join("model.safetensors")).unwrap().len() as f64 / 1e3;
    let moved = per_step(&printed);
    assert!(moved < frozen / 2.0, "{moved} kB per step, the model has {frozen} kB");
}

#[test]
fn trainings_are_spread_over_workers_in_processes_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    make_task(dir.path(), "halves", 4);
    let (data, out) = (dir.path().to_str().unwrap(), dir.path().join("run"));
    let token = crate::program::token_file(dir.path(), TOKEN);
    let (one, two) = (Worker::start(), Worker::start());
    let devices = format!("{},{}", one.device(), two.device());
    let more = [
        "--method",
        "lora,wegeft",
        "--epochs",
        "1",
        "--device",
        &devices,
        "--token-file",
    ];
    let mut args = short(data, out.to_str().unwrap());
    args.drain(1..3); // the method
    let args = [&args[..], &more, &[token.to_str().unwrap()]].concat();
    let output = crate::program::wegeft(&args).output().unwrap();
    let printed = crate::program::text(&output.stderr);
    assert!(output.status.success(), "{printed}");
    for method in ["lora", "wegeft"] {
        assert!(
            out.join("halves")
                .join(method)
                .join("adapter/adapter_config.json")
                .is_file(),
            "{method}"
        );
    }
}
