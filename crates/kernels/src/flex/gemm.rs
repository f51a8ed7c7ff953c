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

fn check(len: usize, size: [usize; 2], strides: [usize; 2]) {
    if size[0] > 0 && size[1] > 0 {
        let last = (size[0] - 1) * strides[0] + (size[1] - 1) * strides[1];
        assert!(
            last < len,
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
/// Sizes that do not match.
pub fn append_product(out: &mut Writer, lhs: Mat, rhs: Mat, cores: Cores) {
    let (rows, columns) = (lhs.size[0], rhs.size[1]);
    // SAFETY: `append` provides room for rows x columns elements (it panics if there is none), and without `keep` gemm reads
    // none of them and writes all of them: also for a depth of 0, where it writes zeros.
    unsafe {
        out.append(rows * columns, |out| {
            multiply(out, columns, lhs, rhs, 1.0, false, cores)
        });
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
