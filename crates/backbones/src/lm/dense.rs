//! Linear layers with a config's random weights.

use burn::module::Initializer;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;

use super::config::DecoderConfig;

/// A linear layer with weights normal of σ `initializer_range`, its bias zero.
pub(super) fn dense(config: &DecoderConfig, d_in: usize, d_out: usize, bias: bool, device: &Device) -> Linear {
    let normal = Initializer::Normal {
        mean: 0.0,
        std: config.initializer_range,
    };
    let mut layer = LinearConfig::new(d_in, d_out)
        .with_bias(false)
        .with_initializer(normal)
        .init(device);
    layer.bias = bias.then(|| Initializer::Zeros.init([d_out], device));
    layer
}
