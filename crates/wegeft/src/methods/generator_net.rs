//! The network of a non-linear generator, as [`super::generator`] describes it.

use burn::tensor::Tensor;
use burn::tensor::activation::{gelu, sigmoid, softmax};
use burn::tensor::module::{layer_norm, linear};

use crate::factors::Factors;

/// The blocks between phi and psi.
#[derive(Debug, Clone)]
pub(super) struct Generator {
    pub(super) blocks: Vec<Block>,
}

impl Generator {
    /// True if there is no block, so that the residual is linear in W.
    pub(super) fn is_identity(&self) -> bool {
        self.blocks.is_empty()
    }

    /// `C`, `[d_out, r]`, to the generated factor of the same shape.
    pub(super) fn forward(&self, c: Tensor<2>) -> Tensor<2> {
        self.blocks.iter().fold(c, |c, block| match block {
            Block::Sigmoid => sigmoid(c),
            Block::Gelu => gelu(c),
            Block::Branches(branches) => branches
                .iter()
                .fold(c, |c, (norm, mix)| c.clone() + mix.forward(norm.forward(c))),
        })
    }
}

/// One block, `[d_out, r]` to `[d_out, r]`.
#[derive(Debug, Clone)]
pub(super) enum Block {
    Sigmoid,
    Gelu,
    /// Pre-norm branches, each added to its input.
    Branches(Vec<(Norm, Mix)>),
}

#[derive(Debug, Clone)]
pub(super) enum Norm {
    Unit,
    None,
    Layer(Box<[Tensor<1>; 2]>),
}

/// As in Burn's and PyTorch's LayerNorm.
const EPSILON: f64 = 1e-5;

impl Norm {
    fn forward(&self, c: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Unit => unit(c),
            Self::None => c,
            Self::Layer(affine) => {
                let [gamma, beta] = (**affine).clone();
                layer_norm(c, gamma, Some(beta), EPSILON)
            }
        }
    }
}

/// Scales each row to unit length; rows of zeros stay zero.
fn unit(c: Tensor<2>) -> Tensor<2> {
    let length = (c.clone() * c.clone()).sum_dim(1).add_scalar(1e-24).sqrt();
    c / length
}

#[derive(Debug, Clone)]
pub(super) enum Mix {
    Channels(Mlp),
    Tokens(Mlp),
    Attention(Box<Attention>),
    Clusters(Box<Clusters>),
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

#[derive(Debug, Clone)]
pub(super) struct Dense {
    weight: Tensor<2>,
    bias: Tensor<1>,
}

impl Dense {
    pub(super) fn of(factors: &Factors, name: &str) -> Self {
        Self {
            weight: factors.matrix(&format!("{name}.weight")),
            bias: factors.vector(&format!("{name}.bias")),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        linear(x, self.weight.clone(), Some(self.bias.clone()))
    }
}

#[derive(Debug, Clone)]
pub(super) struct Mlp {
    pub(super) fc1: Dense,
    pub(super) fc2: Dense,
}

impl Mlp {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.fc2.forward(gelu(self.fc1.forward(x)))
    }
}

#[derive(Debug, Clone)]
pub(super) struct Attention {
    q: Dense,
    k: Dense,
    v: Dense,
    proj: Dense,
}

impl Attention {
    pub(super) fn of(factors: &Factors, name: &str) -> Self {
        let dense = |layer: &str| Dense::of(factors, &format!("{name}.{layer}"));
        Self {
            q: dense("q"),
            k: dense("k"),
            v: dense("v"),
            proj: dense("proj"),
        }
    }

    /// One head: queries of `tokens` (`[n, r]`), keys and values of `context` (`[m, r]`).
    fn forward(&self, tokens: Tensor<2>, context: Tensor<2>) -> Tensor<2> {
        let [_, r] = tokens.dims();
        let q = self.q.forward(tokens).mul_scalar((r as f64).powf(-0.5));
        let scores = q.matmul(self.k.forward(context.clone()).transpose());
        self.proj.forward(softmax(scores, 1).matmul(self.v.forward(context)))
    }
}

#[derive(Debug, Clone)]
pub(super) struct Clusters {
    pub(super) logits: Dense,
    pub(super) attention: Attention,
    /// Softmax over the tokens; otherwise a sigmoid, divided by their number.
    pub(super) softmax: bool,
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
