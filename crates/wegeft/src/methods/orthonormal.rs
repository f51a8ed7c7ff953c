//! Orthonormal factors: matrix decompositions on the CPU, and a matrix that stays orthonormal in training.

use burn::tensor::{Bool, Device, Distribution, Int, Tensor};
use rand_mt::Mt;

use crate::linalg;

/// Oversampling of the randomized decomposition (Halko et al. 2011, section 4.2).
const OVERSAMPLING: usize = 8;

/// The first `r` singular triplets of a finite matrix `[m, n]`: U of `[m, r]`, S of `[r]`, Vᵀ of `[r, n]`.
pub(crate) fn svd(matrix: Tensor<2>, r: usize) -> (Tensor<2>, Tensor<1>, Tensor<2>) {
    let (u, s, vt) = linalg::svd(matrix);
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
    let (u, s, vt) = linalg::svd(matrix);
    let (q, _) = burn::linalg::qr(vt * s.unsqueeze_dim::<2>(1), true);
    u.matmul(q)
}

/// An orthonormal basis of the columns.
fn range(matrix: Tensor<2>) -> Tensor<2> {
    linalg::svd(matrix).0
}

/// Samples of U(±bound) from PyTorch's CPU generator: 24 bits of each draw of a Mersenne twister.
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

/// R of `[r, d]` with orthonormal rows, from any r vectors of `[r, d]`, r ≤ d: the first r columns of the product of their
/// Householder reflections, transposed. A vector of zeros reflects nothing.
///
/// R is orthonormal for any vectors, so that it stays orthonormal under plain gradient steps; the vectors have as many
/// elements as R. The product is computed as `I − Vᵀ T V` with `T⁻¹ + T⁻ᵀ = V Vᵀ` (the compact WY form, Schreiber and Van
/// Loan 1989). Rounding errors, up to 1e-4 for nearly parallel vectors, are squared by one Newton-Schulz step.
pub(crate) fn rotation(reflectors: Tensor<2>) -> Tensor<2> {
    let [r, d] = reflectors.dims();
    let device = reflectors.device();
    let v = normalized(reflectors);
    let gram = v.clone().matmul(v.clone().transpose());
    let eye = || Tensor::<2>::eye(r, &device);
    // Twice the inverse of each squared length: not quite 2 after rounding, 2 where the vector is zero.
    let doubled = ((gram.clone() * eye()).sum_dim(1))
        .clamp_min(0.5)
        .recip()
        .mul_scalar(2.0);
    let unit_triangle = eye() + gram.triu(1) * doubled.clone();
    let t = inverse_of_unit_triangle(unit_triangle) * doubled.transpose();
    let first = v.clone().narrow(1, 0, r);
    let product = t.matmul(first.clone()).transpose().matmul(v);
    let deviation = deviation(&product);
    let identity = match d == r {
        true => eye(),
        false => Tensor::cat(vec![eye(), Tensor::zeros([r, d - r], &device)], 1),
    };
    let rotation = identity - product;
    rotation.clone() - deviation.mul_scalar(0.5).matmul(rotation)
}

/// Divides each row by its length, which may be any finite number; rows of zeros stay zero.
fn normalized(rows: Tensor<2>) -> Tensor<2> {
    // Squares of very small or very large elements are 0 or infinite. The direction does not depend on this factor, so the
    // gradient need not go through it.
    let largest = rows.clone().detach().abs().max_dim(1).clamp_min(f32::MIN_POSITIVE);
    let rows = rows / largest;
    let lengths = rows.clone().square().sum_dim(1).clamp_min(0.5).sqrt();
    rows / lengths
}

