//! Keys and values of the tokens that a decoder has read, so that each is computed once.

use burn::tensor::{Int, Tensor, TensorData};

use super::layout::Layout;
use super::spread::Spread;

/// The caches of all layers, and the layout of what they hold.
#[derive(Debug, Clone)]
pub struct Cache {
    pub(crate) layers: Vec<LayerCache>,
    pub(crate) past: Layout,
}

impl Cache {
    /// An empty cache of `depth` layers with room for `capacity` tokens per row; it grows if needed.
    pub fn new(depth: usize, capacity: usize) -> Self {
        let layer = LayerCache {
            buffers: None,
            used: 0,
            capacity,
        };
        Self {
            layers: vec![layer; depth],
            past: Layout::dense(0, 0),
        }
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
        match self.cache {
            Some(cache) => cache.extend(keys, values),
            None => (keys, values),
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
}

impl LayerCache {
    /// Appends `[batch, kv_heads, tokens, head_dim]` and returns everything that is held.
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
                self.capacity = self.capacity.max(to).max(2 * from);
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
        let view = |all: &Tensor<4>| all.clone().narrow(2, 0, to);
        let held = (view(&all_keys), view(&all_values));
        self.buffers = Some((all_keys, all_values));
        held
    }
}
