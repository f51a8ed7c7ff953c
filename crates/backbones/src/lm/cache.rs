//! Keys and values of the tokens that a decoder has read, so that each is computed once.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use kernels::Visible;

use super::columns::Columns;
use super::layout::Layout;
use super::spread::Spread;

/// The caches of all layers, and the layout of what they hold.
#[derive(Debug, Clone)]
pub struct Cache {
    pub(crate) layers: Vec<LayerCache>,
    pub(crate) past: Layout,
    block: usize,
    /// While the device counts the columns.
    pub(crate) columns: Option<Columns>,
}

impl Cache {
    /// An empty cache of `depth` layers with room for `capacity` tokens per row; it grows if needed.
    pub fn new(depth: usize, capacity: usize) -> Self {
        Self::in_blocks(depth, capacity, 1)
    }

    /// As [`Cache::new`], but layers are given whole blocks of `block` tokens, those that are not there hidden: the shapes
    /// of a step change once in a block instead of with every token. A GPU compiles and tunes its kernels by shape.
    ///
    /// # Panics
    /// A block of no tokens.
    pub fn in_blocks(depth: usize, capacity: usize, block: usize) -> Self {
        let layer = LayerCache {
            buffers: None,
            used: 0,
            capacity: capacity.next_multiple_of(block),
            block,
        };
        Self {
            layers: vec![layer; depth],
            past: Layout::dense(0, 0),
            block,
            columns: None,
        }
    }

    /// Tokens per row that it has room for without growing.
    pub fn capacity(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.capacity)
    }

    /// The column of the next token, `[1]`, while the device counts them: see [`super::Decoder::counts_columns`].
    pub fn column(&self) -> Option<Tensor<1, Int>> {
        self.columns.as_ref().map(|columns| columns.next().clone())
    }

    /// Lets the device go on at `column`, whatever it holds from there on.
    pub fn go_to(&mut self, column: usize) {
        self.columns = self.columns.take().map(|columns| columns.moved(column));
    }

    /// Ends the device's counting; each row has got `tokens` more since it began.
    pub fn stop_counting(&mut self, tokens: usize) {
        if self.columns.take().is_some() && tokens > 0 {
            let more = Layout::dense(self.past.rows(), tokens).after(&self.past);
            self.past = self.past.joined(&more);
            self.layers.iter_mut().for_each(|layer| layer.used += tokens);
        }
    }

    /// A pass has added its tokens: it holds `keys` now.
    pub(crate) fn added(&mut self, keys: Layout) {
        match self.columns.take() {
            Some(columns) => self.columns = Some(columns.advanced()),
            None => self.past = keys,
        }
    }

    /// Hidden columns after the keys of a pass that adds `tokens` to each row.
    pub(crate) fn spare(&self, tokens: usize) -> usize {
        let held = self.past.tokens() + tokens;
        held.next_multiple_of(self.block) - held
    }

    /// Number of tokens per row that it holds, padding included.
    pub fn tokens(&self) -> usize {
        self.past.tokens()
    }

    /// Keeps the rows `chosen`, in that order; a row may be chosen more than once (beam search).
    pub fn select(&mut self, chosen: &[usize]) {
        if chosen.iter().copied().eq(0..self.past.rows()) {
            return;
        }
        self.past = self.past.select(chosen);
        for layer in &mut self.layers {
            layer.buffers = layer.buffers.take().map(|(keys, values)| {
                let rows: Vec<i64> = chosen.iter().map(|row| *row as i64).collect();
                let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [chosen.len()]), &keys.device());
                (keys.select(0, rows.clone()), values.select(0, rows))
            });
        }
    }
}

/// What a layer's tokens attend to in addition to each other: the keys and values of a prefix, and those of earlier tokens.
#[derive(Debug)]
pub struct Past<'a> {
    /// The column of the one token of each row and the number of columns to return, while the device counts them.
    pub(crate) column: Option<(Tensor<1, Int>, usize)>,
    /// Where the prefix stands, and its keys and values `[virtual tokens, kv_heads·head_dim]`.
    pub(crate) prefix: Option<(&'a Spread, [Tensor<2>; 2])>,
    pub(crate) cache: Option<&'a mut LayerCache>,
}