/// Of an upper triangular matrix with a diagonal of ones, block by block: the inverses of two neighbouring blocks on the
/// diagonal make that of the block twice as large, `[[A, B], [0, C]]⁻¹ = [[A⁻¹, −A⁻¹ B C⁻¹], [0, C⁻¹]]`. Of reflections
/// every such block is bounded, while the powers of the matrix are not.
fn inverse_of_unit_triangle(matrix: Tensor<2>) -> Tensor<2> {
    let [r, _] = matrix.dims();
    let device = matrix.device();
    let mut inverse = Tensor::<2>::eye(r, &device);
    let mut size = 1;
    while size < r {
        let off_diagonal = same_block(r, size, &device).bool_or(same_block(r, 2 * size, &device).bool_not());
        let blocks = matrix.clone().mask_fill(off_diagonal, 0.0);
        inverse = inverse.clone() - inverse.clone().matmul(blocks).matmul(inverse);
        size *= 2;
    }
    inverse
}

/// True where row and column lie in the same block on the diagonal, `[r, r]`.
fn same_block(r: usize, size: usize, device: &Device) -> Tensor<2, Bool> {
    let block = Tensor::<1, Int>::arange(0..r as i64, device).div_scalar(size as i64);
    let rows = block.clone().reshape([r, 1]).expand([r, r]);
    rows.equal(block.reshape([1, r]).expand([r, r]))
}

/// `R Rᵀ − I` of `R = I − product`, `[r, r]`. Summed a few columns at a time, and without ever adding the ones of I: added
/// to 1, small numbers lose the digits that matter here.
fn deviation(product: &Tensor<2>) -> Tensor<2> {
    const COLUMNS: usize = 32;
    let [r, d] = product.dims();
    let count = d.div_ceil(COLUMNS);
    let padding = count * COLUMNS - d;
    let padded = match padding {
        0 => product.clone(),
        _ => Tensor::cat(vec![product.clone(), Tensor::zeros([r, padding], &product.device())], 1),
    };
    let parts = padded.reshape([r, count, COLUMNS]).swap_dims(0, 1);
    let squares = parts.clone().matmul(parts.swap_dims(1, 2)).sum_dim(0).reshape([r, r]);
    let first = product.clone().narrow(1, 0, r);
    squares - first.clone() - first.transpose()
}

