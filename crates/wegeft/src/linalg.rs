//! The singular value decomposition, and the matrix functions that conversions build on it.

use burn::linalg;
use burn::tensor::{Device, Tensor};

use crate::guard::guarded;
use crate::jacobi;

/// QR sweeps per singular value: two or three suffice where the iteration converges, and LAPACK gives up after six.
const SWEEPS: usize = 20;

/// U, S and Vᵀ of a finite matrix, outside any autodiff graph. Burn's QR iteration stalls on some matrices, above all on
/// those with many equal singular values, and then panics; for them there is a slower method.
pub(crate) fn svd(matrix: Tensor<2>) -> (Tensor<2>, Tensor<1>, Tensor<2>) {
    match guarded(|| linalg::svd::<2, 1>(matrix.clone(), SWEEPS)) {
        Ok(factors) => factors,
        Err(_) => jacobi::svd(matrix),
    }
}

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

/// [`svd`] of a matrix that may be in an autodiff graph; `None` if it is not finite.
pub(crate) fn finite_svd(matrix: Tensor<2>) -> Option<(Tensor<2>, Tensor<1>, Tensor<2>)> {
    let device = matrix.device();
    let matrix = matrix.inner();
    if !matrix.clone().is_finite().all().into_scalar::<bool>() {
        return None;
    }
    let (u, s, vt) = svd(matrix);
    Some((on(u, &device), on(s, &device), on(vt, &device)))
}

/// A constant on the device, with the device's autodiff and checkpointing mode.
fn on<const D: usize>(x: Tensor<D>, device: &Device) -> Tensor<D> {
    let dtype = x.dtype();
    Tensor::from_data(x.into_data(), (device, dtype))
}
