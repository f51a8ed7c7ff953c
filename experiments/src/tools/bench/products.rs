//! Matrix products alone: the floor under a workload's time.

use burn::tensor::{Device, Distribution, Tensor};

use super::clock::Times;

/// `count` products of `batch` matrices, `[rows, depth]` times `[depth, columns]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Product {
    /// How often it occurs.
    pub count: usize,
    /// Matrices in one product; one weight for all if 1.
    pub batch: usize,
    /// Rows.
    pub rows: usize,
    /// Inner size.
    pub depth: usize,
    /// Columns.
    pub columns: usize,
}

impl Product {
    /// Time of all of them, by the fastest after `warm_up`.
    pub fn seconds(&self, device: &Device, warm_up: usize) -> f64 {
        let random = |rows, columns| -> Tensor<3> {
            Tensor::random([self.batch, rows, columns], Distribution::Uniform(-1.0, 1.0), device)
        };
        let (lhs, rhs) = (random(self.rows, self.depth), random(self.depth, self.columns));
        let pass = || {
            let out = match self.batch {
                // As a model multiplies: two dimensions.
                1 => lhs
                    .clone()
                    .squeeze_dim::<2>(0)
                    .matmul(rhs.clone().squeeze_dim(0))
                    .unsqueeze(),
                _ => lhs.clone().matmul(rhs.clone()),
            };
            finish(out);
        };
        self.count as f64 * Times::of(pass, warm_up, 0.2).min
    }
}

/// Waits until `out` is computed: devices other than the CPU return before.
pub fn finish<const D: usize>(out: Tensor<D>) {
    let first = out.slice(std::array::from_fn::<_, D, _>(|_| 0..1));
    drop(first.into_data());
}