/// Vectors whose [`rotation`] is uniformly distributed over all matrices of that shape, up to the signs of its rows: the
/// reflections of the Householder QR of a Gaussian matrix (Stewart 1980).
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Largest entry of `|R Rᵀ − I|`, in f64.
    fn error(rotation: &Tensor<2>) -> f64 {
        let [r, d] = rotation.dims();
        let rows: Vec<f64> = rotation.to_data().iter::<f64>().collect();
        let mut worst = 0.0f64;
        for (i, a) in rows.chunks(d).enumerate() {
            for (j, b) in rows.chunks(d).enumerate() {
                let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                let error = (dot - f64::from(u8::from(i == j))).abs();
                worst = if error.is_nan() { f64::NAN } else { worst.max(error) };
            }
        }
        assert!(rows.len() == r * d);
        worst
    }

    /// Reflection after reflection, in f64.
    fn reflected(reflectors: &Tensor<2>) -> Vec<f64> {
        let [r, d] = reflectors.dims();
        let vectors: Vec<f64> = reflectors.to_data().iter::<f64>().collect();
        let mut rows: Vec<f64> = (0..r * d).map(|i| f64::from(u8::from(i / d == i % d))).collect();
        // The first r columns of H₁ H₂ … Hᵣ: each unit vector goes through the last reflection first.
        for v in vectors.chunks(d).rev() {
            let square: f64 = v.iter().map(|x| x * x).sum();
            if square == 0.0 {
                continue;
            }
            for row in rows.chunks_mut(d) {
                let along: f64 = row.iter().zip(v).map(|(a, b)| a * b).sum();
                row.iter_mut().zip(v).for_each(|(x, v)| *x -= 2.0 * along / square * v);
            }
        }
        rows
    }

    /// Normal vectors, `mix` of each one shared by all (1: all parallel), of that length; `flip` turns every other one.
    fn vectors(r: usize, d: usize, mix: f32, length: f32, flip: bool, seed: u64) -> Tensor<2> {
        let device = Device::flex();
        let mut generator = Mt::new(seed as u32);
        let [own, shared] = [r, 1].map(|rows| uniform([rows, d], 1.0, &mut generator, &device));
        let signs: Vec<f32> = (0..r)
            .map(|i| if flip && i % 2 == 1 { -length } else { length })
            .collect();
        let signs = Tensor::<1>::from_floats(signs.as_slice(), &device).reshape([r, 1]);
        (own.mul_scalar(1.0 - mix) + shared.mul_scalar(mix)) * signs
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn rows_are_orthonormal_whatever_the_vectors_are(
            r in prop_oneof![1usize..9, Just(16usize), Just(31), Just(64), Just(100), Just(128)],
            more in prop_oneof![Just(0usize), 1usize..40, Just(640)],
            mix in prop_oneof![Just(0.0f32), 0.0f32..1.0, Just(0.95), Just(0.99), Just(0.999), Just(0.9999), Just(1.0)],
            length in prop_oneof![Just(1.0f32), Just(1e-30), Just(1e30)],
            flip: bool,
            seed: u64,
        ) {
            let worst = error(&rotation(vectors(r, r + more, mix, length, flip, seed)));
            prop_assert!(worst < 1e-6, "{worst:e}");
        }

        #[test]
        fn it_is_the_product_of_the_reflections(r in 1usize..40, more in 0usize..100, mix in 0.0f32..0.7, seed: u64) {
            let reflectors = vectors(r, r + more, mix, 1.0, false, seed);
            let ours = rotation(reflectors.clone());
            for (ours, exact) in ours.into_data().iter::<f64>().zip(reflected(&reflectors)) {
                prop_assert!((ours - exact).abs() < 1e-5, "{ours} for {exact}");
            }
        }
    }

    #[test]
    fn vectors_of_zeros_reflect_nothing() {
        let device = Device::flex().autodiff();
        let reflectors = Tensor::<2>::from_floats([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0]], &device).require_grad();
        let rotation = rotation(reflectors.clone());
        assert!(error(&rotation.clone().inner()) < 1e-6);
        let grad = reflectors.grad(&rotation.slice([1..2, 0..1]).sum().backward()).unwrap();
        assert!(grad.into_data().iter::<f32>().all(f32::is_finite));
    }

    /// Central differences of the exact product in f64, along one direction at a time.
    #[test]
    fn gradients_are_those_of_the_reflections() {
        const STEP: f32 = 1e-3;
        for (r, d, mix) in [(1, 5, 0.0), (4, 4, 0.0), (5, 12, 0.3), (12, 20, 0.6), (6, 30, 0.9)] {
            let start = vectors(r, d, mix, 1.0, false, 3);
            let weight = |i: usize| (i as f64).cos();
            let value = |reflectors: &Tensor<2>| -> f64 {
                let rows = reflected(reflectors).into_iter().enumerate();
                rows.map(|(i, x)| weight(i) * x).sum()
            };
            let leaf = Tensor::from_inner(start.clone()).require_grad();
            let weights: Vec<f32> = (0..r * d).map(|i| weight(i) as f32).collect();
            let weights = Tensor::<1>::from_floats(weights.as_slice(), &leaf.device()).reshape([r, d]);
            let grads = (rotation(leaf.clone()) * weights).sum().backward();
            let grad: Vec<f64> = leaf.grad(&grads).unwrap().into_data().iter::<f64>().collect();
            let entries: Vec<f32> = start.to_data().iter::<f32>().collect();
            let largest = grad.iter().fold(1.0f64, |a, b| a.max(b.abs()));
            for index in (0..r * d).step_by((r * d).div_ceil(24)) {
                let at = |shift: f32| {
                    let mut entries = entries.clone();
                    entries[index] += shift;
                    value(&Tensor::<1>::from_floats(entries.as_slice(), &Device::flex()).reshape([r, d]))
                };
                let width = f64::from(entries[index] + STEP) - f64::from(entries[index] - STEP);
                let slope = (at(STEP) - at(-STEP)) / width;
                assert!(
                    (slope - grad[index]).abs() < 2e-3 * largest,
                    "r {r}, d {d}, mix {mix}, entry {index}: slope {slope}, gradient {}",
                    grad[index]
                );
            }
        }
    }
}
