//! Faults: disks that fail, kills at any instant, power losses, strangers' files. The short form runs with all tests; the
//! long one is `cargo test --workspace -- --ignored faults` (`docs/reliability.md` has the figures of its last run).
#![cfg(unix)]

#[cfg(debug_assertions)]
mod chosen;
mod greedy;
mod kills;
mod needs;
mod soak;
mod strangers;
mod supply;
mod surroundings;
mod table;
mod work;
#[allow(dead_code)]
#[path = "../../../datasets/tests/datasets/writer.rs"]
mod writer;
#[cfg(debug_assertions)]
mod writing;
