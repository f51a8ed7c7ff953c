//! Tests across the crates: see the files under `tests/`.

/// The code of the guide's page on the library is compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/library.md")]
struct Library;
