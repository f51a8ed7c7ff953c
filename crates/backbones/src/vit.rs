//! Vision transformer (Dosovitskiy et al. 2020, arXiv 2010.11929) with timm's module names, and what its descendants
//! add: a distillation token (DeiT, arXiv 2012.12877), LayerScale (DINOv2, arXiv 2304.07193), register tokens
//! (arXiv 2309.16588), a norm before the blocks (CLIP, arXiv 2103.00020), pooling by attention (SigLIP), rotary
//! positions (DINOv3).

mod activation;
mod attention_pool;
mod block;
#[cfg(test)]
mod half_precision;
mod rope;

use burn::config::Config;
use burn::module::{Initializer, Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::layers::norm;

pub use activation::Activation;
pub use attention_pool::AttentionPool;
pub use block::{Attention, Block, LayerScale, Mlp};
pub use rope::Rope;

/// How tokens become one feature vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// The CLS token; with a distillation token the mean of the two, as timm fine-tunes them.
    Cls,
    /// The mean of the patch tokens.
    Mean,
    /// The greatest element of each channel over the patch tokens.
    Max,
    /// Half the sum of [`Pool::Mean`] and [`Pool::Max`].
    AvgMax,
    /// [`AttentionPool`].
    Attention,
}

/// What the head of a checkpoint reads where that is not the feature vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadPool {
    /// The CLS token beside the mean of the patch tokens, normed: transformers' DINOv2.
    ClsMean,
    /// The CLS token beside the distillation token, normed: the two heads of a distilled DeiT as one.
    ClsDist,
    /// The mean of the patch tokens, normed: transformers' SigLIP.
    Mean,
    /// The mean of the patch tokens before the last norm: transformers' CLIP.
    MeanUnnormed,
}

impl HeadPool {
    /// How many vectors `[d_model]` the head reads side by side.
    pub fn parts(self) -> usize {
        match self {
            Self::ClsMean | Self::ClsDist => 2,
            Self::Mean | Self::MeanUnnormed => 1,
        }
    }
}

/// Which tokens have a learned position embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Positions {
    /// CLS, distillation and patch tokens.
    All,
    /// Those and the register tokens.
    Registers,
    /// Patch tokens.
    Patches,
    /// None.
    None,
}

/// Shape of a vision transformer.
#[derive(Config, Debug, PartialEq)]
pub struct VitConfig {
    /// Height of the image, pixels; its width too unless `image_width` says otherwise.
    pub image_size: usize,
    /// Width of an image that is not square, pixels.
    pub image_width: Option<usize>,
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
    /// A CLS token.
    #[config(default = true)]
    pub cls_token: bool,
    /// A distillation token after the CLS token.
    #[config(default = false)]
    pub dist_token: bool,
    /// Register tokens before the patches.
    #[config(default = 0)]
    pub registers: usize,
    /// Learned position embeddings.
    #[config(default = "Positions::All")]
    pub positions: Positions,
    /// Base of rotary positions, if there are any.
    pub rope_theta: Option<f64>,
    /// A bias of the patch projection.
    #[config(default = true)]
    pub patch_bias: bool,
    /// Biases of queries, keys and values.
    #[config(default = true)]
    pub qkv_bias: bool,
    /// A bias of attention's output projection.
    #[config(default = true)]
    pub proj_bias: bool,
    /// Biases of the MLPs.
    #[config(default = true)]
    pub mlp_bias: bool,
    /// Norms of each head's queries and keys.
    #[config(default = false)]
    pub qk_norm: bool,
    /// The MLPs are gated: the activation of one half of `fc1`'s output times the other half (SwiGLU, arXiv 2002.05202).
    #[config(default = false)]
    pub gated_mlp: bool,
    /// A norm before the blocks.
    #[config(default = false)]
    pub norm_pre: bool,
    /// LayerScale.
    #[config(default = false)]
    pub layer_scale: bool,
    /// Activation of the MLPs.
    #[config(default = "Activation::Gelu")]
    pub activation: Activation,
    /// Pooling.
    #[config(default = "Pool::Cls")]
    pub pool: Pool,
    /// Pooling reads the tokens before the patches too.
    #[config(default = false)]
    pub pool_include_prefix: bool,
    /// What the head reads, if not the feature vector.
    pub head_pool: Option<HeadPool>,
    /// A norm after the blocks.
    #[config(default = true)]
    pub final_norm: bool,
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

