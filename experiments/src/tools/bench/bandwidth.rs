//! Memory bandwidth: a lower bound for the time per token, in which every weight is read once.

use rayon::prelude::*;

use super::clock::Times;

/// Bytes to read: more than fit into any cache.
const BYTES: usize = 1 << 29;
/// Bytes of one comparison.
const PART: usize = 1 << 20;

/// Bytes per second that all cores read together, in the fastest of several passes. They are read by comparing equal
/// halves with the system's own routine, which is as fast in a debug build.
pub fn bytes_per_second() -> f64 {
    let bytes = vec![1u8; BYTES];
    let (first, second) = bytes.split_at(BYTES / 2);
    let pass = || {
        let equal = first.par_chunks(PART).zip(second.par_chunks(PART)).all(|(a, b)| a == b);
        assert!(std::hint::black_box(equal), "both halves hold ones");
    };
    BYTES as f64 / Times::of(pass, 2, 1.0).min
}
