//! The methods, one file each. A method has a config, the factors that it trains (a Burn `Module`) and
//! what one forward pass binds to a site.

pub mod lora;
pub mod wegeft;

use burn::module::{Module, Reparameterization};
use burn::tensor::Tensor;

use lora::{BoundLora, Lora};
use wegeft::{BoundWegeft, Wegeft};

/// The trainable factors of one group of sites.
#[derive(Module, Debug)]
pub enum Factors {
    /// See [`wegeft`].
    Wegeft(Wegeft),
    /// See [`lora`].
    Lora(Lora),
}

impl Factors {
    /// What a forward pass attaches to each site of the group: handles to the factors, no copy.
    pub fn bind(&self) -> Bound {
        match self {
            Self::Wegeft(factors) => Bound::Wegeft(factors.bind()),
            Self::Lora(factors) => Bound::Lora(factors.bind()),
        }
    }
}

/// The factors as one bound site sees them, for the time of one forward pass.
#[derive(Module, Debug)]
pub enum Bound {
    /// See [`wegeft`].
    Wegeft(BoundWegeft),
    /// See [`lora`].
    Lora(BoundLora),
}

impl Bound {
    /// `x W'` in activation space. `x`: `[n, d_in]`, `weight` (the stored one): `[d_in, d_out]`, result `[n, d_out]`.
    pub fn matmul(&self, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Wegeft(bound) => bound.matmul(x, weight),
            Self::Lora(bound) => bound.matmul(x, weight),
        }
    }

    /// The residual `W' - W`, `[d_in, d_out]`.
    pub fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Wegeft(bound) => bound.residual(weight),
            Self::Lora(bound) => bound.residual(),
        }
    }
}

impl Bound {
    /// The residual as LoRA factors in PyTorch's layout: (A `[r, d_in]`, B `[d_out, r]`).
    pub(crate) fn as_lora(&self, weight: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        match self {
            Self::Wegeft(bound) => bound.as_lora(weight),
            Self::Lora(bound) => bound.as_lora(),
        }
    }
}

impl Reparameterization for Bound {
    const NAME: &'static str = "wegeft";

    // Burn reads `Param::val()` through this: the weight-space route that needs no change in the model.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let shape = base.shape();
        let [d_in, d_out] = [shape[0], shape[1]];
        let residual = self.residual(base.clone().reshape([d_in, d_out]));
        base + residual.reshape(shape)
    }
}
