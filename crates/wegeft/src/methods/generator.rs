//! Non-linear generators: what may stand between phi and psi (those of WeGeFT's released vision code).
//!
//! The generated factor `C = W phi` is read as `d_out` tokens of `r` channels. A block maps it to the same shape,
//! and psi follows: `W' = W + s · block(W phi) psi`. Because the result is still `[d_out, r]`, the residual stays
//! low-rank: it is applied, merged and exported like LoRA, and no dense residual is formed.

use burn::module::{Initializer, Module};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::{gelu, sigmoid, softmax};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::AdapterError;

/// Kind of block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockKind {
    /// None: plain WeGeFT.
    #[default]
    Identity,
    /// `sigmoid(C)`.
    Sigmoid,
    /// `gelu(C)`.
    Gelu,
    /// `C + mlp(norm C)`, hidden 2r.
    Mlp,
    /// Mixes tokens (d_out → 64 → d_out), then channels (r → 2r → r). Ties the generator to one d_out.
    MlpMixer,
    /// Self-attention of one head over the tokens, then an MLP.
    Transformer,
    /// Attention from the tokens to learned clusters of them (PaCa, Grainger et al. 2023, arXiv 2203.11987), then
    /// an MLP.
    Paca,
    /// PaCa attention without the MLP.
    PacaAttention,
}

/// What normalises a block's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockNorm {
    /// Unit length over the channels, without parameters.
    #[default]
    L2,
    /// LayerNorm over the channels, with parameters.
    Layer,
    /// Nothing.
    None,
}

/// How PaCa turns logits into cluster weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClusterActivation {
    /// Sigmoid, divided by the number of tokens.
    #[default]
    Sigmoid,
    /// Softmax over the tokens.
    Softmax,
}

/// Settings of the generator; the default is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeneratorConfig {
    /// Kind of its blocks.
    pub block: BlockKind,
    /// Number of blocks.
    pub depth: usize,
    /// What normalises each block's input.
    pub norm: BlockNorm,
    /// Clusters of PaCa.
    pub clusters: usize,
    /// How PaCa assigns tokens to clusters.
    pub cluster_activation: ClusterActivation,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self {
            block: BlockKind::Identity,
            depth: 1,
            norm: BlockNorm::L2,
            clusters: 64,
            cluster_activation: ClusterActivation::Sigmoid,
        }
    }
}

/// Hidden size of the mixer's token MLP.
const MIXER_HIDDEN: usize = 64;

impl GeneratorConfig {
    /// One block of that kind.
    pub fn new(block: BlockKind) -> Self {
        Self {
            block,
            ..Self::default()
        }
    }

    /// Refuses sizes that a damaged file may hold and that would fill the memory.
    pub(crate) fn check(&self) -> Result<(), AdapterError> {
        for (field, value, most) in [("depth", self.depth, 64), ("clusters", self.clusters, 1 << 16)] {
            if value > most {
                let message = format!("{field} is {value}; choose at most {most}");
                return Err(AdapterError::bad_field("generator", message));
            }
        }
        Ok(())
    }

    /// True if the generator has no block, so that the residual is linear in W.
    pub fn is_identity(&self) -> bool {
        self.block == BlockKind::Identity || self.depth == 0
    }

    /// True if the blocks are made for one d_out.
    pub fn is_tied_to_d_out(&self) -> bool {
        self.block == BlockKind::MlpMixer && self.depth > 0
    }

    /// Makes the blocks for generated factors of `[d_out, r]`.
    pub fn init(&self, r: usize, d_out: usize, device: &Device) -> Generator {
        let depth = if self.is_identity() { 0 } else { self.depth };
        Generator {
            blocks: (0..depth).map(|_| self.block(r, d_out, device)).collect(),
        }
    }

    /// Trainable values of the blocks for generated factors of `[d_out, r]`.
    pub fn params(&self, r: usize, d_out: usize) -> usize {
        if self.is_identity() {
            return 0;
        }
        let mlp = |size, hidden| (size + 1) * hidden + (hidden + 1) * size;
        let attention = 4 * (r + 1) * r;
        let paca = (r + 1) * self.clusters + attention;
        let (branches, values) = match self.block {
            BlockKind::Identity | BlockKind::Sigmoid | BlockKind::Gelu => (0, 0),
            BlockKind::Mlp => (1, mlp(r, 2 * r)),
            BlockKind::MlpMixer => (2, mlp(d_out, MIXER_HIDDEN) + mlp(r, 2 * r)),
            BlockKind::Transformer => (2, attention + mlp(r, 2 * r)),
            BlockKind::Paca => (2, paca + mlp(r, 2 * r)),
            BlockKind::PacaAttention => (1, paca),
        };
        let norm = if self.norm == BlockNorm::Layer { 2 * r } else { 0 };
        self.depth * (values + branches * norm)
    }

