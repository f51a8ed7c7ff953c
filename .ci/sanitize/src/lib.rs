//! The modules with unsafe code, and tests that reach every unsafe block of them.

#[path = "../../../crates/kernels/src/flex/gemm.rs"]
pub mod gemm;
#[path = "../../../crates/kernels/src/flex/memory.rs"]
pub mod memory;
#[path = "../../../crates/kernels/src/flex/prefetch.rs"]
pub mod prefetch;

#[cfg(test)]
mod tests {
    use crate::gemm::{Cores, Mat, append_product, product};
    use crate::memory::par_fill;
    use crate::prefetch::prefetch;

    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|index| ((index * 37) % 17) as f32 - 8.0).collect()
    }

    fn expected(a: &[f32], b: &[f32], [rows, depth, columns]: [usize; 3]) -> Vec<f32> {
        let of = |row: usize, column: usize| (0..depth).map(|k| a[row * depth + k] * b[k * columns + column]).sum();
        (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))).map(|(row, column)| of(row, column)).collect()
    }

    /// Sizes that end inside vectors and tiles, none, and one. Under Miri, which takes a thousand times as long, smaller ones.
    const SIZES: &[[usize; 3]] = match cfg!(miri) {
        false => &[
            [1, 1, 1], [3, 5, 7], [17, 1, 33], [1, 64, 9], [31, 33, 65], [2, 0, 3], [0, 4, 4], [4, 4, 0], [70, 3, 40],
            [90, 80, 100],
        ],
        true => &[
            [1, 1, 1], [3, 5, 7], [17, 1, 5], [1, 9, 9], [9, 3, 13], [2, 0, 3], [0, 4, 4], [4, 4, 0],
        ],
    };

    #[test]
    fn products_read_and_write_what_is_theirs() {
        // Every product is split among the threads that may compute it, also a small one.
        gemm::set_threading_threshold(0);
        for &[rows, depth, columns] in SIZES {
            let (a, b) = (values(rows * depth), values(depth * columns));
            let wanted = expected(&a, &b, [rows, depth, columns]);
            let (lhs, rhs) = (Mat::rows(&a, [rows, depth]), Mat::rows(&b, [depth, columns]));
            for cores in [Cores::One, Cores::All] {
                let new = par_fill(rows * columns, (rows * columns).max(1), |_, out| append_product(out, lhs, rhs, cores));
                assert_eq!(new, wanted);
                // Rows farther apart than they are long, and kept.
                let stride = columns + 3;
                let mut out = vec![1.0; rows * stride];
                product(&mut out, stride.max(1), lhs, rhs, 2.0, true, cores);
                for (row, values) in out.chunks(stride).enumerate() {
                    for (column, value) in values.iter().enumerate() {
                        let sum = if column < columns { 2.0 * wanted[row * columns + column] } else { 0.0 };
                        assert_eq!(*value, 1.0 + sum);
                    }
                }
            }
            let turned = par_fill(rows * columns, (rows * columns).max(1), |_, out| {
                append_product(out, rhs.t(), lhs.t(), Cores::One);
            });
            let back = |index: usize| wanted[(index % rows) * columns + index / rows];
            assert_eq!(turned, (0..rows * columns).map(back).collect::<Vec<_>>());
        }
    }

    #[test]
    fn parts_are_written_by_all_cores_and_read_back() {
        let len = if cfg!(miri) { 60 } else { 1000 };
        let filled = par_fill(len, 7, |index, out| {
            let part = vec![index as f32; out.capacity()];
            out.copy(&part);
            assert!(out.written().iter().all(|value| *value == index as f32));
        });
        assert!(filled.iter().enumerate().all(|(at, value)| *value == (at / 7) as f32));
    }

    #[test]
    fn prefetching_beyond_everything_does_nothing() {
        for bytes in [0, 64, 1 << 20, usize::MAX / 2] {
            prefetch(&0.0_f32, bytes);
        }
    }
}
