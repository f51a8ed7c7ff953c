//! A linear layer whose input is edited by a low-rank pair: WeGeFT's input form.

use burn::tensor::Tensor;

use crate::{linear, linear_add};

/// The edit `x + scale·(x psiᵀ) phiᵀ` of a representation (WeGeFT, arXiv 2312.00700: `W (I + s·phi·psi)` read from the
/// other side).
#[derive(Debug, Clone)]
pub struct InputEdit {
    /// `[d_in, r]`
    pub phi: Tensor<2>,
    /// `[r, d_in]`
    pub psi: Tensor<2>,
    /// s
    pub scale: f64,
}

impl InputEdit {
    /// The edited `x`, `[n, d_in]`. The factors have the type of `x`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        // The scale goes on the small tensor, [n, r], not on [n, d_in].
        let code = x.clone().matmul(self.psi.clone().transpose()).mul_scalar(self.scale);
        x + code.matmul(self.phi.clone().transpose())
    }
}

/// `residual + (x + scale·(x psiᵀ) phiᵀ) W + b`. `x`: `[n, d_in]`, `weight`: `[d_in, d_out]`, `bias`: `[d_out]`,
/// `residual` and result: `[n, d_out]`.
///
/// One pass over `x`: the edited input is never a tensor. The backward pass keeps `x` and the code `[n, r]`, and forms
/// no gradient that nothing asks for; at the first adapted layer, where that of `x` is one of those, it has no product
/// that grows with n·d_in·d_out.
pub fn input_form(
    x: Tensor<2>,
    edit: InputEdit,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<2>>,
) -> Tensor<2> {
    // Of a few rows, the time is that of reading the weight, which `linear` does on all cores.
    #[cfg(feature = "flex")]
    if x.dims()[0] > crate::flex::linear::FEW && [&x, &edit.phi, &edit.psi, &weight].into_iter().all(crate::flex::takes)
    {
        return crate::flex::input_form::input_form(x, edit, weight, bias, residual);
    }
    let x = edit.forward(x);
    match residual {
        Some(residual) => linear_add(x, weight, bias, residual),
        None => linear(x, weight, bias),
    }
}
