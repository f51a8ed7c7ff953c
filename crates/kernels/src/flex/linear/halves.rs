//! Products of a few rows with weights stored as bf16, two of them in each 32-bit word: a value is the upper half of an
//! f32, so the word shifted up is its first value and the word without its lower half the second. No value is written
//! before it is used, and the memory is asked for ahead: both by measurement (README).

use crate::flex::ahead::ask_ahead;
use crate::flex::lanes::TOGETHER;
use burn::tensor::bf16;
use pulp::{Simd, WithSimd, bytemuck};

/// Bytes between what [`dot`] reads and what it asks for: that of the next lines.
const DOT_AHEAD: usize = 4096;
/// The same of [`add_lines`] within each line, if it is longer than [`LONG`] words; if not, the lines after these are asked
/// for: each line is a place of its own to read from, and at an end of it the processor would have to find the next.
const LINES_AHEAD: usize = 1024;
/// Words of a line from which on [`LINES_AHEAD`] holds.
const LONG: usize = 768;

/// The words of a line, if it can be read so.
#[inline(always)]
pub fn words(line: &[bf16]) -> Option<&[u32]> {
    // The first value of a word lies in its lower half.
    match cfg!(target_endian = "little") && line.len().is_multiple_of(2) {
        true => bytemuck::try_cast_slice(line).ok(),
        false => None,
    }
}

/// The first values of all pairs, then the second ones: in the order of [`words`].
pub fn apart(values: &[f32]) -> Vec<f32> {
    let (pairs, _) = values.as_chunks::<2>();
    let first = pairs.iter().map(|pair| pair[0]);
    first.chain(pairs.iter().map(|pair| pair[1])).collect()
}

/// Adds to `values` what is `apart`.
#[inline(always)]
pub fn add_together(values: &mut [f32], apart: &[f32]) {
    let (pairs, _) = values.as_chunks_mut::<2>();
    let (first, second) = apart.split_at(pairs.len());
    for ((pair, first), second) in pairs.iter_mut().zip(first).zip(second) {
        pair[0] += first;
        pair[1] += second;
    }
}

/// `Σ line·x`, of a line of [`words`] and an `x` that is [`apart`].
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
        let (words, rest) = S::as_simd_u32s(self.line);
        let (first, first_rest) = S::as_simd_f32s(first);
        let (second, second_rest) = S::as_simd_f32s(second);
        let (words, last) = words.as_chunks::<4>();
        let (firsts, first_last) = first.as_chunks::<4>();
        let (seconds, second_last) = second.as_chunks::<4>();
        let mut sums = [[simd.splat_f32s(0.0); 2]; 4];
        for (words, (first, second)) in words.iter().zip(firsts.iter().zip(seconds)) {
            for i in 0..4 {
                if size_of::<S::u32s>() * i % 64 == 0 {
                    ask_ahead(&words[i], DOT_AHEAD);
                }
                let [one, two] = halves(simd, words[i]);
                sums[i][0] = simd.mul_add_e_f32s(one, first[i], sums[i][0]);
                sums[i][1] = simd.mul_add_e_f32s(two, second[i], sums[i][1]);
            }
        }
        for (word, (first, second)) in last.iter().zip(first_last.iter().zip(second_last)) {
            let [one, two] = halves(simd, *word);
            sums[0][0] = simd.mul_add_e_f32s(one, *first, sums[0][0]);
            sums[0][1] = simd.mul_add_e_f32s(two, *second, sums[0][1]);
        }
        let [a, b, c, d] = sums.map(|[one, two]| simd.add_f32s(one, two));
        let sum = simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)));
        let pairs = rest.iter().zip(first_rest.iter().zip(second_rest));
        pairs.fold(sum, |sum, (word, (first, second))| {
            let [one, two] = scalar_halves(*word);
            sum + one * first + two * second
        })
    }
}

/// Adds `Σ factor·line` over the lines to `sums`, which is [`apart`].
pub fn add_lines(sums: &mut [f32], lines: [&[u32]; TOGETHER], factors: [f32; TOGETHER]) {
    pulp::Arch::new().dispatch(AddLines { sums, lines, factors });
}

struct AddLines<'a> {
    sums: &'a mut [f32],
    lines: [&'a [u32]; TOGETHER],
    factors: [f32; TOGETHER],
}

impl WithSimd for AddLines<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (first, second) = self.sums.split_at_mut(self.sums.len() / 2);
        let ahead = match first.len() < LONG {
            true => TOGETHER * size_of::<u32>() * first.len(),
            false => LINES_AHEAD,
        };
        let lines = self.lines.map(|line| &line[..first.len()]);
        let [(a, a_rest), (b, b_rest), (c, c_rest), (d, d_rest)] = lines.map(|line| S::as_simd_u32s(line));
        let (first, first_rest) = S::as_mut_simd_f32s(first);
        let (second, second_rest) = S::as_mut_simd_f32s(second);
        let factors = self.factors.map(|factor| simd.splat_f32s(factor));
        let words = a.iter().zip(b).zip(c).zip(d);
        for ((((a, b), c), d), (first, second)) in words.zip(first.iter_mut().zip(second)) {
            let (mut one, mut two) = (*first, *second);
            for (factor, word) in factors.iter().zip([a, b, c, d]) {
                ask_ahead(word, ahead);
                let [low, high] = halves(simd, *word);
                one = simd.mul_add_e_f32s(low, *factor, one);
                two = simd.mul_add_e_f32s(high, *factor, two);
            }
            (*first, *second) = (one, two);
        }
        for (factor, rest) in self.factors.iter().zip([a_rest, b_rest, c_rest, d_rest]) {
            for (word, (first, second)) in rest.iter().zip(first_rest.iter_mut().zip(&mut *second_rest)) {
                let [one, two] = scalar_halves(*word);
                *first += one * factor;
                *second += two * factor;
            }
        }
    }
}

/// Both values of each word.
#[inline(always)]
fn halves<S: Simd>(simd: S, words: S::u32s) -> [S::f32s; 2] {
    [
        simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(words, simd.splat_u32s(16))),
        simd.transmute_f32s_u32s(simd.and_u32s(words, simd.splat_u32s(0xffff_0000))),
    ]
}

#[inline(always)]
fn scalar_halves(word: u32) -> [f32; 2] {
    [f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000)]
}
