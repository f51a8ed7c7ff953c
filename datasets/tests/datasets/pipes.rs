//! Pipes and devices in place of text files.
#![cfg(unix)]

use std::os::unix::fs::symlink;
use std::process::Command;

use datasets::language::records;
use datasets::text_file;
use datasets::texts::{self, TextFields};

use crate::says;

/// A pipe would keep the reader waiting.
#[test]
fn pipes_are_no_texts() {
    let dir = tempfile::tempdir().unwrap();
    let fields = TextFields::parse("text", Some("label")).unwrap();
    for name in [
        "t.csv",
        "t.tsv",
        "t.json",
        "t.jsonl",
        "t.jsonl.gz",
        "t.parquet",
        "t.txt",
    ] {
        let path = dir.path().join(name);
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let parts = [name, "a pipe or a device"];
        if !name.ends_with("txt") && !name.ends_with("gz") {
            says(texts::read(&path, &fields), &parts);
        }
        says(records::read(&path).map(drop), &parts);
        says(text_file::read(&path), &parts[1..]);
    }
    let link = dir.path().join("link.csv");
    symlink("/dev/zero", &link).unwrap();
    says(texts::read(&link, &fields), &["link.csv", "a pipe or a device"]);
}
