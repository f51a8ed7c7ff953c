//! Matrix products alone: a lower bound for the time of a workload.

use burn::tensor::{Device, Distribution, Tensor};

use super::clock::Times;

/// `count` products of `batch` matrices, `[rows, depth]` times `[depth, columns]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Product {
    /// Number of such products.
    pub count: usize,
    /// Matrices in one batched product; 1 for a single weight matrix.
    pub batch: usize,
    /// Rows.
    pub rows: usize,
    /// Inner size.
    pub depth: usize,
    /// Columns.
    pub columns: usize,
}

impl Product {
    /// Elements that all of them read and write.
    pub fn elements(&self) -> u64 {
        let one = self.rows * self.depth + self.depth * self.columns + self.rows * self.columns;
        (self.count * self.batch * one) as u64
    }

    /// Time of all of them, from the fastest run after `warm_up` runs.
    pub fn seconds(&self, device: &Device, warm_up: usize) -> f64 {
        let random = |rows, columns| -> Tensor<3> {
            Tensor::random([self.batch, rows, columns], Distribution::Uniform(-1.0, 1.0), device)
        };
        let (lhs, rhs) = (random(self.rows, self.depth), random(self.depth, self.columns));
        let pass = || {
            let out = match self.batch {
                // With two dimensions, as a model multiplies.
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

/// Waits until `out` is computed: devices other than the CPU return earlier.
pub fn finish<const D: usize>(out: Tensor<D>) {
    let first = out.slice(std::array::from_fn::<_, D, _>(|_| 0..1));
    drop(first.into_data());
}
