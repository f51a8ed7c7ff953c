//! Weights as they are stored (f32, bf16, f16, bytes with a scale for each block), read a run of neighbours at a time
//! and widened to f32 on the way.

use std::ops::Range;

use burn::backend::Flex;
use burn::backend::flex::{FlexQTensor, FlexTensor};
use burn::backend::ops::QTensorOps;
use burn::tensor::quantization::QuantScheme;
use burn::tensor::{DType, FloatDType, bf16, f16};

use super::gemm::Mat;
use super::linear::halves;
use super::wide::wide;

/// A weight that a product reads.
#[derive(Debug, Clone)]
pub enum Weight {
    /// f32, bf16 or f16, one of its dimensions without gaps.
    Float(FlexTensor),
    /// Bytes, with a scale for so many neighbours of a row.
    Blocks(FlexQTensor, usize),
}

impl Weight {
    /// A float weight, copied if it lies in memory like neither a matrix nor its transpose.
    pub fn float(tensor: FlexTensor) -> Self {
        let strides = tensor.layout().strides();
        let whole = strides.contains(&1) && strides.iter().all(|stride| *stride >= 0);
        Self::Float(if whole { tensor } else { tensor.to_contiguous() })
    }

    /// A quantized weight; widened here if its blocks are no parts of rows.
    pub fn quantized(tensor: FlexQTensor, scheme: QuantScheme) -> Self {
        match block(&tensor, scheme) {
            Some(block) => Self::Blocks(tensor, block),
            None => Self::Float(Flex::dequantize(tensor, FloatDType::F32)),
        }
    }

    /// Its values.
    pub fn stored(&self) -> Stored<'_> {
        match self {
            Self::Float(tensor) => {
                let (shape, strides) = (tensor.layout().shape(), tensor.layout().strides());
                let by_rows = strides[1] == 1;
                let (line, along) = if by_rows { (0, 1) } else { (1, 0) };
                let size = [shape[line], shape[along]];
                let stride = strides[line] as usize;
                let start = tensor.layout().start_offset();
                let lines = match tensor.dtype() {
                    DType::BF16 => Lines::Bf16(Mat::new(&tensor.storage()[start..], size, [stride, 1])),
                    DType::F16 => Lines::F16(Mat::new(&tensor.storage()[start..], size, [stride, 1])),
                    _ => Lines::F32(Mat::new(&tensor.storage()[start..], size, [stride, 1])),
                };
                Stored { lines, by_rows }
            }
            Self::Blocks(tensor, block) => {
                let shape = tensor.tensor().layout().shape();
                let size = [shape[0], shape[1]];
                let lines = Lines::Blocks {
                    values: Mat::rows(tensor.tensor().storage(), size),
                    scales: Mat::rows(tensor.scales(), [size[0], size[1] / block]),
                    block: *block,
                };
                Stored { lines, by_rows: true }
            }
        }
    }
}

/// Neighbours in a row that share a scale, if that is how scales are shared.
fn block(tensor: &FlexQTensor, scheme: QuantScheme) -> Option<usize> {
    let [1, block] = scheme.block_size()?.to_dim_vec(2)[..] else {
        return None;
    };
    let (values, block) = (tensor.tensor(), usize::from(block));
    let shape = values.layout().shape();
    let plain = values.is_contiguous() && values.layout().start_offset() == 0;
    let one_level = scheme.num_levels() == 1 && tensor.scales().len() * block == shape.num_elements();
    (plain && one_level && shape[1].is_multiple_of(block)).then_some(block)
}

/// A matrix `[rows, columns]` whose lines (rows, or else columns) lie whole in memory.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    lines: Lines<'a>,
    /// A line is a row.
    pub by_rows: bool,
}

