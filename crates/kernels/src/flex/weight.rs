//! Weights in their storage format (f32, bf16, f16, or bytes with one scale per block), read a run of elements at a time and
//! upcast to f32 on the way.

use std::ops::Range;

use burn::backend::Flex;
use burn::backend::flex::{FlexQTensor, FlexTensor};
use burn::backend::ops::QTensorOps;
use burn::tensor::quantization::QuantScheme;
use burn::tensor::{DType, FloatDType, bf16, f16};

use super::gemm::Mat;
use super::linear::packed_bf16;
use super::simd::simd;

/// A weight that a product can read.
#[derive(Debug, Clone)]
pub enum Weight {
    /// f32, bf16 or f16, contiguous along one of its dimensions.
    Float(FlexTensor),
    /// Bytes, with one scale per this many elements of a row.
    Blocks(FlexQTensor, usize),
}

impl Weight {
    /// A float weight, copied if neither its rows nor its columns are contiguous.
    pub fn float(tensor: FlexTensor) -> Self {
        let strides = tensor.layout().strides();
        let whole = strides.contains(&1) && strides.iter().all(|stride| *stride >= 0);
        Self::Float(if whole { tensor } else { tensor.to_contiguous() })
    }

    /// A quantized weight, dequantized here if its blocks are not parts of rows.
    pub fn quantized(tensor: FlexQTensor, scheme: QuantScheme) -> Self {
        match block(&tensor, scheme) {
            Some(block) => Self::Blocks(tensor, block),
            None => Self::Float(Flex::dequantize(tensor, FloatDType::F32)),
        }
    }

    /// A view of its elements.
    pub fn view(&self) -> WeightView<'_> {
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
                WeightView { lines, by_rows }
            }
            Self::Blocks(tensor, block) => {
                let shape = tensor.tensor().layout().shape();
                let size = [shape[0], shape[1]];
                let lines = Lines::Blocks {
                    values: Mat::rows(tensor.tensor().storage(), size),
                    scales: Mat::rows(tensor.scales(), [size[0], size[1] / block]),
                    block: *block,
                };
                WeightView { lines, by_rows: true }
            }
        }
    }
}

/// Block size in elements of a row, if the scales are laid out that way.
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

/// A matrix `[rows, columns]` whose lines (rows, or else columns) are contiguous.
#[derive(Debug, Clone, Copy)]
pub struct WeightView<'a> {
    lines: Lines<'a>,
    /// Whether a line is a row.
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

impl<'a> WeightView<'a> {
    /// The transposed matrix.
    pub fn t(self) -> Self {
        Self {
            by_rows: !self.by_rows,
            ..self
        }
    }

    /// Number and length of the lines.
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

    /// Length of the scratch buffer that [`WeightView::read`] needs for `len` elements.
    pub fn scratch(&self, len: usize) -> usize {
        match self.lines {
            Lines::F32(_) => 0,
            _ => len,
        }
    }

    /// The elements `range` of line `line`: in place if they are f32, otherwise upcast into `scratch`.
    #[inline(always)]
    pub fn read<'s>(&'s self, line: usize, range: Range<usize>, scratch: &'s mut [f32]) -> &'s [f32] {
        if let Lines::F32(lines) = &self.lines {
            return lines.part_of_row(line, range.start, range.len());
        }
        let out = &mut scratch[..range.len()];
        self.upcast_into(line, range.start, out);
        out
    }

    /// The elements `range` of line `line` as packed pairs, if they are bf16 and suitably aligned.
    #[inline(always)]
    pub fn packed(&self, line: usize, range: Range<usize>) -> Option<&'a [u32]> {
        match &self.lines {
            Lines::Bf16(lines) => packed_bf16::as_pairs(lines.part_of_row(line, range.start, range.len())),
            _ => None,
        }
    }

    /// Whether every column is bf16 and can be read as packed pairs: if the first two can, so can the others, at the same
    /// distance.
    pub fn has_packed_columns(&self) -> bool {
        let [count, len] = self.lines();
        !self.by_rows && (0..count.min(2)).all(|line| self.packed(line, 0..len).is_some())
    }

    /// [`WeightView::packed`] for four lines from `line` on.
    #[inline(always)]
    pub fn packed_lines(&self, line: usize, range: Range<usize>) -> Option<[&'a [u32]; 4]> {
        Some([
            self.packed(line, range.clone())?,
            self.packed(line + 1, range.clone())?,
            self.packed(line + 2, range.clone())?,
            self.packed(line + 3, range)?,
        ])
    }

    /// The block of `size` that starts at row and column `from`: a view if it is stored as f32, otherwise upcast into
    /// `scratch`.
    pub fn block<'s>(&self, from: [usize; 2], size: [usize; 2], scratch: &'s mut Vec<f32>) -> Mat<'s>
    where
        'a: 's,
    {
        if let Some(matrix) = self.matrix() {
            return matrix.block(from, size);
        }
        let (line, along) = if self.by_rows { (0, 1) } else { (1, 0) };
        scratch.resize(size[0] * size[1], 0.0);
        simd!({
            for (number, out) in scratch.chunks_exact_mut(size[along].max(1)).enumerate() {
                self.upcast_into(from[line] + number, from[along], out);
            }
        });
        let block = Mat::rows(scratch, [size[line], size[along]]);
        if self.by_rows { block } else { block.t() }
    }

    /// Fills `out` with the elements of line `line` from `from` on.
    #[inline(always)]
    pub fn upcast_into(&self, line: usize, from: usize, out: &mut [f32]) {
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

/// An f16 as f32, without branches, so that loops over it are vectorized on any machine.
#[inline(always)]
fn from_half(bits: u16) -> f32 {
    // The exponent bias of f32 is larger by 112; multiplying by 2^112 also normalizes subnormals.
    const SHIFT: f32 = f32::from_bits((112 + 127) << 23);
    let bits = u32::from(bits);
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * SHIFT;
    // Infinities and NaN have the maximum exponent in both formats.
    let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | (bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_is_upcast_exactly() {
        for bits in 0..=u16::MAX {
            let (ours, exact) = (from_half(bits), f16::from_bits(bits).to_f32());
            assert!(
                ours.to_bits() == exact.to_bits() || (ours.is_nan() && exact.is_nan()),
                "{bits:#x}"
            );
        }
    }
}
