//! How fast the machine reads memory: the floor under a token's time, which reads every weight once.

use rayon::prelude::*;

use super::clock::Times;

/// Values read: more than any cache holds.
const VALUES: usize = 1 << 27;
/// Values of one task.
const PART: usize = 1 << 18;

/// Bytes a second that all cores together read, by the fastest of several passes.
pub fn bytes_per_second() -> f64 {
    let values = vec![1.0f32; VALUES];
    let pass = || {
        let sum: f32 = values.par_chunks(PART).map(sum).sum();
        std::hint::black_box(sum);
    };
    (4 * VALUES) as f64 / Times::of(pass, 1.0).min
}

/// In lanes, as a vector register has them.
fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0; 64];
    for block in values.as_chunks::<64>().0 {
        for (lane, value) in lanes.iter_mut().zip(block) {
            *lane += value;
        }
    }
    lanes.iter().sum()
}
