//! Vision transformer (Dosovitskiy et al. 2020, arXiv 2010.11929) with timm's module names; LayerScale as in DINOv2.

use burn::config::Config;
use burn::module::{Initializer, Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use kernels::gelu;
use serde::{Deserialize, Serialize};
use wegeft::{Hook, linear};

use crate::drop_path::DropPath;

/// How tokens become one feature vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// The CLS token.
    Cls,
    /// The mean of the patch tokens.
    Mean,
}

/// Shape of a vision transformer.
#[derive(Config, Debug, PartialEq)]
pub struct VitConfig {
    /// Side of the square picture, pixels.
    pub image_size: usize,
    /// Side of a patch, pixels.
    pub patch_size: usize,
    /// Width of a token.
    pub d_model: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Hidden size of the MLP; four times d_model if absent.
    pub mlp_dim: Option<usize>,
    /// Size of the head; 0 for none.
    #[config(default = 0)]
    pub num_classes: usize,
    /// LayerScale (DINOv2).
    #[config(default = false)]
    pub layer_scale: bool,
    /// Pooling.
    #[config(default = "Pool::Cls")]
    pub pool: Pool,
    /// The last norm follows the pooling instead of preceding it (timm's `fc_norm` of mean-pooled models).
    #[config(default = false)]
    pub fc_norm: bool,
    /// Drop-path of the last block; a linear ramp from 0 leads there.
    #[config(default = 0.0)]
    pub drop_path: f64,
    /// Epsilon of the norms.
    #[config(default = 1e-6)]
    pub layer_norm_eps: f64,
}

impl VitConfig {
    /// ViT-B/16 at 224 px without a head.
    pub fn base_patch16() -> Self {
        Self::new(224, 16, 768, 12, 12)
    }

    /// Patches along a side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// A randomly initialized model: normal of σ 0.02, zero biases, as timm (whose
    /// truncation at ±2 is a hundred σ away).
    pub fn init(&self, device: &Device) -> Vit {
        let d = self.d_model;
        let normal = Initializer::Normal { mean: 0.0, std: 0.02 };
        let step = self.drop_path / (self.depth.max(2) - 1) as f64;
        let patch = [self.patch_size; 2];
        Vit {
            cls_token: normal.init([1, 1, d], device),
            pos_embed: normal.init([1, self.grid() * self.grid() + 1, d], device),
            patch_embed: PatchEmbed {
                proj: Conv2dConfig::new([3, d], patch).with_stride(patch).init(device),
            },
            blocks: (0..self.depth)
                .map(|i| Block::new(self, step * i as f64, device))
                .collect(),
            norm: (!self.fc_norm).then(|| self.norm(device)),
            fc_norm: self.fc_norm.then(|| self.norm(device)),
            head: (self.num_classes > 0).then(|| dense(d, self.num_classes, device)),
            mean_pool: self.pool == Pool::Mean,
        }
    }

    fn norm(&self, device: &Device) -> LayerNorm {
        LayerNormConfig::new(self.d_model)
            .with_epsilon(self.layer_norm_eps)
            .init(device)
    }
}

fn dense(d_in: usize, d_out: usize, device: &Device) -> Linear {
    let normal = Initializer::Normal { mean: 0.0, std: 0.02 };
    let mut layer = LinearConfig::new(d_in, d_out).with_initializer(normal).init(device);
    layer.bias = Some(Initializer::Zeros.init([d_out], device));
    layer
}

/// A vision transformer.
#[derive(Module, Debug)]
pub struct Vit {
    /// `[1, 1, d_model]`
    pub cls_token: Param<Tensor<3>>,
    /// `[1, 1 + patches, d_model]`
    pub pos_embed: Param<Tensor<3>>,
    /// Patches to tokens.
    pub patch_embed: PatchEmbed,
    /// The blocks.
    pub blocks: Vec<Block>,
    /// Last norm, before pooling.
    pub norm: Option<LayerNorm>,
    /// Last norm, after pooling.
    pub fc_norm: Option<LayerNorm>,
    /// Classifier, if there is one.
    pub head: Option<Linear>,
    mean_pool: bool,
}

impl Vit {
    /// A fresh head of `num_classes` in place of the present one.
    pub fn with_head(mut self, num_classes: usize, device: &Device) -> Self {
        let d_model = self.cls_token.lazy_shape()[2];
        self.head = (num_classes > 0).then(|| dense(d_model, num_classes, device));
        self
    }

    /// Normalised pictures `[batch, 3, h, w]` to pooled features `[batch, d_model]`.
    pub fn features(&self, pixels: Tensor<4>) -> Tensor<2> {
        let patches = self.patch_embed.forward(pixels);
        let [batch, tokens, d] = patches.dims();
        let cls = self.cls_token.val().expand([batch, 1, d]);
        let mut x = Tensor::cat(vec![cls, patches], 1) + self.pos_embed.val();
        for block in &self.blocks {
            x = block.forward(x);
        }
        let pooled = if self.mean_pool {
            let x = normed(&self.norm, x);
            // The last ones: prompts of an adapter stand between the CLS token and the patches.
            let start = x.dims()[1] - tokens;
            x.narrow(1, start, tokens).mean_dim(1)
        } else {
            // The norm works token by token: only the one that is read needs it.
            normed(&self.norm, x.slice([0..batch, 0..1, 0..d]))
        };
        normed(&self.fc_norm, pooled).reshape([batch, d])
    }

