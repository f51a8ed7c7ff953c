//! LoRA (Low-Rank Adaptation, Hu et al. 2021, arXiv 2106.09685): `W' = W + s·B A`, `y = x W + s·(x Aᵀ) Bᵀ`.

use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use serde::{Deserialize, Serialize};

/// Settings of LoRA; names as in PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank of A and B.
    pub r: usize,
    /// Numerator of the scale s = alpha / r.
    #[serde(rename = "lora_alpha")]
    pub alpha: f64,
}

impl LoraConfig {
    /// Rank `r`, scale 1.
    pub fn new(r: usize) -> Self {
        Self { r, alpha: r as f64 }
    }

    /// Sets alpha.
    pub fn with_alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }

    /// Makes the factors of one site: A ~ U(±1/√d_in) (Kaiming-uniform, a = √5), B = 0, as PEFT does.
    pub fn init(&self, d_in: usize, d_out: usize, device: &Device) -> Lora {
        let bound = 1.0 / (d_in as f64).sqrt();
        Lora {
            a: Param::from_tensor(Tensor::random(
                [self.r, d_in],
                Distribution::Uniform(-bound, bound),
                device,
            )),
            b: Param::from_tensor(Tensor::zeros([d_out, self.r], device)),
            scale: self.alpha / self.r as f64,
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
    pub(crate) fn matmul(&self, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        let code = x.clone().matmul(self.a.clone().transpose()).mul_scalar(self.scale);
        x.matmul(weight) + code.matmul(self.b.clone().transpose())
    }

    pub(crate) fn residual(&self) -> Tensor<2> {
        let a = self.a.clone().transpose().mul_scalar(self.scale);
        a.matmul(self.b.clone().transpose())
    }

    pub(crate) fn as_lora(&self) -> (Tensor<2>, Tensor<2>) {
        (self.a.clone(), self.b.clone())
    }
}
