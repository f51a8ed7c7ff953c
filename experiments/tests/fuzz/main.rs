//! Every reader of models, adapters and run folders against mutated files, as `datasets/tests/fuzz` has it for data.
//!
//! `FUZZ_CASES=100000 cargo test -p experiments --release --test fuzz -- --ignored --nocapture` is the long run, `FUZZ_READER=lm`
//! chooses readers by a part of their names.

mod adapters;
#[path = "../../../datasets/tests/fuzz/harness.rs"]
mod harness;
mod models;
#[path = "../../../datasets/tests/fuzz/mutate.rs"]
mod mutate;
mod pickles;
mod reports;
mod runs;
mod texts;

use std::path::{Path, PathBuf};

use peak_alloc::PeakAlloc;

use harness::{Limit, many, run_all};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Twice what the valid files take, and some buffers.
const LIMIT: Limit = Limit {
    always: 8.0,
    of_valid: 2.0,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn bytes_of(name: &str) -> Vec<u8> {
    let path = fixture(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn written(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Copies the file `from` unless `name` is there.
fn beside(folder: &Path, name: &str, from: &str) {
    if !folder.join(name).exists() {
        written(folder, name, &bytes_of(from));
    }
}

fn run(cases: u32) {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/regressions");
    for readers in [
        models::READERS,
        pickles::READERS,
        texts::READERS,
        adapters::READERS,
        runs::READERS,
        reports::READERS,
    ] {
        run_all(readers, LIMIT, &kept, cases);
    }
}

/// One test for all readers: they count the allocations of the whole process.
#[test]
fn mutated_files_are_read_or_refused() {
    run(40);
}

#[test]
#[ignore = "as many files a reader as FUZZ_CASES says"]
fn faults_many_mutated_files_are_read_or_refused() {
    run(many());
}