    /// Height and width of the image, pixels.
    pub fn image(&self) -> [usize; 2] {
        [self.image_size, self.image_width.unwrap_or(self.image_size)]
    }

    /// The same model for images of `[height, width]` pixels.
    pub fn with_image(mut self, [height, width]: [usize; 2]) -> Self {
        self.image_size = height;
        self.image_width = (width != height).then_some(width);
        self
    }

    /// Patches from top to bottom and from left to right.
    pub fn grid(&self) -> [usize; 2] {
        self.image().map(|side| side / self.patch_size)
    }

    /// Patches of an image.
    pub fn patches(&self) -> usize {
        let [rows, columns] = self.grid();
        rows * columns
    }

    /// Tokens of an image.
    pub fn tokens(&self) -> usize {
        self.prefix_tokens() + self.patches()
    }

    /// Width of what the head reads.
    fn d_head(&self) -> usize {
        self.d_model * self.head_pool.map_or(1, HeadPool::parts)
    }

    /// Tokens before the patches: CLS, distillation, registers.
    pub fn prefix_tokens(&self) -> usize {
        usize::from(self.cls_token) + usize::from(self.dist_token) + self.registers
    }

    /// Tokens before the patches that have a learned position embedding.
    pub fn placed_prefix_tokens(&self) -> usize {
        match self.positions {
            Positions::All => usize::from(self.cls_token) + usize::from(self.dist_token),
            Positions::Registers => self.prefix_tokens(),
            Positions::Patches | Positions::None => 0,
        }
    }

    /// A randomly initialized model: normal of σ 0.02, zero biases, as timm (whose
    /// truncation at ±2 is a hundred σ away).
    pub fn init(&self, device: &Device) -> Vit {
        let d = self.d_model;
        let normal = Initializer::Normal { mean: 0.0, std: 0.02 };
        let step = self.drop_path / (self.depth.max(2) - 1) as f64;
        let patch = [self.patch_size; 2];
        let placed = self.placed_prefix_tokens() + self.patches();
        Vit {
            cls_token: self.cls_token.then(|| normal.init([1, 1, d], device)),
            dist_token: self.dist_token.then(|| normal.init([1, 1, d], device)),
            reg_token: (self.registers > 0).then(|| normal.init([1, self.registers, d], device)),
            pos_embed: (self.positions != Positions::None).then(|| normal.init([1, placed, d], device)),
            patch_embed: PatchEmbed {
                proj: Conv2dConfig::new([3, d], patch)
                    .with_stride(patch)
                    .with_bias(self.patch_bias)
                    .init(device),
            },
            norm_pre: self.norm_pre.then(|| self.norm(device)),
            blocks: (0..self.depth)
                .map(|i| Block::new(self, step * i as f64, device))
                .collect(),
            norm: (self.final_norm && !self.fc_norm).then(|| self.norm(device)),
            attn_pool: (self.pool == Pool::Attention).then(|| AttentionPool::new(self, device)),
            fc_norm: (self.final_norm && self.fc_norm).then(|| self.norm(device)),
            head: (self.num_classes > 0).then(|| dense(self.d_head(), self.num_classes, true, device)),
            rope: self
                .rope_theta
                .map(|theta| Rope::new(self.grid(), d / self.heads, theta, device)),
            pool: self.pool,
            pool_include_prefix: self.pool_include_prefix,
            head_pool: self.head_pool,
            placed_registers: self.positions == Positions::Registers,
            d_model: d,
            epsilon: self.layer_norm_eps,
            activations: DType::F32,
        }
    }

    fn norm(&self, device: &Device) -> LayerNorm {
        LayerNormConfig::new(self.d_model)
            .with_epsilon(self.layer_norm_eps)
            .init(device)
    }
}

fn dense(d_in: usize, d_out: usize, bias: bool, device: &Device) -> Linear {
    let normal = Initializer::Normal { mean: 0.0, std: 0.02 };
    let mut layer = LinearConfig::new(d_in, d_out).with_initializer(normal).init(device);
    layer.bias = bias.then(|| Initializer::Zeros.init([d_out], device));
    layer
}

