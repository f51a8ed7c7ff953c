//! A linear layer whose input is edited by a low-rank pair: WeGeFT's input form.

use burn::tensor::Tensor;

use crate::linear::{check, check_residual};
use crate::{linear, linear_add};

/// The edit `x + scale·(x psiᵀ) phiᵀ` of a representation: WeGeFT's `W (I + s·phi·psi)` (arXiv 2312.00700), applied to the
/// input instead of the weight.
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
    /// The edited `x`, `[n, d_in]`. The factors have the dtype of `x`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        // Scale the small tensor, [n, r], rather than [n, d_in].
        let code = x.clone().matmul(self.psi.clone().transpose()).mul_scalar(self.scale);
        x + code.matmul(self.phi.clone().transpose())
    }
}

/// `residual + (x + scale·(x psiᵀ) phiᵀ) W + b`. `x`: `[n, d_in]`, `weight`: `[d_in, d_out]`, `bias`: `[d_out]`,
/// `residual` and result: `[n, d_out]`.
///
/// One pass over `x`: the edited input is never materialized. `x` and `x psiᵀ`, `[n, r]`, are saved for backward, and
/// gradients that nothing requires are not computed. At the first adapted layer `x` requires none: no product of its
/// backward pass grows with n·d_in·d_out.
///
/// # Panics
/// As [`linear_add`]; also if `phi` or `psi` does not match `x` in shape or dtype.
#[track_caller]
pub fn input_form(
    x: Tensor<2>,
    edit: InputEdit,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<2>>,
) -> Tensor<2> {
    let operands = check("input_form", &x, &weight, bias.as_ref());
    let ([_, d_in], [_, r]) = (x.dims(), edit.phi.dims());
    operands
        .same("phi", &edit.phi)
        .shape("phi", &edit.phi.dims(), &[d_in, r], "[d_in, r]")
        .same("psi", &edit.psi)
        .shape("psi", &edit.psi.dims(), &[r, d_in], "[r, d_in]");
    let residual = residual.map(|residual| {
        check_residual(&operands, &residual, &x, &weight);
        residual.cast(x.dtype())
    });
    // With few rows the time goes into reading the weight, which `linear` does on all cores.
    #[cfg(feature = "flex")]
    if x.dims()[0] > crate::flex::linear::SKINNY_ROWS
        && [&x, &edit.phi, &edit.psi, &weight]
            .into_iter()
            .all(crate::flex::supports)
    {
        return crate::flex::input_form::input_form(x, edit, weight, bias, residual);
    }
    let x = edit.forward(x);
    match residual {
        Some(residual) => linear_add(x, weight, bias, residual),
        None => linear(x, weight, bias),
    }
}
