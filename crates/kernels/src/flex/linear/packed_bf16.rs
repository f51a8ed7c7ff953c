//! Skinny products with bf16 weights, read as packed pairs: a bf16 is the upper half of an f32, so a 32-bit word shifted
//! left by 16 is its first element, and the word with its lower half cleared the second. Elements are never stored as f32,
//! and memory is prefetched: both chosen by measurement (see the README).

use crate::flex::lanes::UNROLL;
use crate::flex::prefetch::prefetch;
use burn::tensor::bf16;
use pulp::{Simd, WithSimd, bytemuck};

/// Prefetch distance of [`dot`] in bytes: the next lines.
const DOT_PREFETCH: usize = 4096;
/// Prefetch distance of [`add_lines`] in bytes within each line, for lines of at least [`LONG`] pairs. With shorter lines
/// the lines after these are prefetched: each line is a stream of its own, and the hardware prefetcher stops at its end.
const LINES_PREFETCH: usize = 1024;
/// Pairs of a line from which on [`LINES_PREFETCH`] applies.
const LONG: usize = 768;

/// A line as packed pairs, if its length and alignment allow it.
#[inline(always)]
pub fn as_pairs(line: &[bf16]) -> Option<&[u32]> {
    // The first element of a pair is the lower half of the word.
    match cfg!(target_endian = "little") && line.len().is_multiple_of(2) {
        true => bytemuck::try_cast_slice(line).ok(),
        false => None,
    }
}

/// The first elements of all pairs, then the second ones: the order in which [`dot`] and [`add_lines`] use them.
pub fn deinterleave(values: &[f32]) -> Vec<f32> {
    let (pairs, _) = values.as_chunks::<2>();
    let first = pairs.iter().map(|pair| pair[0]);
    first.chain(pairs.iter().map(|pair| pair[1])).collect()
}

/// Adds the [`deinterleave`]d `sums` to `values`.
#[inline(always)]
pub fn interleave_add(values: &mut [f32], sums: &[f32]) {
    let (pairs, _) = values.as_chunks_mut::<2>();
    let (first, second) = sums.split_at(pairs.len());
    for ((pair, first), second) in pairs.iter_mut().zip(first).zip(second) {
        pair[0] += first;
        pair[1] += second;
    }
}

/// `Σ line·x` of packed pairs and a [`deinterleave`]d `x`.
pub fn dot(line: &[u32], x: &[f32]) -> f32 {
    pulp::Arch::new().dispatch(Dot { line, x })
}

struct Dot<'a> {
    line: &'a [u32],
    x: &'a [f32],
}

impl WithSimd for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let (first, second) = self.x.split_at(self.line.len());
        let (pairs, rest) = S::as_simd_u32s(self.line);
        let (first, first_rest) = S::as_simd_f32s(first);
        let (second, second_rest) = S::as_simd_f32s(second);
        let (pairs, last) = pairs.as_chunks::<4>();
        let (firsts, first_last) = first.as_chunks::<4>();
        let (seconds, second_last) = second.as_chunks::<4>();
        let mut sums = [[simd.splat_f32s(0.0); 2]; 4];
        for (pairs, (first, second)) in pairs.iter().zip(firsts.iter().zip(seconds)) {
            for i in 0..4 {
                if size_of::<S::u32s>() * i % 64 == 0 {
                    prefetch(&pairs[i], DOT_PREFETCH);
                }
                let [one, two] = unpack(simd, pairs[i]);
                sums[i][0] = simd.mul_add_e_f32s(one, first[i], sums[i][0]);
                sums[i][1] = simd.mul_add_e_f32s(two, second[i], sums[i][1]);
            }
        }
        for (pair, (first, second)) in last.iter().zip(first_last.iter().zip(second_last)) {
            let [one, two] = unpack(simd, *pair);
            sums[0][0] = simd.mul_add_e_f32s(one, *first, sums[0][0]);
            sums[0][1] = simd.mul_add_e_f32s(two, *second, sums[0][1]);
        }
        let [a, b, c, d] = sums.map(|[one, two]| simd.add_f32s(one, two));
        let sum = simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)));
        let pairs = rest.iter().zip(first_rest.iter().zip(second_rest));
        pairs.fold(sum, |sum, (pair, (first, second))| {
            let [one, two] = unpack_scalar(*pair);
            sum + one * first + two * second
        })
    }
}

/// Adds `Σ factor·line` over the lines to `sums`, which is [`deinterleave`]d.
pub fn add_lines(sums: &mut [f32], lines: [&[u32]; UNROLL], factors: [f32; UNROLL]) {
    pulp::Arch::new().dispatch(AddLines { sums, lines, factors });
}

struct AddLines<'a> {
    sums: &'a mut [f32],
    lines: [&'a [u32]; UNROLL],
    factors: [f32; UNROLL],
}

impl WithSimd for AddLines<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (first, second) = self.sums.split_at_mut(self.sums.len() / 2);
        let distance = match first.len() < LONG {
            true => UNROLL * size_of::<u32>() * first.len(),
            false => LINES_PREFETCH,
        };
        let lines = self.lines.map(|line| &line[..first.len()]);
        let [(a, a_rest), (b, b_rest), (c, c_rest), (d, d_rest)] = lines.map(|line| S::as_simd_u32s(line));
        let (first, first_rest) = S::as_mut_simd_f32s(first);
        let (second, second_rest) = S::as_mut_simd_f32s(second);
        let factors = self.factors.map(|factor| simd.splat_f32s(factor));
        let pairs = a.iter().zip(b).zip(c).zip(d);
        for ((((a, b), c), d), (first, second)) in pairs.zip(first.iter_mut().zip(second)) {
            let (mut one, mut two) = (*first, *second);
            for (factor, pair) in factors.iter().zip([a, b, c, d]) {
                prefetch(pair, distance);
                let [low, high] = unpack(simd, *pair);
                one = simd.mul_add_e_f32s(low, *factor, one);
                two = simd.mul_add_e_f32s(high, *factor, two);
            }
            (*first, *second) = (one, two);
        }
        for (factor, rest) in self.factors.iter().zip([a_rest, b_rest, c_rest, d_rest]) {
            for (pair, (first, second)) in rest.iter().zip(first_rest.iter_mut().zip(&mut *second_rest)) {
                let [one, two] = unpack_scalar(*pair);
                *first += one * factor;
                *second += two * factor;
            }
        }
    }
}

/// Both elements of each pair.
#[inline(always)]
fn unpack<S: Simd>(simd: S, pairs: S::u32s) -> [S::f32s; 2] {
    [
        simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(pairs, simd.splat_u32s(16))),
        simd.transmute_f32s_u32s(simd.and_u32s(pairs, simd.splat_u32s(0xffff_0000))),
    ]
}

#[inline(always)]
fn unpack_scalar(pair: u32) -> [f32; 2] {
    [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)]
}