/// A vision transformer.
#[derive(Module, Debug)]
pub struct Vit {
    /// `[1, 1, d_model]`
    pub cls_token: Option<Param<Tensor<3>>>,
    /// `[1, 1, d_model]`
    pub dist_token: Option<Param<Tensor<3>>>,
    /// `[1, registers, d_model]`
    pub reg_token: Option<Param<Tensor<3>>>,
    /// `[1, tokens that have one, d_model]`
    pub pos_embed: Option<Param<Tensor<3>>>,
    /// Patches to tokens.
    pub patch_embed: PatchEmbed,
    /// Norm before the blocks.
    pub norm_pre: Option<LayerNorm>,
    /// The blocks.
    pub blocks: Vec<Block>,
    /// Last norm, before pooling.
    pub norm: Option<LayerNorm>,
    /// Pooling by attention.
    pub attn_pool: Option<AttentionPool>,
    /// Last norm, after pooling.
    pub fc_norm: Option<LayerNorm>,
    /// Classifier, if there is one.
    pub head: Option<Linear>,
    rope: Option<Rope>,
    #[module(skip)]
    pool: Pool,
    pool_include_prefix: bool,
    #[module(skip)]
    head_pool: Option<HeadPool>,
    placed_registers: bool,
    d_model: usize,
    epsilon: f64,
    /// Type of the tokens between the patches and the pooling.
    #[module(skip)]
    activations: DType,
}

impl Vit {
    /// The model with tokens of the type `activations`. Norms and the weights' gradients remain f32, pooled features and logits
    /// too.
    pub fn with_activations(mut self, activations: DType) -> Self {
        self.activations = activations;
        self
    }

    /// A fresh head of `num_classes` over the features in place of the present one. (In place of a distilled model's two
    /// heads one reads the mean of their tokens, as timm fine-tunes them.)
    pub fn with_head(self, num_classes: usize, device: &Device) -> Self {
        self.with_head_over(num_classes, None, device)
    }

    /// A fresh head of `num_classes` over what `pool` says, or the features.
    pub(crate) fn with_head_over(mut self, num_classes: usize, pool: Option<HeadPool>, device: &Device) -> Self {
        let width = self.d_model * pool.map_or(1, HeadPool::parts);
        self.head_pool = pool;
        self.head = (num_classes > 0).then(|| dense(width, num_classes, true, device));
        self
    }

    /// What the head reads, if not the features.
    pub fn head_pool(&self) -> Option<HeadPool> {
        self.head_pool
    }

    /// Patches of an image of `height` and `width` pixels.
    pub fn patches(&self, height: usize, width: usize) -> usize {
        let [_, _, patch_height, patch_width] = self.patch_embed.proj.weight.lazy_shape().dims();
        (height / patch_height) * (width / patch_width)
    }

    /// Tokens before the patches: CLS, distillation, registers.
    pub fn prefix_tokens(&self) -> usize {
        let count = |token: &Option<Param<Tensor<3>>>| token.as_ref().map_or(0, |token| token.lazy_shape()[1]);
        count(&self.cls_token) + count(&self.dist_token) + count(&self.reg_token)
    }

    /// Normalised images `[batch, 3, h, w]` to pooled features `[batch, d_model]`, in f32.
    pub fn features(&self, pixels: Tensor<4>) -> Tensor<2> {
        self.features_from(self.tokens(pixels, 0), 0)
    }

    /// Normalised images `[batch, 3, h, w]` to tokens `[batch, tokens, d_model]`, through the first `blocks` blocks.
    pub fn tokens(&self, pixels: Tensor<4>, blocks: usize) -> Tensor<3> {
        let x = self.normed(&self.norm_pre, self.embedded(pixels));
        self.through(&self.blocks[..blocks], x)
    }

    /// Tokens `[batch, tokens, d_model]` that have been through the first `blocks` blocks to pooled features
    /// `[batch, d_model]`.
    pub fn features_from(&self, tokens: Tensor<3>, blocks: usize) -> Tensor<2> {
        let patches = tokens.dims()[1] - self.prefix_tokens();
        self.features_of(tokens, patches, blocks)
    }

