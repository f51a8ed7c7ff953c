//! The singular value decomposition by one-sided Jacobi rotations (Hestenes 1958), in f64 on the CPU. It is slower than QR
//! iteration but converges for every finite matrix, also where QR iteration stalls: at many equal singular values.

use burn::tensor::{Tensor, TensorData};

/// Sweeps over all pairs of columns; five to ten suffice, and later ones change rounding errors only.
const SWEEPS: usize = 40;

/// U `[m, k]`, S `[k]` and Vᵀ `[k, n]` of a finite matrix `[m, n]`, k = min(m, n), S in descending order.
pub(crate) fn svd(matrix: Tensor<2>) -> (Tensor<2>, Tensor<1>, Tensor<2>) {
    let [m, n] = matrix.dims();
    if m < n {
        let (u, s, vt) = svd(matrix.transpose());
        return (vt.transpose(), s, u.transpose());
    }
    let (device, dtype) = (matrix.device(), matrix.dtype());
    let values: Vec<f64> = matrix.into_data().iter::<f64>().collect();
    // Squares of very small or very large elements would be 0 or infinite.
    let largest = values.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    let unit = if largest > 0.0 { largest } else { 1.0 };
    let mut columns: Vec<Vec<f64>> = (0..n)
        .map(|j| (0..m).map(|i| values[i * n + j] / unit).collect())
        .collect();
    let mut right: Vec<Vec<f64>> = (0..n).map(|j| basis(n, j)).collect();
    for _ in 0..SWEEPS {
        if !sweep(&mut columns, &mut right) {
            break;
        }
    }
    let lengths: Vec<f64> = columns.iter().map(|column| dot(column, column).sqrt()).collect();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| lengths[*b].total_cmp(&lengths[*a]));
    let mut left: Vec<Vec<f64>> = Vec::with_capacity(n);
    for &j in &order {
        let direction: Vec<f64> = match lengths[j] > 0.0 {
            true => columns[j].iter().map(|x| x / lengths[j]).collect(),
            false => beside(&left, m),
        };
        left.push(direction);
    }
    let tensor = |values: Vec<f64>, shape: [usize; 2]| {
        Tensor::<2>::from_data(TensorData::new(values, shape).convert_dtype(dtype), (&device, dtype))
    };
    let u = tensor(left.concat(), [n, m]).transpose();
    let vt = tensor(order.iter().flat_map(|&j| right[j].clone()).collect(), [n, n]);
    let s = tensor(order.iter().map(|&j| lengths[j] * unit).collect(), [1, n]);
    (u, s.reshape([n]), vt)
}

/// Makes each pair of columns orthogonal, one after the other; false if all were.
fn sweep(columns: &mut [Vec<f64>], right: &mut [Vec<f64>]) -> bool {
    // The cosine of two columns, down to its own rounding error.
    let orthogonal = f64::EPSILON * (columns.first().map_or(0, Vec::len) as f64).sqrt();
    let mut turned = false;
    for q in 1..columns.len() {
        for p in 0..q {
            let (a, b) = (dot(&columns[p], &columns[p]), dot(&columns[q], &columns[q]));
            let along = dot(&columns[p], &columns[q]);
            if along.abs() <= orthogonal * a.sqrt() * b.sqrt() {
                continue;
            }
            turned = true;
            let half = (b - a) / (2.0 * along);
            let tangent = half.signum() / (half.abs() + half.hypot(1.0));
            let cosine = tangent.hypot(1.0).recip();
            turn(columns, p, q, cosine, cosine * tangent);
            turn(right, p, q, cosine, cosine * tangent);
        }
    }
    turned
}

fn turn(columns: &mut [Vec<f64>], p: usize, q: usize, cosine: f64, sine: f64) {
    let (before, from) = columns.split_at_mut(q);
    for (x, y) in before[p].iter_mut().zip(&mut from[0]) {
        (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
    }
}

/// A unit vector that is orthogonal to `vectors`, fewer than `length` orthonormal ones.
fn beside(vectors: &[Vec<f64>], length: usize) -> Vec<f64> {
    let rest = |i: usize| {
        let mut rest = basis(length, i);
        // Twice: the first time leaves rounding errors.
        for vector in vectors.iter().chain(vectors) {
            let along = dot(&rest, vector);
            rest.iter_mut().zip(vector).for_each(|(x, y)| *x -= along * y);
        }
        let square = dot(&rest, &rest);
        (square, rest)
    };
    // What is left of all unit vectors has a total square of at least 1, so one of them has its share.
    let share = 0.5 / length as f64;
    let found = (0..length).map(rest).find(|(square, _)| *square >= share);
    match found {
        Some((square, rest)) => rest.iter().map(|x| x / square.sqrt()).collect(),
        None => basis(length, 0),
    }
}

/// The unit vector along axis `i`.
fn basis(length: usize, i: usize) -> Vec<f64> {
    (0..length).map(|j| f64::from(u8::from(i == j))).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, Distribution};

    use super::*;

    fn greatest<const D: usize>(x: Tensor<D>) -> f64 {
        x.abs().max().into_scalar::<f64>()
    }

    /// Whether the factors give the matrix, U and V are orthonormal and S descends.
    fn check(matrix: Tensor<2>, tolerance: f64) {
        let (u, s, vt) = svd(matrix.clone());
        let k = s.dims()[0];
        let size = greatest(matrix.clone()).max(f64::MIN_POSITIVE);
        let again = (u.clone() * s.clone().unsqueeze_dim::<2>(0)).matmul(vt.clone());
        assert!(greatest(again - matrix.clone()) <= tolerance * size);
        let eye = Tensor::<2>::eye(k, &matrix.device()).cast(matrix.dtype());
        assert!(greatest(u.clone().transpose().matmul(u) - eye.clone()) <= tolerance);
        assert!(greatest(vt.clone().matmul(vt.transpose()) - eye) <= tolerance);
        let values: Vec<f64> = s.into_data().iter::<f64>().collect();
        assert!(values.is_sorted_by(|a, b| a >= b) && values.iter().all(|value| *value >= 0.0));
    }

    #[test]
    fn factors_are_orthonormal_and_give_the_matrix() {
        let device = Device::flex();
        let random =
            |m: usize, n: usize| Tensor::<2>::random([m, n], Distribution::Normal(0.0, 1.0), &device).cast(DType::F64);
        let eye = |n: usize| Tensor::<2>::eye(n, &device).cast(DType::F64);
        let low = random(9, 2).matmul(random(2, 12));
        let blocks = Tensor::cat(vec![eye(4), eye(4).mul_scalar(-3.0)], 0);
        for matrix in [
            random(7, 5),
            random(5, 7),
            random(1, 6),
            low.clone(),
            low.mul_scalar(1e-200),
            eye(6),
            blocks,
            Tensor::zeros([4, 3], (&device, DType::F64)),
        ] {
            check(matrix, 1e-12);
        }
        check(random(8, 8).cast(DType::F32), 1e-5);
    }
}
