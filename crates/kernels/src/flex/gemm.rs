//! Matrix products of strided views, by the `gemm` crate (chosen by measurement, see the README).
#![allow(unsafe_code)]

use super::memory::Writer;

/// A matrix inside a slice.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a, T = f32> {
    data: &'a [T],
    size: [usize; 2],
    strides: [usize; 2],
}

impl<'a, T> Mat<'a, T> {
    /// A matrix of `size` rows and columns, `strides` elements apart.
    ///
    /// # Panics
    /// The matrix reaches beyond `data`.
    pub fn new(data: &'a [T], size: [usize; 2], strides: [usize; 2]) -> Self {
        check(data.len(), size, strides);
        Self { data, size, strides }
    }

    /// A row-major matrix.
    pub fn rows(data: &'a [T], size: [usize; 2]) -> Self {
        Self::new(data, size, [size[1], 1])
    }

    /// The transposed view.
    pub fn t(self) -> Self {
        Self {
            data: self.data,
            size: [self.size[1], self.size[0]],
            strides: [self.strides[1], self.strides[0]],
        }
    }

    /// Rows and columns.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// `len` elements of row `row` from column `from` on, of a matrix with contiguous rows.
    #[inline(always)]
    pub fn part_of_row(&self, row: usize, from: usize, len: usize) -> &'a [T] {
        &self.data[row * self.strides[0] + from..][..len]
    }

    /// The block of `size` rows and columns that starts at row and column `from`.
    pub fn block(self, from: [usize; 2], size: [usize; 2]) -> Self {
        let start = from[0] * self.strides[0] + from[1] * self.strides[1];
        Self::new(&self.data[start.min(self.data.len())..], size, self.strides)
    }
}

impl Mat<'_> {
    /// Copies the first column into `out`, which has the same length.
    pub fn copy_column(&self, out: &mut [f32]) {
        for (row, out) in out.iter_mut().enumerate() {
            *out = self.data[row * self.strides[0]];
        }
    }
}

/// Checks that every element of a matrix lies in a slice of `len`. The arithmetic is checked, whatever the build's settings: gemm
/// reads and writes what passes here.
fn check(len: usize, size: [usize; 2], strides: [usize; 2]) {
    if size[0] > 0 && size[1] > 0 {
        let along = |dim: usize| (size[dim] - 1).checked_mul(strides[dim]);
        let last = along(0)
            .zip(along(1))
            .and_then(|(rows, columns)| rows.checked_add(columns));
        assert!(
            last.is_some_and(|last| last < len),
            "a matrix of {size:?}, strides {strides:?}, in {len} elements"
        );
    }
}

/// The threads that compute one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cores {
    /// The calling thread.
    One,
    /// Every thread of the pool.
    All,
}

/// Appends `lhs·rhs` to `out`, row-major.
///
/// # Panics
/// Sizes that do not match; no room for the product.
pub fn append_product(out: &mut Writer, lhs: Mat, rhs: Mat, cores: Cores) {
    let (rows, columns) = (lhs.size[0], rhs.size[1]);
    let Some(len) = rows.checked_mul(columns) else {
        panic!("a product of {rows} rows and {columns} columns");
    };
    // SAFETY: `append` provides room for rows x columns elements (it panics if there is none), and without `keep` gemm reads
    // none of them and writes all of them: also for a depth of 0, where it writes zeros.
    unsafe {
        out.append(len, |out| multiply(out, columns, lhs, rhs, 1.0, false, cores));
    }
}

/// `out = scale·lhs·rhs`, plus the old `out` if `keep`. `out` is row-major with `stride` elements from row to row.
///
/// # Panics
/// Sizes that do not match.
pub fn product(out: &mut [f32], stride: usize, lhs: Mat, rhs: Mat, scale: f32, keep: bool, cores: Cores) {
    let (rows, columns) = (lhs.size[0], rhs.size[1]);
    assert!(columns <= stride, "rows of {columns} elements, {stride} apart");
    check(out.len(), [rows, columns], [stride, 1]);
    // SAFETY: `check` holds for `out`, whose rows do not overlap (columns <= stride).
    unsafe { multiply(out.as_mut_ptr(), stride, lhs, rhs, scale, keep, cores) };
}