    fn block(&self, r: usize, d_out: usize, device: &Device) -> Block {
        let mlp = |size, hidden| Mlp {
            fc1: LinearConfig::new(size, hidden).init(device),
            fc2: LinearConfig::new(hidden, size).init(device),
        };
        let norm = || Norm {
            layer: (self.norm == BlockNorm::Layer).then(|| LayerNormConfig::new(r).init(device)),
            unit: self.norm == BlockNorm::L2,
        };
        let attention = || Attention {
            q: LinearConfig::new(r, r).init(device),
            k: LinearConfig::new(r, r).init(device),
            v: LinearConfig::new(r, r).init(device),
            proj: LinearConfig::new(r, r).init(device),
        };
        let branch = |mix| Branch { norm: norm(), mix };
        let channels = || branch(Mix::Channels(mlp(r, 2 * r)));
        let paca = || {
            branch(Mix::Clusters(Clusters {
                logits: LinearConfig::new(r, self.clusters)
                    .with_initializer(Initializer::Normal { mean: 0.0, std: 0.02 })
                    .init(device),
                attention: attention(),
                softmax: self.cluster_activation == ClusterActivation::Softmax,
            }))
        };
        let branches = match self.block {
            BlockKind::Identity | BlockKind::Sigmoid | BlockKind::Gelu => Vec::new(),
            BlockKind::Mlp => vec![channels()],
            BlockKind::MlpMixer => vec![branch(Mix::Tokens(mlp(d_out, MIXER_HIDDEN))), channels()],
            BlockKind::Transformer => vec![branch(Mix::Attention(attention())), channels()],
            BlockKind::Paca => vec![paca(), channels()],
            BlockKind::PacaAttention => vec![paca()],
        };
        Block {
            branches,
            kind: self.block,
        }
    }
}

/// The blocks between phi and psi.
#[derive(Module, Debug)]
pub struct Generator {
    /// In order.
    pub blocks: Vec<Block>,
}

impl Generator {
    /// `C`, `[d_out, r]`, to the generated factor of the same shape.
    pub fn forward(&self, c: Tensor<2>) -> Tensor<2> {
        self.blocks.iter().fold(c, |c, block| block.forward(c))
    }
}

/// One block: an element-wise function, or pre-norm branches, each added to its input.
#[derive(Module, Debug)]
pub struct Block {
    /// In order.
    pub branches: Vec<Branch>,
    #[module(skip)]
    kind: BlockKind,
}

impl Block {
    fn forward(&self, c: Tensor<2>) -> Tensor<2> {
        let branches = self.branches.iter();
        match self.kind {
            BlockKind::Sigmoid => sigmoid(c),
            BlockKind::Gelu => gelu(c),
            _ => branches.fold(c, |c, branch| c.clone() + branch.mix.forward(branch.norm.forward(c))),
        }
    }
}

/// A norm and what mixes its output.
#[derive(Module, Debug)]
pub struct Branch {
    norm: Norm,
    mix: Mix,
}

#[derive(Module, Debug)]
struct Norm {
    layer: Option<LayerNorm>,
    unit: bool,
}

impl Norm {
    fn forward(&self, c: Tensor<2>) -> Tensor<2> {
        match &self.layer {
            Some(layer) => layer.forward(c),
            None if self.unit => unit(c),
            None => c,
        }
    }
}

/// Each row at unit length; a row of zeros stays one.
fn unit(c: Tensor<2>) -> Tensor<2> {
    let length = (c.clone() * c.clone()).sum_dim(1).add_scalar(1e-24).sqrt();
    c / length
}

#[derive(Module, Debug)]
enum Mix {
    Channels(Mlp),
    Tokens(Mlp),
    Attention(Attention),
    Clusters(Clusters),
}

impl Mix {
    fn forward(&self, c: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Channels(mlp) => mlp.forward(c),
            Self::Tokens(mlp) => mlp.forward(c.transpose()).transpose(),
            Self::Attention(attention) => attention.forward(c.clone(), c),
            Self::Clusters(clusters) => clusters.forward(c),
        }
    }
}

#[derive(Module, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.fc2.forward(gelu(self.fc1.forward(x)))
    }
}

#[derive(Module, Debug)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    proj: Linear,
}

impl Attention {
    /// One head: queries of `tokens` (`[n, r]`), keys and values of `context` (`[m, r]`).
    fn forward(&self, tokens: Tensor<2>, context: Tensor<2>) -> Tensor<2> {
        let [_, r] = tokens.dims();
        let q = self.q.forward(tokens).mul_scalar((r as f64).powf(-0.5));
        let scores = q.matmul(self.k.forward(context.clone()).transpose());
        self.proj.forward(softmax(scores, 1).matmul(self.v.forward(context)))
    }
}

#[derive(Module, Debug)]
struct Clusters {
    logits: Linear,
    attention: Attention,
    softmax: bool,
}

impl Clusters {
    fn forward(&self, c: Tensor<2>) -> Tensor<2> {
        let [tokens, _] = c.dims();
        let logits = self.logits.forward(c.clone());
        let weights = match self.softmax {
            true => softmax(logits, 0),
            false => sigmoid(logits).div_scalar(tokens as f64),
        };
        let clusters = unit(weights.transpose().matmul(c.clone()));
        self.attention.forward(c, clusters)
    }
}
