//! Heads inside larger tensors, read in place.

use std::ops::Range;

use burn::backend::flex::FlexTensor;

use super::gemm::Mat;

/// `x` if its rows are contiguous and its strides not negative, otherwise a copy.
pub fn row_contiguous(x: FlexTensor) -> FlexTensor {
    let strides = x.layout().strides();
    match strides[strides.len() - 1] == 1 && strides.iter().all(|stride| *stride >= 0) {
        true => x,
        false => x.to_contiguous(),
    }
}

/// The `[tokens, width]` matrices of every head of every sequence, inside one slice.
#[derive(Debug, Clone, Copy)]
pub struct Heads<'a> {
    data: &'a [f32],
    batch: usize,
    head: usize,
    token: usize,
    width: usize,
}

impl<'a> Heads<'a> {
    /// Of a tensor `[batch, heads, tokens, width]` with contiguous rows.
    pub fn of(tensor: &'a FlexTensor) -> Self {
        let layout = tensor.layout();
        let stride = |dim: usize| layout.strides()[dim] as usize;
        Self {
            data: &tensor.storage::<f32>()[layout.start_offset()..],
            batch: stride(0),
            head: stride(1),
            token: stride(2),
            width: layout.shape()[3],
        }
    }

    /// Of a contiguous `[batch, tokens, heads, width]`.
    pub fn contiguous(data: &'a [f32], heads: usize, width: usize, tokens: usize) -> Self {
        Self {
            data,
            batch: tokens * heads * width,
            head: width,
            token: heads * width,
            width,
        }
    }

    /// Queries (0), keys (1) or values (2) of `[batch, tokens, 3, heads, width]`.
    pub fn fused(data: &'a [f32], part: usize, heads: usize, width: usize, tokens: usize) -> Self {
        Self {
            data: &data[(part * heads * width).min(data.len())..],
            batch: 3 * tokens * heads * width,
            head: width,
            token: 3 * heads * width,
            width,
        }
    }

    /// Tokens of one head, `[tokens, width]`.
    pub fn tokens(&self, row: usize, head: usize, tokens: &Range<usize>) -> Mat<'a> {
        let start = row * self.batch + head * self.head + tokens.start * self.token;
        Mat::new(&self.data[start..], [tokens.len(), self.width], [self.token, 1])
    }

    /// One token of one head, `[width]`.
    pub fn token(&self, row: usize, head: usize, token: usize) -> &'a [f32] {
        &self.data[row * self.batch + head * self.head + token * self.token..][..self.width]
    }
}
