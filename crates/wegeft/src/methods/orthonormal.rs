//! Orthonormal factors of a matrix: decompositions on the host, and a rotation that stays orthonormal in training.

use burn::linalg;
use burn::tensor::{Device, Distribution, Tensor};
use rand_mt::Mt;

/// QR sweeps a singular value: LAPACK gives up after 6·n in all; finite input needs two or three.
const SWEEPS: usize = 1000;
/// Columns beyond the rank that a randomised decomposition works with (Halko et al. 2011, section 4.2).
const OVERSAMPLING: usize = 8;

/// The first `r` singular triplets of a finite matrix `[m, n]`: U of `[m, r]`, S of `[r]`, Vᵀ of `[r, n]`.
pub(crate) fn svd(matrix: Tensor<2>, r: usize) -> (Tensor<2>, Tensor<1>, Tensor<2>) {
    let (u, s, vt) = linalg::svd::<2, 1>(matrix, SWEEPS);
    (u.narrow(1, 0, r), s.narrow(0, 0, r), vt.narrow(0, 0, r))
}

/// [`svd`] by `iterations` power iterations on a random sketch of the matrix (Halko et al. 2011, algorithm 4.4); the
/// sketch's seed is fixed, so that the same matrix gives the same bits.
pub(crate) fn truncated_svd(matrix: Tensor<2>, r: usize, iterations: usize) -> (Tensor<2>, Tensor<1>, Tensor<2>) {
    let [m, n] = matrix.dims();
    let columns = (r + OVERSAMPLING).min(m).min(n);
    let sketch = uniform([n, columns], 1.0, &mut Mt::new(0), &matrix.device());
    let mut basis = range(matrix.clone().matmul(sketch));
    for _ in 0..iterations {
        let rows = range(matrix.clone().transpose().matmul(basis));
        basis = range(matrix.clone().matmul(rows));
    }
    let (u, s, vt) = svd(basis.clone().transpose().matmul(matrix), r);
    (basis.matmul(u), s, vt)
}

/// Q of the QR decomposition of a finite matrix `[m, n]` with n ≤ m: `[m, n]`.
pub(crate) fn qr(matrix: Tensor<2>) -> Tensor<2> {
    // Burn's QR of a tall matrix forms an [m, m] one; that of the small factor S Vᵀ does not.
    let (u, s, vt) = linalg::svd::<2, 1>(matrix, SWEEPS);
    let (q, _) = linalg::qr(vt * s.unsqueeze_dim::<2>(1), true);
    u.matmul(q)
}

/// An orthonormal basis of the columns.
fn range(matrix: Tensor<2>) -> Tensor<2> {
    linalg::svd::<2, 1>(matrix, SWEEPS).0
}

/// Values of U(±bound) from PyTorch's CPU generator: 24 bits of each draw of a Mersenne twister.
pub(crate) fn uniform(shape: [usize; 2], bound: f32, generator: &mut Mt, device: &Device) -> Tensor<2> {
    let count = shape[0] * shape[1];
    let values: Vec<f32> = (0..count)
        .map(|_| {
            let unit = (generator.next_u32() & 0x00ff_ffff) as f32 / (1 << 24) as f32;
            unit * (bound + bound) - bound
        })
        .collect();
    Tensor::<1>::from_floats(values.as_slice(), device).reshape(shape)
}

/// R of `[r, d]` with orthonormal rows, from any r vectors of `[r, d]`: the first r columns of the product of their
/// Householder reflections, transposed.
///
/// Orthonormal whatever the vectors are, so that a plain gradient step on them keeps R so; as many values as R has.
/// The product is formed at once, `I − Vᵀ T V` with `T⁻¹ = I/2 + strictly upper(V Vᵀ)` (the compact WY form), and the
/// inverse of the unit triangle `I + N` as `(I − N)(I + N²)(I + N⁴)…`, which ends because N is nilpotent.
pub(crate) fn rotation(reflectors: Tensor<2>) -> Tensor<2> {
    let [r, d] = reflectors.dims();
    let device = reflectors.device();
    let lengths = reflectors.clone().square().sum_dim(1).sqrt();
    let v = reflectors / lengths;
    let mut power = v.clone().matmul(v.clone().transpose()).triu(1).mul_scalar(-2.0);
    let mut inverse = Tensor::eye(r, &device) + power.clone();
    let mut reached = 2;
    while reached < r {
        power = power.clone().matmul(power);
        inverse = inverse.clone() + inverse.matmul(power.clone());
        reached *= 2;
    }
    let first = v.clone().narrow(1, 0, r);
    let product = inverse.matmul(first).transpose().mul_scalar(2.0).matmul(v);
    let identity = Tensor::cat(vec![Tensor::eye(r, &device), Tensor::zeros([r, d - r], &device)], 1);
    identity - product
}

/// Vectors whose [`rotation`] is drawn evenly from all of that shape, up to the signs of its rows: the reflections of
/// the Householder QR of a Gaussian matrix (Stewart 1980).
pub(crate) fn random_reflectors(r: usize, d: usize, device: &Device) -> Tensor<2> {
    let gaussian = Tensor::<2>::random([r, d], Distribution::Normal(0.0, 1.0), device);
    let values: Vec<f64> = gaussian.into_data().iter::<f64>().collect();
    let mut columns: Vec<Vec<f64>> = values.chunks(d).map(<[f64]>::to_vec).collect();
    let mut reflectors = Vec::with_capacity(r * d);
    for i in 0..r {
        let mut v = columns[i].clone();
        v[..i].fill(0.0);
        let length = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        v[i] += length.copysign(v[i]);
        let square: f64 = v.iter().map(|x| x * x).sum();
        for column in &mut columns[i + 1..] {
            let along: f64 = v.iter().zip(&*column).map(|(a, b)| a * b).sum();
            column
                .iter_mut()
                .zip(&v)
                .for_each(|(x, v)| *x -= 2.0 * along / square * v);
        }
        reflectors.extend(v.iter().map(|x| (x / square.sqrt()) as f32));
    }
    Tensor::<1>::from_floats(reflectors.as_slice(), device).reshape([r, d])
}
