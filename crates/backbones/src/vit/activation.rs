//! Activations of the MLP.

use burn::tensor::Tensor;
use burn::tensor::activation::{gelu_approximate, relu, sigmoid, silu};
use kernels::gelu;
use serde::{Deserialize, Serialize};

/// What stands between the two layers of an MLP; names as in Hugging Face's `hidden_act`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// GELU with the error function.
    #[default]
    #[serde(alias = "gelu_python")]
    Gelu,
    /// `x · sigmoid(1.702 x)`: CLIP.
    #[serde(alias = "quickgelu")]
    QuickGelu,
    /// GELU with the hyperbolic tangent: SigLIP.
    #[serde(alias = "gelu_new", alias = "gelu_fast", alias = "gelu_tanh")]
    GeluPytorchTanh,
    /// `max(x, 0)`.
    Relu,
    /// `x · sigmoid(x)`: SwiGLU.
    #[serde(alias = "swish")]
    Silu,
}

impl Activation {
    /// Element by element.
    pub fn forward(self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Gelu => gelu(x),
            Self::QuickGelu => x.clone() * sigmoid(x.mul_scalar(1.702)),
            Self::GeluPytorchTanh => gelu_approximate(x),
            Self::Relu => relu(x),
            Self::Silu => silu(x),
        }
    }
}