    /// [`Vit::features_from`] for tokens of which the last `patches` are the patches: an adapter's prompts may stand before
    /// them.
    pub fn features_of(&self, tokens: Tensor<3>, patches: usize, blocks: usize) -> Tensor<2> {
        let [batch, ..] = tokens.dims();
        // Tokens that were stored between may have another type.
        let tokens = tokens.cast(self.activations);
        let blocks = &self.blocks[blocks..];
        let normed = |x| self.normed(&self.norm, x);
        let all = |tokens| normed(self.through(blocks, tokens));
        // The last ones: prompts of an adapter stand between the prefix and the patches.
        let of_patches = |x: &Tensor<3>| {
            let [_, count, _] = x.dims();
            match self.pool_include_prefix {
                true => x.clone(),
                false => x.clone().narrow(1, count - patches, patches),
            }
        };
        // A mean over many tokens is too inexact in half precision.
        let read = |x: Tensor<3>| of_patches(&x).cast(DType::F32);
        // Norms work token by token, so of the last block no other token's output is needed.
        let first = |tokens: Tensor<3>, count: usize| {
            normed(match blocks.split_last() {
                Some((last, before)) => last.forward_first(self.through(before, tokens), count, self.rope.as_ref()),
                None => tokens.narrow(1, 0, count),
            })
        };
        let pooled = match self.pool {
            Pool::Cls => first(tokens, 1 + usize::from(self.dist_token.is_some()))
                .cast(DType::F32)
                .mean_dim(1),
            Pool::Mean => read(all(tokens)).mean_dim(1),
            Pool::Max => read(all(tokens)).max_dim(1),
            Pool::AvgMax => {
                let x = read(all(tokens));
                (x.clone().mean_dim(1) + x.max_dim(1)).mul_scalar(0.5)
            }
            Pool::Attention => match &self.attn_pool {
                // An adapter's prompts are read where there are no other tokens before the patches.
                Some(pool) if self.prefix_tokens() == 0 => pool.forward(all(tokens)),
                Some(pool) => pool.forward(of_patches(&all(tokens))),
                None => unreachable!("init makes an attention pool for this pooling"),
            },
        };
        let pooled = pooled.cast(DType::F32);
        self.normed(&self.fc_norm, pooled).reshape([batch, self.d_model])
    }

    /// What the head reads of `tokens` `[batch, tokens, d_model]` that have been through all blocks, of which the last
    /// `patches` are the patches: `[batch, d_model or twice that]`.
    fn read_by_head(&self, tokens: Tensor<3>, patches: usize, pool: HeadPool) -> Tensor<2> {
        let [batch, count, _] = tokens.dims();
        let x = match pool {
            HeadPool::MeanUnnormed => tokens,
            _ => self.normed(&self.norm, tokens),
        };
        let x = x.cast(DType::F32);
        let cls = |x: &Tensor<3>| x.clone().narrow(1, 0, 1);
        let mean = |x: Tensor<3>| x.narrow(1, count - patches, patches).mean_dim(1);
        let read = match pool {
            HeadPool::ClsMean => Tensor::cat(vec![cls(&x), mean(x)], 2),
            HeadPool::ClsDist => x.narrow(1, 0, 2),
            HeadPool::Mean | HeadPool::MeanUnnormed => mean(x),
        };
        read.reshape([batch, pool.parts() * self.d_model])
    }

    /// Tokens `[batch, tokens, d_model]` through block number `index`.
    pub fn block(&self, index: usize, tokens: Tensor<3>) -> Tensor<3> {
        self.blocks[index].forward(tokens.cast(self.activations), self.rope.as_ref())
    }

    fn through(&self, blocks: &[Block], tokens: Tensor<3>) -> Tensor<3> {
        blocks
            .iter()
            .fold(tokens, |x, block| block.forward(x, self.rope.as_ref()))
    }

    fn normed<const D: usize>(&self, layer: &Option<LayerNorm>, x: Tensor<D>) -> Tensor<D> {
        match layer {
            Some(layer) => norm(layer, self.epsilon, x),
            None => x,
        }
    }

