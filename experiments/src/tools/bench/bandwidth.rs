//! How fast the machine reads memory: the floor under a token's time, which reads every weight once.

use rayon::prelude::*;

use super::clock::Times;

/// Bytes read: more than any cache holds.
const BYTES: usize = 1 << 29;
/// Bytes of one comparison.
const PART: usize = 1 << 20;

/// Bytes a second that all cores together read, by the fastest of several passes. What reads is the comparison of
/// equal halves, which is the system's own and so as fast in a build for development.
pub fn bytes_per_second() -> f64 {
    let bytes = vec![1u8; BYTES];
    let (first, second) = bytes.split_at(BYTES / 2);
    let pass = || {
        let equal = first.par_chunks(PART).zip(second.par_chunks(PART)).all(|(a, b)| a == b);
        assert!(std::hint::black_box(equal), "both halves hold ones");
    };
    BYTES as f64 / Times::of(pass, 2, 1.0).min
}
