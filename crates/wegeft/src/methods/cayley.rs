//! Block-diagonal orthogonal matrices made from skew-symmetric ones, with which OFT and BOFT rotate channels.

use burn::tensor::{DType, Distribution, Int, Tensor, TensorData};

use crate::linalg;

/// The skew-symmetric matrices `[blocks, size, size]` whose upper triangles, row by row, are the rows of `upper`,
/// `[blocks, size·(size-1)/2]`.
pub(super) fn skew_from_upper(upper: Tensor<2>, size: usize) -> Tensor<3> {
    let [blocks, _] = upper.dims();
    let device = upper.device();
    // Index among the pairs row < column, row by row.
    let pair = |row: usize, column: usize| row * size - row * (row + 1) / 2 + column - row - 1;
    let cells = (0..size).flat_map(|row| (0..size).map(move |column| (row, column)));
    let (places, signs): (Vec<i64>, Vec<f32>) = cells
        .map(|(row, column)| match row.cmp(&column) {
            std::cmp::Ordering::Less => (pair(row, column) as i64, 1.0),
            std::cmp::Ordering::Equal => (0, 0.0),
            std::cmp::Ordering::Greater => (pair(column, row) as i64, -1.0),
        })
        .unzip();
    let places = Tensor::<1, Int>::from_data(TensorData::new(places, [size * size]), &device);
    let signs = Tensor::<2>::from_data(TensorData::new(signs, [1, size * size]), (&device, upper.dtype()));
    (upper.select(1, places) * signs).reshape([blocks, size, size])
}

/// `(M - Mᵀ) / 2`, `[blocks, size, size]`.
pub(super) fn skew_part(matrices: Tensor<3>) -> Tensor<3> {
    (matrices.clone() - matrices.swap_dims(1, 2)).mul_scalar(0.5)
}

/// Cayley's transform `(I - Q)(I + Q)⁻¹` of skew-symmetric matrices: orthogonal.
pub(super) fn cayley(skew: Tensor<3>) -> Tensor<3> {
    let identity = identity(&skew);
    (identity.clone() - skew.clone()).matmul(inverse(identity + skew))
}

/// The first terms of the Neumann series of the transform of -Q, `(I + Q)(I - Q)⁻¹ = I + 2Q + 2Q² + …`, summed as in PEFT:
/// from the third term on, the last power has the coefficient 1, and 3 and 4 terms give the same sum.
pub(super) fn cayley_neumann(skew: Tensor<3>, terms: usize) -> Tensor<3> {
    let mut sum = identity(&skew);
    if terms > 1 {
        sum = sum + skew.clone().mul_scalar(2.0);
    }
    if terms > 2 {
        let mut power = skew.clone().matmul(skew.clone());
        sum = sum + power.clone().mul_scalar(2.0);
        for _ in 3..terms - 1 {
            power = power.matmul(skew.clone());
            sum = sum + power.clone().mul_scalar(2.0);
        }
        sum = sum + power.matmul(skew);
    }
    sum
}

/// In training, replaces a share `p` of the blocks `[blocks, size, size]`, drawn anew each time, by the identity. Where that is
/// no whole number of blocks, the number is drawn, so that `p` is the share on average; PEFT rounds it down and never drops a
/// single block, so that it drops nothing from few blocks.
fn block_dropout(blocks: Tensor<3>, p: f64) -> Tensor<3> {
    let (device, [count, _, _]) = (blocks.device(), blocks.dims());
    if p == 0.0 || !device.is_autodiff() {
        return blocks;
    }
    let uniform = |count| Tensor::<1>::random([count], Distribution::Uniform(0.0, 1.0), &device);
    let replaced = p * count as f64;
    let (least, rest) = (replaced.floor() as i64, replaced.fract());
    let order = uniform(count).argsort(0);
    // On the device: reading the number would wait for it in each layer.
    let mask = match rest > 0.0 {
        true => order.lower((uniform(1).add_scalar(rest).floor().int() + least).expand([count])),
        false => order.lower_elem(least),
    };
    let mask = mask.reshape([count, 1, 1]).expand(blocks.dims());
    let identity = identity(&blocks).expand(blocks.dims());
    blocks.mask_where(mask, identity)
}

/// `[1, size, size]`
fn identity(matrices: &Tensor<3>) -> Tensor<3> {
    let [_, size, _] = matrices.dims();
    Tensor::<2>::eye(size, &matrices.device())
        .cast(matrices.dtype())
        .unsqueeze::<3>()
}

/// The inverses of matrices whose symmetric part is positive definite, so that no pivot is 0, such as I + Q. They are
/// computed on the CPU; the gradient is that of one Newton step, `2X - X A X`, which at X = A⁻¹ equals A⁻¹ and has the same
/// derivative.
fn inverse(matrices: Tensor<3>) -> Tensor<3> {
    let [blocks, size, _] = matrices.dims();
    let (device, dtype) = (matrices.device(), matrices.dtype());
    let data = matrices.clone().detach().into_data().convert_dtype(DType::F64);
    let mut values: Vec<f64> = data.iter::<f64>().collect();
    for block in values.chunks_exact_mut(size * size) {
        invert(block, size);
    }
    let data = TensorData::new(values, [blocks, size, size]).convert_dtype(dtype);
    let found = Tensor::<3>::from_data(data, (&device, dtype));
    found.clone().mul_scalar(2.0) - found.clone().matmul(matrices).matmul(found)
}

