//! What is shipped: files are those that were made, and unsafe code is where the list says.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::work::{files_below, root};

/// Files that somebody made: weights, samples, fixtures. Not the scripts that made them, nor texts about them.
fn made() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let places = [
        "datasets/backbone",
        "datasets/language-model",
        "datasets/sample",
        "datasets/src/language/ifeval/punkt-english.txt.gz",
        "datasets/tests/fixtures",
        "crates/backbones/tests/fixtures",
        "experiments/tests/fixtures",
        "tests/fixtures",
    ];
    let others = ["md", "py", "rs", "toml"];
    for path in files_below(places.map(|place| root().join(place))) {
        let ending = path.extension().and_then(|ending| ending.to_str());
        if !ending.is_some_and(|ending| others.contains(&ending)) {
            let digest = Sha256::digest(std::fs::read(&path).unwrap());
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_string();
            found.insert(name, digest.iter().map(|byte| format!("{byte:02x}")).collect());
        }
    }
    found
}

/// `UPDATE_CHECKSUMS=1 cargo test -p experiments --test faults checksums` writes the list anew, in the form of `sha256sum`.
#[test]
fn weights_and_fixtures_have_their_checksums() {
    let list = root().join("checksums.txt");
    let found = made();
    if std::env::var_os("UPDATE_CHECKSUMS").is_some() {
        let lines: String = found.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
        std::fs::write(&list, lines).unwrap();
    }
    let text = std::fs::read_to_string(&list).unwrap();
    let listed: BTreeMap<String, String> = text
        .lines()
        .map(|line| line.split_once("  ").unwrap())
        .map(|(sum, name)| (name.to_string(), sum.to_string()))
        .collect();
    for (name, sum) in &listed {
        assert_eq!(found.get(name), Some(sum), "{name} is not the file that was listed");
    }
    let new: Vec<&String> = found.keys().filter(|name| !listed.contains_key(*name)).collect();
    assert!(
        new.is_empty(),
        "not in checksums.txt: {new:?}; UPDATE_CHECKSUMS=1 lists them"
    );
}

#[test]
fn unsafe_code_is_where_the_list_says_each_with_its_proof() {
    let folder = root().join("crates/kernels/src");
    let document = std::fs::read_to_string(root().join("docs/reliability.md")).unwrap();
    let mut counts = BTreeMap::new();
    for path in files_below([folder.clone()]) {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(&folder).unwrap().to_str().unwrap().to_string();
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap();
            if !code.contains("unsafe {") && !code.contains("unsafe fn") {
                continue;
            }
            let before = &lines[number.saturating_sub(6)..number];
            let proved = before
                .iter()
                .any(|line| line.contains("SAFETY:") || line.contains("# Safety"));
            assert!(proved, "{name}:{}: no SAFETY note", number + 1);
            *counts.entry(name.clone()).or_insert(0) += 1;
        }
    }
    for (name, count) in &counts {
        let listed = document.matches(&format!("| `{name}`, ")).count();
        assert_eq!(listed, *count, "{name} in docs/reliability.md");
    }
    assert_eq!(document.matches("| `flex/").count(), counts.values().sum::<usize>());
}

/// The workspace forbids it; one call of Burn's is excepted.
#[test]
fn no_other_crate_has_unsafe_code_but_for_one_call() {
    let mut found = Vec::new();
    let folders = [
        "crates/wegeft/src",
        "crates/backbones/src",
        "crates/files/src",
        "crates/capture/src",
        "datasets/src",
        "experiments/src",
    ];
    for path in files_below(folders.map(|folder| root().join(folder))) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap();
            if !["unsafe {", "unsafe fn", "unsafe impl"]
                .iter()
                .any(|word| code.contains(word))
            {
                continue;
            }
            let mut proof = lines[..number].iter().rev().take_while(|line| line.starts_with("//"));
            let place = path.strip_prefix(root()).unwrap().display().to_string();
            assert!(
                proof.any(|line| line.contains("SAFETY:")),
                "{place}:{}: no SAFETY note",
                number + 1
            );
            found.push(place);
        }
    }
    assert_eq!(found, ["crates/capture/src/lib.rs"]);
    let document = std::fs::read_to_string(root().join("docs/reliability.md")).unwrap();
    assert!(document.contains("`crates/capture`"));
}

#[test]
#[ignore = "long: the unsafe code under sanitizers, which needs a nightly toolchain"]
fn faults_unsafe_code_under_sanitizers() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("bash");
    command
        .arg(root().join(".ci/sanitize.sh"))
        .env("CARGO_TARGET_DIR", folder.path())
        .env_remove("RUSTUP_TOOLCHAIN");
    assert!(command.status().unwrap().success());
}
