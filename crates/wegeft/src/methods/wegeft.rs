//! WeGeFT (Weight-Generative Fine-Tuning, ICML 2025, arXiv 2312.00700), input side:
//! `W' = W (I + s·phi·psi)` for `W` of shape d_out × d_in.
//!
//! In Burn's row layout (`y = x W`, `W` of `[d_in, d_out]`) that is `y = (x + s·(x psiᵀ) phiᵀ) W`: the frozen
//! weight is used once, as it is, and no term of the adapter grows with d_in·d_out.

use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use serde::{Deserialize, Serialize};

use crate::config::Sharing;

/// Which factor starts at zero, so that the adapted model starts as the frozen one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZeroFactor {
    /// phi = 0: the reference's language code (PEFT fork).
    Phi,
    /// psi = 0: the reference's vision code.
    #[default]
    Psi,
}

/// Settings of WeGeFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WegeftConfig {
    /// Rank of phi and psi.
    pub r: usize,
    /// Numerator of the scale s = alpha / r. `alpha = r` (s = 1) is the reference's vision code.
    pub alpha: f64,
    /// The factor that starts at zero.
    #[serde(default)]
    pub zero_factor: ZeroFactor,
    /// Which sites share (phi, psi).
    #[serde(default)]
    pub sharing: Sharing,
}

impl WegeftConfig {
    /// Rank `r`, scale 1, psi = 0, one group per projection type.
    pub fn new(r: usize) -> Self {
        Self {
            r,
            alpha: r as f64,
            zero_factor: ZeroFactor::default(),
            sharing: Sharing::default(),
        }
    }

    /// Sets alpha.
    pub fn with_alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }

    /// Sets the zero factor.
    pub fn with_zero_factor(mut self, zero_factor: ZeroFactor) -> Self {
        self.zero_factor = zero_factor;
        self
    }

    /// Sets the sharing.
    pub fn with_sharing(mut self, sharing: Sharing) -> Self {
        self.sharing = sharing;
        self
    }

    /// Makes the factors of one group with input size `d_in`. The random one is U(±1/√d_in)
    /// (Kaiming-uniform with a = √5), as in the reference.
    pub fn init(&self, d_in: usize, device: &Device) -> Wegeft {
        let bound = 1.0 / (d_in as f64).sqrt();
        let random = Distribution::Uniform(-bound, bound);
        let (phi, psi) = match self.zero_factor {
            ZeroFactor::Psi => (
                Tensor::random([d_in, self.r], random, device),
                Tensor::zeros([self.r, d_in], device),
            ),
            ZeroFactor::Phi => (
                Tensor::zeros([d_in, self.r], device),
                Tensor::random([self.r, d_in], random, device),
            ),
        };
        Wegeft {
            phi: Param::from_tensor(phi),
            psi: Param::from_tensor(psi),
            scale: self.alpha / self.r as f64,
        }
    }
}

/// One generator: the pair (phi, psi) that a group of sites shares.
#[derive(Module, Debug)]
pub struct Wegeft {
    /// `[d_in, r]`
    pub phi: Param<Tensor<2>>,
    /// `[r, d_in]`
    pub psi: Param<Tensor<2>>,
    /// s = alpha / r
    pub scale: f64,
}

impl Wegeft {
    pub(crate) fn bind(&self) -> BoundWegeft {
        BoundWegeft {
            phi: self.phi.val(),
            psi: self.psi.val(),
            scale: self.scale,
        }
    }
}

/// (phi, psi) as a bound site sees them.
#[derive(Module, Debug)]
pub struct BoundWegeft {
    phi: Tensor<2>,
    psi: Tensor<2>,
    scale: f64,
}

impl BoundWegeft {
    /// The edited input `x + s·(x psiᵀ) phiᵀ`, `[n, d_in]`: WeGeFT seen as a representation edit.
    pub fn edit(&self, x: Tensor<2>) -> Tensor<2> {
        // The scale goes on the small tensor, [n, r], not on [n, d_in].
        let code = x.clone().matmul(self.psi.clone().transpose()).mul_scalar(self.scale);
        x + code.matmul(self.phi.clone().transpose())
    }

    pub(crate) fn matmul(&self, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        self.edit(x).matmul(weight)
    }

    /// `s·psiᵀ (phiᵀ W)`, `[d_in, d_out]`.
    pub(crate) fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        let generated = self.phi.clone().transpose().matmul(weight).mul_scalar(self.scale);
        self.psi.clone().transpose().matmul(generated)
    }

    /// The same residual as LoRA factors in PyTorch's layout: (A = psi `[r, d_in]`, B = W·phi `[d_out, r]`).
    pub(crate) fn as_lora(&self, weight: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        (self.psi.clone(), weight.transpose().matmul(self.phi.clone()))
    }
}
