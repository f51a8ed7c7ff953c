//! A transformer block, pre-norm, and its parts.

use burn::module::{Initializer, Module, Param};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use wegeft::linear;

use super::{Activation, Rope, VitConfig, dense};
use crate::drop_path::DropPath;

/// LayerScale: a learned factor per channel.
#[derive(Module, Debug)]
pub struct LayerScale {
    /// `[d_model]`
    pub gamma: Param<Tensor<1>>,
}

/// One transformer block, pre-norm.
#[derive(Module, Debug)]
pub struct Block {
    /// Norm before attention.
    pub norm1: LayerNorm,
    /// Self-attention.
    pub attn: Attention,
    /// Scale of the attention branch.
    pub ls1: Option<LayerScale>,
    /// Norm before the MLP.
    pub norm2: LayerNorm,
    /// MLP.
    pub mlp: Mlp,
    /// Scale of the MLP branch.
    pub ls2: Option<LayerScale>,
    drop_path: DropPath,
}

impl Block {
    pub(super) fn new(config: &VitConfig, drop_path: f64, device: &Device) -> Self {
        let d = config.d_model;
        let hidden = config.mlp_dim.unwrap_or(4 * d);
        let scale = || {
            config.layer_scale.then(|| LayerScale {
                gamma: Initializer::Ones.init([d], device),
            })
        };
        Self {
            norm1: config.norm(device),
            attn: Attention {
                qkv: dense(d, 3 * d, device),
                proj: dense(d, d, device),
                heads: config.heads,
            },
            ls1: scale(),
            norm2: config.norm(device),
            mlp: Mlp::new(d, hidden, config.activation, device),
            ls2: scale(),
            drop_path: DropPath::new(drop_path),
        }
    }

    /// `[batch, tokens, d_model]` to the same.
    pub fn forward(&self, x: Tensor<3>, rope: Option<&Rope>) -> Tensor<3> {
        let mixed = self.mixed(x.clone(), rope);
        self.rest(x, mixed)
    }

    /// What attention makes of `x` before its output projection; both `[batch, tokens, d_model]`.
    pub(super) fn mixed(&self, x: Tensor<3>, rope: Option<&Rope>) -> Tensor<3> {
        self.attn.mix(self.norm1.forward(x), rope)
    }

    /// The rest of the block: output projection, residual, MLP.
    pub(super) fn rest(&self, x: Tensor<3>, mixed: Tensor<3>) -> Tensor<3> {
        let attended = scaled(&self.ls1, linear(&self.attn.proj, mixed));
        let x = x + self.drop_path.forward(attended);
        let mixed = scaled(&self.ls2, self.mlp.forward(self.norm2.forward(x.clone())));
        x + self.drop_path.forward(mixed)
    }
}

fn scaled(scale: &Option<LayerScale>, branch: Tensor<3>) -> Tensor<3> {
    match scale {
        Some(scale) => branch * scale.gamma.val().unsqueeze::<3>(),
        None => branch,
    }
}

/// Multi-head self-attention with a fused qkv weight.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[d_model, 3·d_model]`
    pub qkv: Linear,
    /// `[d_model, d_model]`
    pub proj: Linear,
    heads: usize,
}

impl Attention {
    /// `[batch, tokens, d_model]` to the same.
    pub fn forward(&self, x: Tensor<3>, rope: Option<&Rope>) -> Tensor<3> {
        linear(&self.proj, self.mix(x, rope))
    }

    /// The values mixed by attention, heads side by side: the output projection's input, `[batch, tokens, d_model]`.
    fn mix(&self, x: Tensor<3>, rope: Option<&Rope>) -> Tensor<3> {
        let [batch, tokens, d] = x.dims();
        let width = d / self.heads;
        let qkv = linear(&self.qkv, x)
            .reshape([batch, tokens, 3, self.heads, width])
            .permute([2, 0, 3, 1, 4]);
        let part = |i: usize| -> Tensor<4> {
            qkv.clone()
                .slice([i..i + 1, 0..batch, 0..self.heads, 0..tokens, 0..width])
                .squeeze_dim(0)
        };
        let turned = |x: Tensor<4>| match rope {
            Some(rope) => rope.forward(x),
            None => x,
        };
        let scores = turned(part(0))
            .mul_scalar((width as f64).powf(-0.5))
            .matmul(turned(part(1)).swap_dims(2, 3));
        let mixed = softmax(scores, 3).matmul(part(2));
        mixed.swap_dims(1, 2).reshape([batch, tokens, d])
    }
}

/// Two linear layers with an activation between.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[d_model, hidden]`
    pub fc1: Linear,
    /// `[hidden, d_model]`
    pub fc2: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    pub(super) fn new(d: usize, hidden: usize, activation: Activation, device: &Device) -> Self {
        Self {
            fc1: dense(d, hidden, device),
            fc2: dense(hidden, d, device),
            activation,
        }
    }

    /// `[batch, tokens, d_model]` to the same.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        linear(&self.fc2, self.activation.forward(linear(&self.fc1, x)))
    }
}
