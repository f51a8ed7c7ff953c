//! Adapters that exist, scales of flags, memory: what a run of language models records and refuses.

use std::path::Path;

use serde_json::Value;

use crate::{fails, json, succeeds, text, wegeft};

/// A training file of 8 examples.
fn examples(folder: &Path) -> String {
    let path = folder.join("examples.jsonl");
    let line = |i: usize| format!("{{\"prompt\": \"Add {i} and 1.\", \"completion\": \"{}\"}}\n", i + 1);
    std::fs::write(&path, (0..8).map(line).collect::<String>()).unwrap();
    path.to_str().unwrap().to_string()
}

fn finetune<'a>(file: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let fixed = [
        "finetune",
        "--train-file",
        file,
        "--epochs",
        "1",
        "--batch-size",
        "8",
        "--out",
        out,
    ];
    [&fixed[..], more].concat()
}

#[test]
fn an_adapter_that_is_trained_further_is_no_other_method() {
    let dir = tempfile::tempdir().unwrap();
    let file = examples(dir.path());
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    succeeds(&finetune(
        &file,
        first.to_str().unwrap(),
        &["--method", "vera", "--set", "vera.r=4"],
    ));
    let adapter = first.join("vera/adapter");
    let more = [
        "--adapter",
        adapter.to_str().unwrap(),
        "--method",
        "lora,wegeft",
        "--r",
        "3",
    ];
    let output = wegeft(&finetune(&file, second.to_str().unwrap(), &more));
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    for flag in ["--method has no effect", "--r has no effect"] {
        assert!(said.contains(flag), "{said}");
    }
    let summary = json(&second.join("summary.json"));
    let methods: Vec<&Value> = summary.as_array().unwrap().iter().map(|row| &row["method"]).collect();
    assert_eq!(methods, ["continued"]);
    let config = json(&second.join("continued/adapter/adapter_config.json"));
    assert_eq!(config["peft_type"], "VERA");
}

#[test]
fn a_given_alpha_replaces_the_programs_own_of_lora() {
    let dir = tempfile::tempdir().unwrap();
    let file = examples(dir.path());
    let alpha = |name: &str, more: &[&str]| {
        let out = dir.path().join(name);
        let method = [&["--method", "lora"], more].concat();
        succeeds(&finetune(&file, out.to_str().unwrap(), &method));
        json(&out.join("lora/adapter/adapter_config.json"))["lora_alpha"].clone()
    };
    assert_eq!(alpha("default", &[]), 32.0);
    assert_eq!(alpha("alpha", &["--alpha", "64"]), 64.0);
    assert_eq!(alpha("both", &["--alpha", "64", "--lora-alpha", "8"]), 8.0);
    let config = std::fs::read_to_string(dir.path().join("alpha/config.toml")).unwrap();
    assert!(config.contains("lora_alpha = 64.0"), "{config}");
}

#[test]
fn memory_is_checked_before_the_first_training_and_by_a_dry_run() {
    let dir = tempfile::tempdir().unwrap();
    let file = examples(dir.path());
    let out = dir.path().join("run");
    let more = ["--method", "ia3,full", "--memory-limit", "22"];
    fails(
        &finetune(&file, out.to_str().unwrap(), &more),
        &["full", "more than the 22 MB"],
    );
    assert!(!out.join("ia3/adapter").exists());
    let dry = [&more[..], &["--dry-run"]].concat();
    fails(
        &finetune(&file, out.to_str().unwrap(), &dry),
        &["full", "more than the 22 MB"],
    );
}
