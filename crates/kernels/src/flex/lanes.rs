//! Sums and maxima over slices in several lanes, so that the compiler may use vector registers: it must not reorder a plain
//! float sum. The order is fixed, whatever the instruction set. Lanes are only indexed by constants: after a loop of
//! variable length they would live in memory instead of registers.

use pulp::{Simd, WithSimd};

const LANES: usize = 16;

/// Sum of all lanes and of the last, partly filled block.
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

/// The maximum, -∞ of an empty slice; NaN may be skipped.
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

/// Replaces each element `x` by `f(x)` and returns the sum of the results.
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

/// Lines added in one pass over the sums.
pub const UNROLL: usize = 4;

/// Adds each of `lines` times its factor to `sums`, which has the same length.
#[inline(always)]
pub fn add_lines(sums: &mut [f32], [a, b, c, d]: [&[f32]; UNROLL], factors: &[f32]) {
    for ((((sum, a), b), c), d) in sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *sum += (factors[0] * a + factors[1] * b) + (factors[2] * c + factors[3] * d);
    }
}

/// `Σ a·b`, the whole time of a product of one row. With explicit vectors, because the compiler does not always vectorize
/// the lanes. The order depends on the vector width.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    pulp::Arch::new().dispatch(Dot { a, b })
}

struct Dot<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

impl WithSimd for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let (a, a_rest) = S::as_simd_f32s(self.a);
        let (b, b_rest) = S::as_simd_f32s(self.b);
        let (a_fours, a_last) = a.as_chunks::<4>();
        let (b_fours, b_last) = b.as_chunks::<4>();
        let mut sums = [simd.splat_f32s(0.0); 4];
        for (a, b) in a_fours.iter().zip(b_fours) {
            for i in 0..4 {
                sums[i] = simd.mul_add_e_f32s(a[i], b[i], sums[i]);
            }
        }
        for (a, b) in a_last.iter().zip(b_last) {
            sums[0] = simd.mul_add_e_f32s(*a, *b, sums[0]);
        }
        let pairs = [simd.add_f32s(sums[0], sums[1]), simd.add_f32s(sums[2], sums[3])];
        let sum = simd.reduce_sum_f32s(simd.add_f32s(pairs[0], pairs[1]));
        a_rest.iter().zip(b_rest).fold(sum, |sum, (a, b)| sum + a * b)
    }
}
