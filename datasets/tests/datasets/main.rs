//! Readers against files of the reference writers (fixtures/) and of our own.

mod bombs;
mod fgvc;
mod folders;
mod forged;
mod glue;
mod ifeval;
mod images;
mod parquet;
mod pipes;
mod prepare;
mod records;
mod tables;
mod writer;

use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The message of an error, which must name each of `parts`.
fn says<T: std::fmt::Debug, E: std::fmt::Display>(result: Result<T, E>, parts: &[&str]) {
    let message = result.err().map(|error| error.to_string());
    let message = message.unwrap_or_else(|| panic!("expected an error with {parts:?}"));
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}
