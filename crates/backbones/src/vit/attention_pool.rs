//! Pooling by attention from a learned query, as in SigLIP (arXiv 2303.15343); names are timm's.

use burn::module::{Initializer, Module, Param};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{DType, Device, Tensor};
use kernels::{AttentionOptions, attention};
use wegeft::linear;

use super::block::Mlp;
use super::{VitConfig, dense};

/// One query attends over all tokens; an MLP with a residual follows.
#[derive(Module, Debug)]
pub struct AttentionPool {
    /// The query, `[1, 1, d_model]`.
    pub latent: Param<Tensor<3>>,
    /// `[d_model, d_model]`
    pub q: Linear,
    /// Keys, then values: `[d_model, 2·d_model]`.
    pub kv: Linear,
    /// `[d_model, d_model]`
    pub proj: Linear,
    /// Norm before the MLP.
    pub norm: LayerNorm,
    /// MLP.
    pub mlp: Mlp,
    heads: usize,
}

impl AttentionPool {
    pub(super) fn new(config: &VitConfig, device: &Device) -> Self {
        let d = config.d_model;
        let hidden = config.mlp_dim.unwrap_or(4 * d);
        Self {
            latent: Initializer::Normal { mean: 0.0, std: 0.02 }.init([1, 1, d], device),
            q: dense(d, d, true, device),
            kv: dense(d, 2 * d, true, device),
            proj: dense(d, d, true, device),
            norm: config.norm(device),
            mlp: Mlp::new(d, hidden, config.activation, false, true, device),
            heads: config.heads,
        }
    }

    /// Tokens `[batch, tokens, d_model]` to `[batch, 1, d_model]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, tokens, d] = x.dims();
        let width = d / self.heads;
        let dtype = x.dtype();
        let query = linear(&self.q, self.latent.val().cast(dtype).expand([batch, 1, d]))
            .reshape([batch, 1, self.heads, width])
            .swap_dims(1, 2);
        let kv = linear(&self.kv, x)
            .reshape([batch, tokens, 2, self.heads, width])
            .permute([2, 0, 3, 1, 4]);
        let part = |i: usize| -> Tensor<4> {
            kv.clone()
                .slice([i..i + 1, 0..batch, 0..self.heads, 0..tokens, 0..width])
                .squeeze_dim(0)
        };
        let mixed = attention(query, part(0), part(1), &AttentionOptions::default())
            .swap_dims(1, 2)
            .reshape([batch, 1, d]);
        let x = linear(&self.proj, mixed);
        let normed = self.norm.forward(x.clone().cast(DType::F32)).cast(dtype);
        x + self.mlp.forward(normed)
    }
}