impl Past<'_> {
    /// The keys and values that a layer attends to, given those of its own tokens; each `[batch, kv_heads, tokens,
    /// head_dim]`.
    pub fn extend(self, keys: Tensor<4>, values: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let (keys, values) = match self.prefix {
            None => (keys, values),
            Some((spread, [before_keys, before_values])) => (
                with_prefix(spread, before_keys, keys),
                with_prefix(spread, before_values, values),
            ),
        };
        match (self.cache, self.column) {
            (Some(cache), Some((column, count))) => cache.put(column, count, keys, values),
            (Some(cache), None) => cache.extend(keys, values),
            (None, _) => (keys, values),
        }
    }
}

fn with_prefix(spread: &Spread, prefix: Tensor<2>, own: Tensor<4>) -> Tensor<4> {
    let [batch, heads, tokens, width] = own.dims();
    let own = own.swap_dims(1, 2).reshape([batch, tokens, heads * width]);
    let all = spread.inserted(prefix, own);
    let [_, tokens, _] = all.dims();
    all.reshape([batch, tokens, heads, width]).swap_dims(1, 2)
}

/// Keys and values of one layer, in buffers `[batch, kv_heads, capacity, head_dim]` that are written in place.
#[derive(Debug, Clone)]
pub struct LayerCache {
    buffers: Option<(Tensor<4>, Tensor<4>)>,
    used: usize,
    capacity: usize,
    /// What it returns is a multiple of so many tokens.
    block: usize,
}

impl LayerCache {
    /// Appends `[batch, kv_heads, tokens, head_dim]` and returns everything that is held, then zeros to the end of the block.
    pub fn extend(&mut self, keys: Tensor<4>, values: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [batch, heads, tokens, width] = keys.dims();
        let (from, to) = (self.used, self.used + tokens);
        let buffers = self.buffers.take();
        let empty = |like: &Tensor<4>, capacity: usize| {
            Tensor::zeros([batch, heads, capacity, width], (&like.device(), like.dtype()))
        };
        let (all_keys, all_values) = match buffers {
            Some(buffers) if to <= self.capacity => buffers,
            old => {
                // Doubling: each token is moved once on average, however long the text gets.
                self.capacity = self.capacity.max(to).max(2 * from).next_multiple_of(self.block);
                let fresh = (empty(&keys, self.capacity), empty(&values, self.capacity));
                match old {
                    None => fresh,
                    Some((keys, values)) => {
                        let held = [0..batch, 0..heads, 0..from, 0..width];
                        (
                            fresh.0.slice_assign(held.clone(), keys.slice(held.clone())),
                            fresh.1.slice_assign(held.clone(), values.slice(held)),
                        )
                    }
                }
            }
        };
        let place = [0..batch, 0..heads, from..to, 0..width];
        let all_keys = all_keys.slice_assign(place.clone(), keys);
        let all_values = all_values.slice_assign(place, values);
        self.used = to;
        let view = |all: &Tensor<4>| all.clone().narrow(2, 0, to.next_multiple_of(self.block));
        let held = (view(&all_keys), view(&all_values));
        self.buffers = Some((all_keys, all_values));
        held
    }

    /// Writes one token of each row, `[batch, kv_heads, 1, head_dim]`, at `column`, and returns the first `count` columns.
    fn put(
        &mut self,
        column: Tensor<1, Int>,
        count: usize,
        keys: Tensor<4>,
        values: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        let (all_keys, all_values) = self.buffers.take().expect("a text was read before the device counts");
        let all_keys = all_keys.select_assign(2, column.clone(), keys, IndexingUpdateOp::Assign);
        let all_values = all_values.select_assign(2, column, values, IndexingUpdateOp::Assign);
        let view = |all: &Tensor<4>| all.clone().narrow(2, 0, count);
        let held = (view(&all_keys), view(&all_values));
        self.buffers = Some((all_keys, all_values));
        held
    }
}

/// What `queries` see of `keys` columns, written so that columns after these stay hidden.
pub(crate) fn before_spare(visible: Visible, queries: usize, keys: usize) -> Visible {
    let window = match visible.unshared() {
        Visible::Causal { window } => window.unwrap_or(usize::MAX),
        Visible::All => return Visible::Ranges(vec![0..keys; queries].into()),
        _ => return visible,
    };
    let ranges = (0..queries).map(|query| {
        let end = (keys + query + 1).saturating_sub(queries);
        end.saturating_sub(window)..end
    });
    Visible::Ranges(ranges.collect())
}