/// Gauss-Jordan elimination in place, without pivoting.
fn invert(matrix: &mut [f64], size: usize) {
    for pivot in 0..size {
        let scale = 1.0 / matrix[pivot * size + pivot];
        matrix[pivot * size + pivot] = 1.0;
        for column in 0..size {
            matrix[pivot * size + column] *= scale;
        }
        for row in (0..size).filter(|row| *row != pivot) {
            let factor = std::mem::replace(&mut matrix[row * size + pivot], 0.0);
            for column in 0..size {
                matrix[row * size + column] -= factor * matrix[pivot * size + column];
            }
        }
    }
}

/// A block-diagonal matrix R, with channels shuffled before it and unshuffled after it.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    /// `[blocks, size, size]`
    blocks: Tensor<3>,
    shuffle: Option<Shuffle>,
}

impl Turn {
    pub(super) fn new(blocks: Tensor<3>) -> Self {
        Self { blocks, shuffle: None }
    }

    /// With channels shuffled: within each `group` of them, the odd pieces of `piece` channels come after the even ones.
    pub(super) fn shuffled(mut self, group: usize, piece: usize) -> Self {
        self.shuffle = Some(Shuffle { group, piece });
        self
    }

    /// With [`block_dropout`].
    pub(super) fn dropped(&self, p: f64) -> Self {
        Self {
            blocks: block_dropout(self.blocks.clone(), p),
            shuffle: self.shuffle,
        }
    }

    pub(super) fn dtype(&self) -> DType {
        self.blocks.dtype()
    }

    /// `x R`, `[n, d]`.
    pub(super) fn columns(&self, x: Tensor<2>) -> Tensor<2> {
        let [n, d] = x.dims();
        let [blocks, size, _] = self.blocks.dims();
        let x = self.taken(x, 1).reshape([n, blocks, size]).swap_dims(0, 1);
        let turned = x.matmul(self.blocks.clone()).swap_dims(0, 1).reshape([n, d]);
        self.given_back(turned, 1)
    }

    /// `R W`, `[d, columns]`.
    pub(super) fn rows(&self, weight: Tensor<2>) -> Tensor<2> {
        let [d, columns] = weight.dims();
        let [blocks, size, _] = self.blocks.dims();
        let weight = self.taken(weight, 0).reshape([blocks, size, columns]);
        let turned = self.blocks.clone().matmul(weight).reshape([d, columns]);
        self.given_back(turned, 0)
    }

    /// Rᵀ
    pub(super) fn transposed(&self) -> Self {
        Self {
            blocks: self.blocks.clone().swap_dims(1, 2),
            shuffle: self.shuffle,
        }
    }

    /// R⁻¹; `None` if a block is singular.
    pub(super) fn inverse(&self) -> Option<Self> {
        let [count, size, _] = self.blocks.dims();
        let block = |index: usize| self.blocks.clone().narrow(0, index, 1).reshape([size, size]);
        let inverses = (0..count).map(|index| Some(linalg::inverse(block(index))?.unsqueeze::<3>()));
        Some(Self {
            blocks: Tensor::cat(inverses.collect::<Option<Vec<Tensor<3>>>>()?, 0),
            shuffle: self.shuffle,
        })
    }

    /// `x` from the shuffled order to that of the blocks, along `dim`.
    fn taken(&self, x: Tensor<2>, dim: usize) -> Tensor<2> {
        match self.shuffle {
            Some(shuffle) => shuffle.transposed(x, dim, |pieces| [2, pieces / 2]),
            None => x,
        }
    }

    /// The inverse of [`Turn::taken`].
    fn given_back(&self, x: Tensor<2>, dim: usize) -> Tensor<2> {
        match self.shuffle {
            Some(shuffle) => shuffle.transposed(x, dim, |pieces| [pieces / 2, 2]),
            None => x,
        }
    }
}

/// A shuffle of channels: within each group of `group`, pieces of `piece` channels.
#[derive(Debug, Clone, Copy)]
struct Shuffle {
    group: usize,
    piece: usize,
}

impl Shuffle {
    /// `x` with the pieces of each group, as a matrix of the given shape, transposed.
    fn transposed(self, x: Tensor<2>, dim: usize, shape: fn(usize) -> [usize; 2]) -> Tensor<2> {
        let dims = x.dims();
        let [rows, columns] = shape(self.group / self.piece);
        // What lies before and after the channels of a piece.
        let (before, after) = if dim == 0 { (1, dims[1]) } else { (dims[0], 1) };
        let groups = before * dims[dim] / self.group;
        let pieces = x.reshape([groups, rows, columns, self.piece * after]);
        pieces.swap_dims(1, 2).reshape(dims)
    }
}
