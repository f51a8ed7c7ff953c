//! The matrix functions that conversions need, built on Burn's SVD.

use burn::linalg::svd;
use burn::tensor::{Device, Tensor};

/// Enough for any finite matrix.
const SWEEPS: usize = 100;

/// The inverse of a square matrix; `None` if it is singular or not finite.
pub(crate) fn inverse(matrix: Tensor<2>) -> Option<Tensor<2>> {
    let (u, s, vt) = finite_svd(matrix)?;
    let least = s.clone().min().into_scalar::<f64>();
    if least <= 0.0 {
        return None;
    }
    let columns = s.recip().unsqueeze_dim::<2>(0);
    Some((vt.transpose() * columns).matmul(u.transpose()))
}

/// The `rank` largest singular triplets of `left · right` (`[m, k]` and `[k, n]`), without forming the product if k is the
/// smallest size: U `[m, rank]`, S `[rank]`, Vᵀ `[rank, n]`; fewer if the product is smaller. `None` if it is not finite.
pub(crate) fn product_svd(left: Tensor<2>, right: Tensor<2>, rank: usize) -> Option<(Tensor<2>, Tensor<1>, Tensor<2>)> {
    let ([m, k], [_, n]) = (left.dims(), right.dims());
    let (u, s, vt) = if k < m.min(n) {
        let (u_left, s_left, vt_left) = finite_svd(left)?;
        let (u_right, s_right, vt_right) = finite_svd(right)?;
        let core = (vt_left * s_left.unsqueeze_dim::<2>(1)).matmul(u_right * s_right.unsqueeze_dim::<2>(0));
        let (u, s, vt) = finite_svd(core)?;
        (u_left.matmul(u), s, vt.matmul(vt_right))
    } else {
        finite_svd(left.matmul(right))?
    };
    let rank = rank.min(s.dims()[0]);
    Some((u.narrow(1, 0, rank), s.narrow(0, 0, rank), vt.narrow(0, 0, rank)))
}

/// The SVD of a matrix, on the CPU and outside any autodiff graph; `None` if it is not finite, where Burn's panics.
pub(crate) fn finite_svd(matrix: Tensor<2>) -> Option<(Tensor<2>, Tensor<1>, Tensor<2>)> {
    let device = matrix.device();
    let matrix = matrix.inner();
    if !matrix.clone().is_finite().all().into_scalar::<bool>() {
        return None;
    }
    let (u, s, vt) = svd::<2, 1>(matrix, SWEEPS);
    Some((on(u, &device), on(s, &device), on(vt, &device)))
}

/// A constant on the device, with the device's autodiff and checkpointing mode.
fn on<const D: usize>(x: Tensor<D>, device: &Device) -> Tensor<D> {
    let dtype = x.dtype();
    Tensor::from_data(x.into_data(), (device, dtype))
}
