//! LoRA (Low-Rank Adaptation, Hu et al. 2021, arXiv 2106.09685): `W' = W + s·B A`, `y = x W + s·(x Aᵀ) Bᵀ`.

use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use serde::{Deserialize, Serialize};

use super::low_rank::LowRank;
use super::wegeft::check_alpha;
use super::{Edit, cast};
use crate::config::Patterns;
use crate::error::AdapterError;
use crate::site::Site;

/// Settings of LoRA; names as in PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank of A and B.
    pub r: usize,
    /// Numerator of the scale s = alpha / r.
    #[serde(rename = "lora_alpha")]
    pub alpha: f64,
    /// Ranks and alphas of their own for some modules.
    #[serde(flatten)]
    pub patterns: Patterns,
}

impl LoraConfig {
    /// Rank `r`, scale 1.
    pub fn new(r: usize) -> Self {
        Self {
            r,
            alpha: r as f64,
            patterns: Patterns::default(),
        }
    }

    /// Sets alpha.
    pub fn with_alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }

    pub(crate) fn check(&self) -> Result<(), AdapterError> {
        check_alpha("lora_alpha", self.alpha)
    }

    /// Makes the factors of one site: A ~ U(±1/√d_in) (Kaiming-uniform, a = √5), B = 0, as PEFT does.
    pub fn init(&self, site: &Site, device: &Device) -> Lora {
        let (r, alpha) = self.patterns.of(&site.module(), self.r, self.alpha);
        let bound = 1.0 / (site.d_in as f64).sqrt();
        let random = Distribution::Uniform(-bound, bound);
        Lora {
            a: Param::from_tensor(Tensor::random([r, site.d_in], random, device)),
            b: Param::from_tensor(Tensor::zeros([site.d_out, r], device)),
            scale: alpha / r as f64,
        }
    }
}

/// The pair (A, B) of one site.
#[derive(Module, Debug)]
pub struct Lora {
    /// `[r, d_in]`
    pub a: Param<Tensor<2>>,
    /// `[d_out, r]`
    pub b: Param<Tensor<2>>,
    /// s = alpha / r
    pub scale: f64,
}

impl Lora {
    pub(crate) fn bind(&self) -> BoundLora {
        BoundLora {
            a: self.a.val(),
            b: self.b.val(),
            scale: self.scale,
        }
    }
}

/// (A, B) as a bound site sees them.
#[derive(Module, Debug)]
pub struct BoundLora {
    a: Tensor<2>,
    b: Tensor<2>,
    scale: f64,
}

impl BoundLora {
    fn factors(&self) -> LowRank {
        LowRank {
            a: self.a.clone(),
            b: self.b.clone(),
            scale: self.scale,
        }
    }
}

impl Edit for BoundLora {
    fn matmul(&self, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        x.clone().matmul(weight) + self.factors().forward(x)
    }

    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        cast(self.factors().dense(), weight.dtype())
    }

    fn low_rank(&self, _weight: Tensor<2>) -> Option<LowRank> {
        Some(self.factors())
    }
}