    /// Pooled features `[batch, d_model]` to logits `[batch, classes]`; the features if there is no head.
    pub fn classify(&self, features: Tensor<2>) -> Tensor<2> {
        match &self.head {
            Some(head) => head.forward(features),
            None => features,
        }
    }

    /// Normalised pictures `[batch, 3, h, w]` to logits `[batch, classes]`; the features if there is no head.
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<2> {
        self.classify(self.features(pixels))
    }
}

fn normed<const D: usize>(norm: &Option<LayerNorm>, x: Tensor<D>) -> Tensor<D> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}

/// Cuts a picture into patches and projects each.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    /// `[d_model, 3, patch, patch]`
    pub proj: Conv2d,
}

impl PatchEmbed {
    /// `[batch, 3, h, w]` to `[batch, patches, d_model]`.
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        let [batch, channels, height, width] = pixels.dims();
        let weight = self.proj.weight.val();
        let [d, _, patch, _] = weight.dims();
        let (rows, columns) = (height / patch, width / patch);
        // The patches do not overlap, so the convolution is one matrix product.
        let pieces = pixels
            .reshape([batch, channels, rows, patch, columns, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch * rows * columns, channels * patch * patch]);
        let tokens = pieces.matmul(weight.reshape([d, channels * patch * patch]).transpose());
        let tokens = match &self.proj.bias {
            Some(bias) => tokens + bias.val().unsqueeze::<2>(),
            None => tokens,
        };
        tokens.reshape([batch, rows * columns, d])
    }
}

/// LayerScale: a learned factor per channel.
#[derive(Module, Debug)]
pub struct LayerScale {
    /// `[d_model]`
    pub gamma: Param<Tensor<1>>,
}

/// One transformer block, pre-norm.
#[derive(Module, Debug)]
pub struct Block {
    /// Place before the block: its input.
    pub input: Hook,
    /// Norm before attention.
    pub norm1: LayerNorm,
    /// Self-attention.
    pub attn: Attention,
    /// Scale of the attention branch.
    pub ls1: Option<LayerScale>,
    /// Place after attention, before the residual sum.
    pub attn_out: Hook,
    /// Norm before the MLP.
    pub norm2: LayerNorm,
    /// MLP.
    pub mlp: Mlp,
    /// Scale of the MLP branch.
    pub ls2: Option<LayerScale>,
    /// Place after the MLP, before the residual sum.
    pub mlp_out: Hook,
    /// Place after the block: its output.
    pub output: Hook,
    drop_path: DropPath,
}

impl Block {
    fn new(config: &VitConfig, drop_path: f64, device: &Device) -> Self {
        let d = config.d_model;
        let hidden = config.mlp_dim.unwrap_or(4 * d);
        let scale = || {
            config.layer_scale.then(|| LayerScale {
                gamma: Initializer::Ones.init([d], device),
            })
        };
        let hook = || Hook::new(d, device);
        Self {
            input: hook(),
            norm1: config.norm(device),
            attn: Attention {
                qkv: dense(d, 3 * d, device),
                proj: dense(d, d, device),
                heads: config.heads,
            },
            ls1: scale(),
            attn_out: hook(),
            norm2: config.norm(device),
            mlp: Mlp {
                fc1: dense(d, hidden, device),
                fc2: dense(hidden, d, device),
            },
            ls2: scale(),
            mlp_out: hook(),
            output: hook(),
            drop_path: DropPath::new(drop_path),
        }
    }

    /// `[batch, tokens, d_model]` to the same; prompts bound to `input` add tokens.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.input.forward(x);
        let attended = scaled(&self.ls1, self.attn.forward(self.norm1.forward(x.clone())));
        let x = x + self.drop_path.forward(self.attn_out.forward(attended));
        let mixed = scaled(&self.ls2, self.mlp.forward(self.norm2.forward(x.clone())));
        self.output
            .forward(x + self.drop_path.forward(self.mlp_out.forward(mixed)))
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
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
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
        let scores = part(0)
            .mul_scalar((width as f64).powf(-0.5))
            .matmul(part(1).swap_dims(2, 3));
        let mixed = softmax(scores, 3).matmul(part(2));
        linear(&self.proj, mixed.swap_dims(1, 2).reshape([batch, tokens, d]))
    }
}

/// Two linear layers with GELU between.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[d_model, hidden]`
    pub fc1: Linear,
    /// `[hidden, d_model]`
    pub fc2: Linear,
}

impl Mlp {
    /// `[batch, tokens, d_model]` to the same.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        linear(&self.fc2, gelu(linear(&self.fc1, x)))
    }
}
