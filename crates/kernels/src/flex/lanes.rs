//! Sums and maxima over slices in several lanes, so that the compiler may use vector registers: it must not reorder
//! a plain float sum. The order is fixed, whatever the instruction set. The lanes are only ever indexed by constants:
//! once a loop of variable length has touched them, they live in memory and not in registers.

const LANES: usize = 16;

/// Sum of all lanes, and of those that a last, partly filled block leaves.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], last: [f32; LANES]) -> f32 {
    for i in 0..LANES {
        lanes[i] += last[i];
    }
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// `Σ f(x)`
#[inline(always)]
pub fn sum_of(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for block in blocks {
        for i in 0..LANES {
            lanes[i] += f(block[i]);
        }
    }
    let mut last = [0.0; LANES];
    for (last, x) in last.iter_mut().zip(rest) {
        *last = f(*x);
    }
    fold(lanes, last)
}

/// `Σ f(a, b)`
#[inline(always)]
pub fn sum_of2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    assert_eq!(a.len(), b.len());
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for i in 0..LANES {
            lanes[i] += f(a[i], b[i]);
        }
    }
    let mut last = [0.0; LANES];
    for ((last, a), b) in last.iter_mut().zip(a_rest).zip(b_rest) {
        *last = f(*a, *b);
    }
    fold(lanes, last)
}

/// The greatest value, -∞ of nothing; what is no number may be passed over.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if a > b { a } else { b };
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for block in blocks {
        for i in 0..LANES {
            lanes[i] = greater(block[i], lanes[i]);
        }
    }
    let last = rest.iter().copied().fold(f32::NEG_INFINITY, greater);
    lanes.into_iter().fold(last, greater)
}

/// Replaces each value by `f` of it and gives the sum of the new ones.
#[inline(always)]
pub fn replace_and_sum(x: &mut [f32], f: impl Fn(f32) -> f32) -> f32 {
    let (blocks, rest) = x.as_chunks_mut::<LANES>();
    let mut lanes = [0.0; LANES];
    for block in blocks {
        for i in 0..LANES {
            block[i] = f(block[i]);
            lanes[i] += block[i];
        }
    }
    let mut last = [0.0; LANES];
    for (last, x) in last.iter_mut().zip(rest) {
        *x = f(*x);
        *last = *x;
    }
    fold(lanes, last)
}