/// # Safety
/// `out` points to as many rows as `lhs` has, `stride` elements apart and at least as long as `rhs` has columns, which
/// nothing else reads or writes; with `keep` they are initialized.
unsafe fn multiply(out: *mut f32, stride: usize, lhs: Mat, rhs: Mat, scale: f32, keep: bool, cores: Cores) {
    let ([rows, depth], [depth_of_rhs, columns]) = (lhs.size, rhs.size);
    assert!(depth == depth_of_rhs, "{:?} times {:?}", lhs.size, rhs.size);
    let parallelism = match cores {
        Cores::One => gemm::Parallelism::None,
        Cores::All => gemm::Parallelism::Rayon(0),
    };
    // SAFETY: `check` passed for both inputs (in `Mat::new`), so every index that gemm computes lies in their slices, and
    // the caller vouches for `out`; the strides of existing slices fit an isize.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            out,
            1,
            stride as isize,
            keep,
            lhs.data.as_ptr(),
            lhs.strides[1] as isize,
            lhs.strides[0] as isize,
            rhs.data.as_ptr(),
            rhs.strides[1] as isize,
            rhs.strides[0] as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::par_fill;
    use super::*;

    /// `lhs·rhs` by [`append_product`], in memory that held sevens before.
    fn appended(lhs: Mat, rhs: Mat) -> Vec<f32> {
        let len = lhs.size()[0] * rhs.size()[1];
        drop(std::hint::black_box(vec![7.0f32; len]));
        par_fill(len, len, |_, out| append_product(out, lhs, rhs, Cores::One))
    }

    #[test]
    fn a_product_without_depth_is_zeros() {
        for (rows, columns) in [(1, 1), (3, 5), (16, 64)] {
            let (lhs, rhs) = (Mat::rows(&[], [rows, 0]), Mat::rows(&[], [0, columns]));
            assert_eq!(appended(lhs, rhs), vec![0.0; rows * columns]);
            let mut out = vec![7.0; rows * columns];
            product(&mut out, columns, lhs, rhs, 1.0, true, Cores::One);
            assert_eq!(out, vec![7.0; rows * columns]);
            product(&mut out, columns, lhs, rhs, 1.0, false, Cores::One);
            assert_eq!(out, vec![0.0; rows * columns]);
        }
    }

    #[test]
    fn a_product_without_rows_or_columns_touches_nothing() {
        for (rows, columns) in [(0, 3), (3, 0), (0, 0)] {
            let (lhs, rhs) = ([1.0; 6], [1.0; 6]);
            let (lhs, rhs) = (Mat::rows(&lhs, [rows, 2]), Mat::rows(&rhs, [2, columns]));
            let mut out = [7.0; 4];
            product(&mut out, columns.max(1), lhs, rhs, 1.0, false, Cores::One);
            assert_eq!(out, [7.0; 4]);
        }
    }

    #[test]
    fn one_element_and_rows_apart() {
        assert_eq!(appended(Mat::rows(&[3.0], [1, 1]), Mat::rows(&[4.0], [1, 1])), [12.0]);
        // Between rows of two elements, four apart, nothing is written.
        let (lhs, rhs) = ([1.0, 2.0], [10.0, 20.0]);
        let mut out = [7.0; 6];
        product(
            &mut out,
            4,
            Mat::rows(&lhs, [2, 1]),
            Mat::rows(&rhs, [1, 2]),
            0.5,
            false,
            Cores::One,
        );
        assert_eq!(out, [5.0, 10.0, 7.0, 7.0, 10.0, 20.0]);
    }

    #[test]
    #[should_panic(expected = "in 5 elements")]
    fn an_output_that_is_too_short_is_refused() {
        let (lhs, rhs) = ([1.0; 2], [1.0; 2]);
        let mut out = [0.0; 5];
        product(
            &mut out,
            4,
            Mat::rows(&lhs, [2, 1]),
            Mat::rows(&rhs, [1, 2]),
            1.0,
            false,
            Cores::One,
        );
    }

    #[test]
    #[should_panic(expected = "3 elements, 2 apart")]
    fn rows_that_overlap_are_refused() {
        let (lhs, rhs) = ([1.0; 2], [1.0; 3]);
        let mut out = [0.0; 6];
        product(
            &mut out,
            2,
            Mat::rows(&lhs, [2, 1]),
            Mat::rows(&rhs, [1, 3]),
            1.0,
            false,
            Cores::One,
        );
    }

    /// Offsets that overflow would pass for small ones.
    #[test]
    fn sizes_that_overflow_are_refused() {
        for (size, strides) in [
            ([2, 1], [usize::MAX, 1]),
            ([3, 1], [usize::MAX / 2 + 1, 1]),
            ([2, 2], [usize::MAX, 1]),
            ([usize::MAX, 2], [2, 1]),
        ] {
            let refused = std::panic::catch_unwind(|| Mat::new(&[1.0f32; 4], size, strides));
            assert!(refused.is_err(), "{size:?}, {strides:?}");
        }
        // Matrices without elements may have any number of rows.
        let (lhs, rhs) = (Mat::rows(&[], [1 << 40, 0]), Mat::rows(&[], [0, 1 << 40]));
        let refused = std::panic::catch_unwind(|| par_fill(1, 1, |_, out| append_product(out, lhs, rhs, Cores::One)));
        assert!(refused.is_err());
    }
}
