//! Virtual tokens among the tokens of a batch: a prompt stands in front of every document, in packed rows too, so that a
//! document is computed as if it were alone.

use burn::tensor::{Device, Int, Tensor};
use kernels::Visible;

use super::layout::Layout;

/// Where the virtual tokens of a pass stand, and where its own tokens go.
#[derive(Debug, Clone)]
pub struct Spread {
    /// Of all tokens, virtual ones included.
    layout: Layout,
    /// Of the own tokens alone, their positions behind the virtual ones.
    own: Layout,
    /// For every column of every row, its row in "virtual tokens, then own tokens"; none if each row is the virtual tokens,
    /// then its own.
    sources: Option<Tensor<1, Int>>,
    /// Columns of the own tokens, row by row, counted over all rows.
    columns: Vec<usize>,
}

impl Spread {
    /// `count` virtual tokens in front of each document that begins in `layout`; none if none begins there.
    pub(crate) fn new(layout: &Layout, count: usize, device: &Device) -> Option<Self> {
        let (wide, sources) = layout.with_virtual(count);
        let tokens = layout.tokens();
        if wide.tokens() == tokens {
            return None;
        }
        let mut columns = vec![0; layout.rows() * tokens];
        for (column, source) in sources.iter().enumerate() {
            if let Some(own) = source.and_then(|source| source.checked_sub(count)) {
                columns[own] = column;
            }
        }
        let in_front = columns.iter().enumerate().all(|(own, column)| {
            let row = own / tokens;
            *column == own + (row + 1) * count && wide.tokens() == tokens + count
        });
        let indices = || {
            // What stands at padding is meaningless; it must be something.
            let rows: Vec<i64> = sources.iter().map(|source| source.unwrap_or(0) as i64).collect();
            Tensor::from_ints(rows.as_slice(), device)
        };
        Some(Self {
            own: wide.columns(&columns, tokens),
            sources: (!in_front).then(indices),
            columns,
            layout: wide,
        })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn own(&self) -> &Layout {
        &self.own
    }

    /// `own`, `[rows, own tokens, d]`, with `tokens`, `[virtual tokens, d]`, where they belong: `[rows, all tokens, d]`.
    pub(crate) fn inserted(&self, tokens: Tensor<2>, own: Tensor<3>) -> Tensor<3> {
        let [rows, width, d] = own.dims();
        let [count, _] = tokens.dims();
        let tokens = tokens.cast(own.dtype());
        match &self.sources {
            None => Tensor::cat(vec![tokens.unsqueeze::<3>().expand([rows, count, d]), own], 1),
            Some(sources) => Tensor::cat(vec![tokens, own.reshape([rows * width, d])], 0)
                .select(0, sources.clone())
                .reshape([rows, self.layout.tokens(), d]),
        }
    }

    /// The own tokens `[rows, own tokens, d]` of `all`, `[rows, all tokens, d]`.
    pub(crate) fn removed(&self, all: Tensor<3>) -> Tensor<3> {
        let [rows, wide, d] = all.dims();
        let tokens = self.own.tokens();
        if self.sources.is_none() {
            return all.narrow(1, wide - tokens, tokens);
        }
        let columns: Vec<i64> = self.columns.iter().map(|column| *column as i64).collect();
        let columns = Tensor::from_ints(columns.as_slice(), &all.device());
        all.reshape([rows * wide, d])
            .select(0, columns)
            .reshape([rows, tokens, d])
    }

    /// What the own tokens see, of what all tokens see.
    pub(crate) fn of_own(&self, visible: Visible) -> Visible {
        match visible {
            Visible::Ranges(ranges) => {
                Visible::Ranges(self.columns.iter().map(|column| ranges[*column].clone()).collect())
            }
            // The own tokens are the last of their rows.
            other => other,
        }
    }
}