#[derive(Debug, Clone, Copy)]
enum Lines<'a> {
    F32(Mat<'a>),
    Bf16(Mat<'a, bf16>),
    F16(Mat<'a, f16>),
    Blocks {
        values: Mat<'a, i8>,
        scales: Mat<'a>,
        block: usize,
    },
}

impl<'a> Stored<'a> {
    /// The transposed matrix.
    pub fn t(self) -> Self {
        Self {
            by_rows: !self.by_rows,
            ..self
        }
    }

    /// How many lines, and how long.
    fn lines(&self) -> [usize; 2] {
        match &self.lines {
            Lines::F32(lines) => lines.size(),
            Lines::Bf16(lines) => lines.size(),
            Lines::F16(lines) => lines.size(),
            Lines::Blocks { values, .. } => values.size(),
        }
    }

    /// Rows and columns.
    pub fn size(&self) -> [usize; 2] {
        let [count, len] = self.lines();
        if self.by_rows { [count, len] } else { [len, count] }
    }

    /// The matrix itself, if it is stored as f32.
    pub fn matrix(&self) -> Option<Mat<'a>> {
        match self.lines {
            Lines::F32(lines) if self.by_rows => Some(lines),
            Lines::F32(lines) => Some(lines.t()),
            _ => None,
        }
    }

    /// Values of scratch that [`Stored::read`] needs for runs of `len`.
    pub fn scratch(&self, len: usize) -> usize {
        match self.lines {
            Lines::F32(_) => 0,
            _ => len,
        }
    }

    /// The values `range` of line `line`: where they lie if they are f32, otherwise widened into `scratch`.
    #[inline(always)]
    pub fn read<'s>(&'s self, line: usize, range: Range<usize>, scratch: &'s mut [f32]) -> &'s [f32] {
        if let Lines::F32(lines) = &self.lines {
            return lines.part_of_row(line, range.start, range.len());
        }
        let out = &mut scratch[..range.len()];
        self.widen(line, range.start, out);
        out
    }

    /// The values `range` of line `line` as words of two, if they are bf16 and lie so.
    #[inline(always)]
    pub fn words(&self, line: usize, range: Range<usize>) -> Option<&'a [u32]> {
        match &self.lines {
            Lines::Bf16(lines) => halves::words(lines.part_of_row(line, range.start, range.len())),
            _ => None,
        }
    }

    /// True if every column is bf16 and can be read as words: then the first two can, so many bytes apart.
    pub fn columns_of_words(&self) -> bool {
        let [count, len] = self.lines();
        !self.by_rows && (0..count.min(2)).all(|line| self.words(line, 0..len).is_some())
    }

    /// [`Stored::words`] of four lines from `line` on.
    #[inline(always)]
    pub fn four_of_words(&self, line: usize, range: Range<usize>) -> Option<[&'a [u32]; 4]> {
        Some([
            self.words(line, range.clone())?,
            self.words(line + 1, range.clone())?,
            self.words(line + 2, range.clone())?,
            self.words(line + 3, range)?,
        ])
    }

    /// The block of `size` from row and column `from` on: a view if it is stored as f32, otherwise widened into `scratch`.
    pub fn block<'s>(&self, from: [usize; 2], size: [usize; 2], scratch: &'s mut Vec<f32>) -> Mat<'s>
    where
        'a: 's,
    {
        if let Some(matrix) = self.matrix() {
            return matrix.block(from, size);
        }
        let (line, along) = if self.by_rows { (0, 1) } else { (1, 0) };
        scratch.resize(size[0] * size[1], 0.0);
        wide!({
            for (number, out) in scratch.chunks_exact_mut(size[along].max(1)).enumerate() {
                self.widen(from[line] + number, from[along], out);
            }
        });
        let block = Mat::rows(scratch, [size[line], size[along]]);
        if self.by_rows { block } else { block.t() }
    }

    /// Fills `out` with the values of line `line` from `from` on.
    #[inline(always)]
    pub fn widen(&self, line: usize, from: usize, out: &mut [f32]) {
        let len = out.len();
        match &self.lines {
            Lines::F32(lines) => out.copy_from_slice(lines.part_of_row(line, from, len)),
            Lines::Bf16(lines) => {
                for (out, value) in out.iter_mut().zip(lines.part_of_row(line, from, len)) {
                    *out = f32::from_bits(u32::from(value.to_bits()) << 16);
                }
            }
            Lines::F16(lines) => {
                for (out, value) in out.iter_mut().zip(lines.part_of_row(line, from, len)) {
                    *out = from_half(value.to_bits());
                }
            }
            Lines::Blocks { values, scales, block } => {
                let values = values.part_of_row(line, from, len);
                let mut done = 0;
                while done < len {
                    let number = (from + done) / block;
                    let end = len.min((number + 1) * block - from);
                    let scale = scales.part_of_row(line, number, 1)[0];
                    for (out, value) in out[done..end].iter_mut().zip(&values[done..end]) {
                        *out = scale * f32::from(*value);
                    }
                    done = end;
                }
            }
        }
    }
}

/// An f16 as f32, without branches: the compiler makes vector code of loops over it on any machine.
#[inline(always)]
fn from_half(bits: u16) -> f32 {
    // Exponents of f32 start 112 earlier; multiplying by 2^112 also makes normal numbers of small ones.
    const SHIFT: f32 = f32::from_bits((112 + 127) << 23);
    let bits = u32::from(bits);
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * SHIFT;
    // Infinities and what is no number have the greatest exponent in both.
    let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | (bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let (ours, exact) = (from_half(bits), f16::from_bits(bits).to_f32());
            assert!(
                ours.to_bits() == exact.to_bits() || (ours.is_nan() && exact.is_nan()),
                "{bits:#x}"
            );
        }
    }
}
