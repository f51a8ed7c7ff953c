//! Gated MLP (Shazeer 2020, arXiv 2002.05202) and the activations that configs name.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation;
use burn::tensor::{Device, Tensor};
use kernels::Gate;
use serde::{Deserialize, Serialize};
use wegeft::linear_many;

use super::config::DecoderConfig;
use super::dense;

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
    /// max(x, 0)
    Relu,
}

impl Activation {
    /// By transformers' name; `field` is where it was found.
    ///
    /// # Errors
    /// A name that is not implemented.
    pub fn parse(field: &str, name: &str) -> Result<Self, String> {
        match name {
            "silu" | "swish" => Ok(Self::Silu),
            "gelu" => Ok(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Self::GeluTanh),
            "relu" => Ok(Self::Relu),
            other => Err(format!(
                "field '{field}' is '{other}'; implemented are silu, gelu, gelu_new, gelu_pytorch_tanh and relu"
            )),
        }
    }

    /// `self(gate)·up`, any shape, the same for both.
    pub fn gated<const D: usize>(&self, gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Silu => kernels::gated(gate, up, Gate::Silu),
            Self::GeluTanh => kernels::gated(gate, up, Gate::GeluTanh),
            Self::Gelu | Self::Relu => self.forward(gate) * up,
        }
    }

    /// Any shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Silu => activation::silu(x),
            Self::Gelu => kernels::gelu(x),
            Self::GeluTanh => activation::gelu_approximate(x),
            Self::Relu => activation::relu(x),
        }
    }
}

/// down(act(gate x) · up x).
#[derive(Module, Debug)]
pub struct GatedMlp {
    /// `[d_model, hidden]`
    pub gate_proj: Linear,
    /// `[d_model, hidden]`
    pub up_proj: Linear,
    /// `[hidden, d_model]`
    pub down_proj: Linear,
    #[module(skip)]
    activation: Activation,
}

impl GatedMlp {
    pub(crate) fn new(config: &DecoderConfig, device: &Device) -> Self {
        let (d, hidden, bias) = (config.d_model, config.mlp_dim, config.mlp_bias);
        Self {
            gate_proj: dense(config, d, hidden, bias, device),
            up_proj: dense(config, d, hidden, bias, device),
            down_proj: dense(config, hidden, d, bias, device),
            activation: config.activation,
        }
    }

    /// act(gate x) · up x, before `down_proj`. `x`: `[batch, tokens, d_model]`, result `[batch, tokens, hidden]`.
    pub fn hidden(&self, x: Tensor<3>) -> Tensor<3> {
        let [gate, up] = linear_many([&self.gate_proj, &self.up_proj], x);
        self.activation.gated(gate, up)
    }
}
