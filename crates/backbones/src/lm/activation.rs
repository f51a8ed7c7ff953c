//! The activations that configs name.

use burn::tensor::{Tensor, activation};
use kernels::Gate;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
/// Activation of an MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// x·σ(x)
    Silu,
    /// x·Φ(x)
    Gelu,
    /// x·Φ(x) by tanh, GPT-2's and Gemma's.
    GeluTanh,
    /// x·σ(1.702 x), CLIP's and early GPTs'.
    QuickGelu,
    /// max(x, 0)
    Relu,
    /// max(x, 0)²
    Relu2,
    /// min(max(x, 0), 6)
    Relu6,
    /// x above 0, x / 100 below.
    LeakyRelu,
    /// x·tanh(ln(1 + eˣ))
    Mish,
    /// tanh(x)
    Tanh,
    /// σ(x)
    Sigmoid,
    /// x
    Linear,
}

/// transformers' names.
const NAMES: [(&str, Activation); 18] = [
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_python_tanh", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_accurate", Activation::GeluTanh),
    ("quick_gelu", Activation::QuickGelu),
    ("relu", Activation::Relu),
    ("relu2", Activation::Relu2),
    ("relu6", Activation::Relu6),
    ("leaky_relu", Activation::LeakyRelu),
    ("mish", Activation::Mish),
    ("tanh", Activation::Tanh),
    ("sigmoid", Activation::Sigmoid),
    ("linear", Activation::Linear),
];

impl Activation {
    /// By transformers' name; `field` is where it was found.
    ///
    /// # Errors
    /// A name that is not implemented.
    pub fn parse(field: &str, name: &str) -> Result<Self, ConfigError> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, activation)| *activation).ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(known, _)| *known).collect();
            ConfigError::field(field, format!("is '{name}'; implemented are {}", names.join(", ")))
        })
    }

    /// `self(gate)·up`, any shape, the same for both.
    pub fn gated<const D: usize>(&self, gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Silu => kernels::gated(gate, up, Gate::Silu),
            Self::GeluTanh => kernels::gated(gate, up, Gate::GeluTanh),
            _ => self.forward(gate) * up,
        }
    }

    /// Any shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Silu => activation::silu(x),
            Self::Gelu => kernels::gelu(x),
            Self::GeluTanh => activation::gelu_approximate(x),
            Self::QuickGelu => x.clone() * activation::sigmoid(x.mul_scalar(1.702)),
            Self::Relu => activation::relu(x),
            Self::Relu2 => activation::relu(x).square(),
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::LeakyRelu => activation::leaky_relu(x, 0.01),
            Self::Mish => activation::mish(x),
            Self::Tanh => activation::tanh(x),
            Self::Sigmoid => activation::sigmoid(x),
            Self::Linear => x,
        }
    }
}