    /// The input of each block's attention output projection, `[batch, tokens, d_model]`, for normalized images
    /// `[batch, 3, h, w]`.
    pub fn projection_inputs(&self, pixels: Tensor<4>) -> Vec<Tensor<3>> {
        let mut x = self.tokens(pixels, 0);
        let through = |block: &Block| {
            let edited = block.input.forward(x.clone());
            let [_, tokens, _] = edited.dims();
            let mixed = block.mixed(edited.clone(), tokens, self.rope.as_ref());
            x = block.rest(edited, mixed.clone());
            mixed
        };
        self.blocks.iter().map(through).collect()
    }

    /// Patches with the tokens before them and their positions.
    fn embedded(&self, pixels: Tensor<4>) -> Tensor<3> {
        let patches = self.patch_embed.forward(pixels.cast(self.activations));
        let [batch, count, d] = patches.dims();
        let expanded = |token: &Option<Param<Tensor<3>>>| {
            token.as_ref().map(|token| {
                let token = token.val().cast(self.activations);
                let tokens = token.dims()[1];
                token.expand([batch, tokens, d])
            })
        };
        let mut leading: Vec<Tensor<3>> = [expanded(&self.cls_token), expanded(&self.dist_token)]
            .into_iter()
            .flatten()
            .collect();
        let mut registers = expanded(&self.reg_token);
        if self.placed_registers {
            leading.extend(registers.take());
        }
        let joined = |mut parts: Vec<Tensor<3>>, last: Tensor<3>| match parts.is_empty() {
            true => last,
            false => {
                parts.push(last);
                Tensor::cat(parts, 1)
            }
        };
        match &self.pos_embed {
            Some(positions) if positions.lazy_shape()[1] > count => {
                let first = usize::from(self.cls_token.is_some()) + usize::from(self.dist_token.is_some());
                let x = joined(leading, patches) + positions.val().cast(self.activations);
                match registers {
                    None => x,
                    Some(registers) => {
                        let before = x.clone().slice([0..batch, 0..first]);
                        Tensor::cat(vec![before, registers, x.slice([0..batch, first..first + count])], 1)
                    }
                }
            }
            positions => {
                let patches = match positions {
                    Some(positions) => patches + positions.val().cast(self.activations),
                    None => patches,
                };
                joined(leading.into_iter().chain(registers).collect(), patches)
            }
        }
    }

    /// Normalised images `[batch, 3, h, w]` to pooled features `[batch, d_model]`, and logits `[batch, classes]` if there
    /// is a head.
    pub fn outputs(&self, pixels: Tensor<4>) -> (Tensor<2>, Option<Tensor<2>>) {
        let (Some(head), Some(pool)) = (&self.head, self.head_pool) else {
            let features = self.features(pixels);
            let logits = self.head.as_ref().map(|head| head.forward(features.clone()));
            return (features, logits);
        };
        let [_, _, height, width] = pixels.dims();
        let patches = self.patches(height, width);
        let depth = self.blocks.len();
        let tokens = self.tokens(pixels, depth);
        let features = self.features_of(tokens.clone(), patches, depth);
        let logits = head.forward(self.read_by_head(tokens, patches, pool));
        (features, Some(logits))
    }

    /// Pooled features `[batch, d_model]` to logits `[batch, classes]`, of a head that reads them, as that of
    /// [`Vit::with_head`] does; the features if there is no head.
    pub fn classify(&self, features: Tensor<2>) -> Tensor<2> {
        match &self.head {
            Some(head) => head.forward(features),
            None => features,
        }
    }

    /// Normalised images `[batch, 3, h, w]` to logits `[batch, classes]`; the features if there is no head.
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<2> {
        let (features, logits) = self.outputs(pixels);
        logits.unwrap_or(features)
    }
}

/// Cuts an image into patches and projects each.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    /// `[d_model, 3, patch, patch]`
    pub proj: Conv2d,
}

impl PatchEmbed {
    /// `[batch, 3, h, w]` to `[batch, patches, d_model]`.
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        let bias = self.proj.bias.as_ref().map(|bias| bias.val());
        kernels::patch_embed(pixels, self.proj.weight.val(), bias)
    }
}
