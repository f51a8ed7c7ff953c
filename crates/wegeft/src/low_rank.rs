//! A residual as LoRA stores it, whatever method it came from.

use burn::tensor::{Int, Tensor};

use crate::tensor::{cast, for_products};

/// `W' - W = scale · B A` in PyTorch's orientation; `y += scale · (x Aᵀ) Bᵀ`.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// `[r, d_in]`
    pub a: Tensor<2>,
    /// `[d_out, r]`
    pub b: Tensor<2>,
    /// s
    pub scale: f64,
}

impl LowRank {
    /// What the residual adds to the output: `x` of `[n, d_in]` to `[n, d_out]`, in the type of `x`.
    pub fn forward(self, x: Tensor<2>) -> Tensor<2> {
        let dtype = x.dtype();
        let x = for_products(x);
        let (a, b) = (cast(self.a, x.dtype()), cast(self.b, x.dtype()));
        // The scale goes on the small tensor, [n, r].
        let code = x.matmul(a.transpose()).mul_scalar(self.scale);
        cast(code.matmul(b.transpose()), dtype)
    }

    /// Rows `ids` (`[n]`) of the residual of an embedding's table, `[n, d_model]`. Its d_in is the vocabulary.
    pub(crate) fn rows(self, ids: Tensor<1, Int>) -> Tensor<2> {
        let code = self.a.select(1, ids).transpose().mul_scalar(self.scale);
        code.matmul(self.b.transpose())
    }

    /// The dense residual in Burn's layout, `[d_in, d_out]`.
    pub fn dense(self) -> Tensor<2> {
        self.a.transpose().mul_scalar(self.scale).matmul(self.b.transpose())
    }
}
