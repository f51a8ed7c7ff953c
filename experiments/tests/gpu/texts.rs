//! Language models on a GPU.

use std::path::Path;

use crate::program::{GPU, no_gpu, succeeds};
use crate::trained::differences;

/// Lines of sums to train on.
fn sums(data: &Path, count: usize) {
    let line = |i: usize| format!("{{\"prompt\": \"Add {i} and 2.\", \"completion\": \" {}\"}}\n", i + 2);
    std::fs::write(data, (0..count).map(line).collect::<String>()).unwrap();
}

#[test]
fn texts_train_as_on_flex_and_answers_are_the_same() {
    if no_gpu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("sums.jsonl");
    sums(&data, 14);
    let run = |name: &str, more: &[&str]| {
        let out = dir.path().join(name);
        let fixed = ["finetune", "--method", "wegeft", "--epochs", "2", "--batch-size", "4"];
        let files = ["--train-file", data.to_str().unwrap(), "--out", out.to_str().unwrap()];
        succeeds(&[&fixed[..], &["--r", "4", "--log-steps", "1"], &files, more].concat());
        out.join("wegeft")
    };
    let (flex, one) = (run("flex", &[]), run("one", &["--device", GPU]));
    // Losses fall from about 10 to 8; the factors start with other random numbers there.
    let (_, losses) = differences(&flex, &one);
    assert!(losses < 1.0, "{losses}");
    let (weights, losses) = differences(&one, &run("two", &["--devices", &format!("{GPU},{GPU}")]));
    assert!(weights < 1e-3 && losses < 1e-3, "{weights} {losses}");

    let adapter = flex.join("adapter");
    let answer = |more: &[&str]| {
        let fixed = ["generate", "--prompt", "Add 3 and 2.", "--max-new-tokens", "12"];
        succeeds(&[&fixed[..], more].concat())
    };
    for more in [&[][..], &["--adapter", adapter.to_str().unwrap()]] {
        let on = |device: &str| answer(&[more, &["--device", device]].concat());
        assert_eq!(on("flex"), on(GPU));
    }
}
