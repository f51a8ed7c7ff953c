//! Tests across the crates: see the files under `tests/`.
