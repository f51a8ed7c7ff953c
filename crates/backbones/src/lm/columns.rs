//! Columns of a cache that the device counts by itself: then all steps of decoding are the same operations, which a device can
//! record and repeat.

use burn::tensor::{Device, Int, Tensor, TensorData, s};
use kernels::Visible;

use super::layout::Layout;

/// Where the texts of a cache stand, on the device.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    /// The column of the next token of every text, `[1]`.
    next: Tensor<1, Int>,
    /// The first column of each text, `[rows, 1]`.
    first: Tensor<2, Int>,
    /// The columns that layers are given, those of later tokens hidden: their numbers, `[1, 1, 1, columns]`. Made once, since
    /// some devices make such a tensor on the host.
    all: Tensor<4, Int>,
    /// Frequencies of each of the model's rotations, `[1, 1, 1, dim / 2]`.
    pub(crate) frequencies: Vec<Tensor<4>>,
}

impl Columns {
    pub(crate) fn new(past: &Layout, count: usize, frequencies: Vec<Tensor<4>>, device: &Device) -> Self {
        let real: Vec<bool> = past.real().collect();
        let rows = real.chunks_exact(past.tokens().max(1));
        let first: Vec<i64> = rows
            .map(|row| row.iter().take_while(|real| !**real).count() as i64)
            .collect();
        let shape = [first.len(), 1];
        Self {
            next: column(past.tokens(), device),
            first: Tensor::from_data(TensorData::new(first, shape), device),
            all: Tensor::<1, Int>::arange(0..count as i64, device).reshape([1, 1, 1, count]),
            frequencies,
        }
    }

    pub(crate) fn next(&self) -> &Tensor<1, Int> {
        &self.next
    }

    pub(crate) fn count(&self) -> usize {
        let [_, _, _, count] = self.all.dims();
        count
    }

    /// Position of each text's next token, `[rows, 1]`.
    pub(crate) fn places(&self) -> Tensor<2, Int> {
        self.next.clone().reshape([1, 1]) - self.first.clone()
    }

    /// What the next token of each text sees, at most `window` columns.
    pub(crate) fn visible(&self, window: Option<usize>) -> Visible {
        let [rows, _] = self.first.dims();
        let shape = [rows, 1, 1, self.count()];
        let columns = self.all.clone();
        let next = self.next.clone().reshape([1, 1, 1, 1]);
        let first = self.first.clone().reshape([rows, 1, 1, 1]);
        let beside = columns.clone().lower(first).expand(shape);
        let beside = beside.bool_or(columns.clone().greater(next.clone()).expand(shape));
        let hidden = match window.filter(|window| *window < self.count()) {
            None => beside,
            Some(window) => beside.bool_or(columns.lower_equal(next.sub_scalar(window as i64)).expand(shape)),
        };
        Visible::masked(hidden)
    }

    /// At the next column, whose number is written where that of the last one was.
    pub(crate) fn advanced(self) -> Self {
        let further = self.next.clone().add_scalar(1);
        self.written(further)
    }

    /// At `column`, whose number is written where that of the last one was.
    pub(crate) fn moved(self, to: usize) -> Self {
        let to = column(to, &self.next.device());
        self.written(to)
    }

    fn written(self, next: Tensor<1, Int>) -> Self {
        Self {
            next: self.next.slice_assign(s![0..1], next),
            ..self
        }
    }
}

fn column(place: usize, device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(vec![place as i64], [1]), device)
}
