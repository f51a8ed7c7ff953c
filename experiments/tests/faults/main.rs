//! Faults: disks that fail, kills at any instant, power losses, strangers' files. The short form runs with all tests; the
//! long one is `cargo test --workspace -- --ignored faults` (`docs/reliability.md` has the figures of its last run).
#![cfg(unix)]

mod greedy;
mod kills;
mod soak;
mod strangers;
mod supply;
mod surroundings;
mod work;
#[allow(dead_code)]
#[path = "../../../datasets/tests/datasets/writer.rs"]
mod writer;
#[cfg(debug_assertions)]
mod writing;
