//! Gated MLP (Shazeer 2020, arXiv 2002.05202).

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use wegeft::linear_many;

use super::activation::Activation;
use super::config::DecoderConfig;
use super::dense::dense;

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
