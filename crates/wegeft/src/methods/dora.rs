//! DoRA (Weight-Decomposed Low-Rank Adaptation, Liu et al. 2024, arXiv 2402.09353): each output column of
//! `W + s·B A` is scaled to a learned magnitude, `W' = m ∘ (W + s·B A) / ‖W + s·B A‖`, and m starts as ‖W‖. As in the
//! paper (section 4.3) and in PEFT, the norm is a constant in the backward pass.
//!
//! The dense `W + s·B A` is never formed: with w a column of W, a row of the rank-r terms gives
//! `‖w + s·(B A)‖² = ‖w‖² + 2s·w·(B A) + s²·(B A Aᵀ)·B`, and `‖w‖²` is computed once. Unlike PEFT's, `lora_dropout`
//! acts only on the input of A, not on what the magnitudes scale.

use burn::tensor::{Device, Tensor};

use crate::factors::{Factors, Spec};
use crate::low_rank::LowRank;
use crate::tensor::cast;

/// A squared norm below this is the rounding noise of a column of zeros.
const LEAST: f64 = 1e-24;

/// The magnitudes m, and the squared norms of W's output columns, `[1, d_out]`.
pub(super) fn specs(d_out: usize) -> [Spec; 2] {
    [
        Spec::new("magnitude", "lora_magnitude_vector", [d_out]),
        Spec::new("squares", "", [1, d_out]).constant(),
    ]
}

/// `factors` with magnitudes that leave `weight`, `[d_in, d_out]`, unchanged.
pub(super) fn start(factors: Factors, weight: Tensor<2>, residual: LowRank, device: &Device) -> Factors {
    let squares = weight.clone().square().sum_dim(0);
    let [_, d_out] = squares.dims();
    let norm = norm(squares.clone(), weight, residual).reshape([d_out]);
    factors
        .with("magnitude", Tensor::<1>::from_data(norm.into_data(), device))
        .with("squares", Tensor::<2>::from_data(squares.into_data(), device))
}

/// The magnitudes of a bound site.
#[derive(Debug)]
pub(super) struct BoundDora {
    magnitude: Tensor<1>,
    squares: Tensor<2>,
}

impl BoundDora {
    pub(super) fn of(factors: &Factors) -> Self {
        Self {
            magnitude: factors.vector("magnitude"),
            squares: factors.matrix("squares"),
        }
    }

    /// `m / ‖W + s·B A‖`, `[1, d_out]`.
    pub(super) fn factor(&self, weight: Tensor<2>, residual: LowRank) -> Tensor<2> {
        self.magnitude.clone().unsqueeze::<2>() / norm(self.squares.clone(), weight, residual)
    }
}

/// `‖W + s·B A‖` of every output column, `[1, d_out]`, without gradient.
fn norm(squares: Tensor<2>, weight: Tensor<2>, residual: LowRank) -> Tensor<2> {
    let a = residual.a.without_autodiff();
    let b = residual.b.without_autodiff().transpose();
    let code = a.clone().matmul(cast(weight.without_autodiff(), a.dtype()));
    let own = a.clone().matmul(a.transpose()).matmul(b.clone());
    let cross = (b.clone() * code).sum_dim(0).mul_scalar(2.0 * residual.scale);
    let own = (b * own).sum_dim(0).mul_scalar(residual.scale * residual.scale);
    (squares.without_autodiff() + cross + own).clamp_min(LEAST).sqrt()
}
