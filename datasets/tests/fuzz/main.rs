//! Every reader against mutated files: none may panic, take long, or take memory that the file does not justify.
//!
//! `cargo test -p datasets --test fuzz` runs some hundred mutations for each reader and replays `regressions/`;
//! `FUZZ_CASES=100000 cargo test -p datasets --release --test fuzz -- --ignored --nocapture` runs that many and prints what
//! each reader did. A file that made a reader fail is put into `regressions/READER/` and stays there.

mod harness;
mod mutate;
mod readers;
mod seeds;
mod tables;

use std::path::Path;

use peak_alloc::PeakAlloc;

use harness::{Limit, many, run_all};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// A reader's buffers, and the greatest image that `readers` lets through.
const LIMIT: Limit = Limit {
    always: 96.0,
    of_valid: 0.0,
};

fn run(cases: u32) {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/regressions");
    for readers in [readers::READERS, tables::READERS] {
        run_all(readers, LIMIT, &kept, cases);
    }
}

/// One test for all readers: they count the allocations of the whole process.
#[test]
fn mutated_files_are_read_or_refused() {
    run(150);
}

#[test]
#[ignore = "as many files a reader as FUZZ_CASES says"]
fn faults_many_mutated_files_are_read_or_refused() {
    run(many());
}
