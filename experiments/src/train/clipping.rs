//! Clipping by the norm over all gradients. Burn's own clipping treats each tensor separately.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};

/// `grads` scaled so that the norm over all of them, `known` or computed here, is at most `max_norm`, as in PyTorch's
/// `clip_grad_norm_`; unchanged if `max_norm` is 0.
pub fn clipped<M: Module>(
    module: &M,
    grads: GradientsParams,
    known: Option<Tensor<1>>,
    max_norm: f64,
) -> GradientsParams {
    if max_norm <= 0.0 {
        return grads;
    }
    // Stays on the device, so that no step has to wait for its value.
    let Some(total) = known.or_else(|| norm(module, &grads)) else {
        return grads;
    };
    let factor = total.add_scalar(1e-6).recip().mul_scalar(max_norm).clamp_max(1.0);
    scaled(module, grads, factor)
}

/// The norm over all of `grads`, a tensor of one element; none if there is no gradient.
pub fn norm<M: Module>(module: &M, grads: &GradientsParams) -> Option<Tensor<1>> {
    let mut norm = Norm {
        grads,
        squares: Vec::new(),
    };
    module.visit(&mut norm);
    (!norm.squares.is_empty()).then(|| Tensor::cat(norm.squares, 0).sum().sqrt())
}

/// True if the gradients of that norm are all finite; waits for the device once.
pub fn is_finite(norm: Option<&Tensor<1>>) -> bool {
    norm.is_none_or(|norm| norm.clone().into_scalar::<f32>().is_finite())
}

/// `grads` times `factor`, a tensor of one element.
pub fn scaled<M: Module>(module: &M, grads: GradientsParams, factor: Tensor<1>) -> GradientsParams {
    let mut scale = Scale {
        from: grads,
        to: GradientsParams::new(),
        factor,
    };
    module.visit(&mut scale);
    scale.to
}

struct Norm<'a> {
    grads: &'a GradientsParams,
    squares: Vec<Tensor<1>>,
}

impl ModuleVisitor for Norm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.squares.push(grad.cast(DType::F32).square().sum());
        }
    }
}

struct Scale {
    from: GradientsParams,
    to: GradientsParams,
    factor: Tensor<1>,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.from.remove::<D>(param.id) {
            let factor = self.factor.clone().cast(grad.dtype()).unsqueeze::<D>();
            self.to.register(param.id, grad * factor);
        }
    }
}
