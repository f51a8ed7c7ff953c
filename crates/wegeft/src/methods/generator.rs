//! Non-linear generators: the blocks between phi and psi of WeGeFT's released vision code.
//!
//! The generated factor `C = W phi` is treated as `d_out` tokens of `r` channels. A block maps it to the same shape,
//! and psi follows: `W' = W + s · block(W phi) psi`. Because the result is still `[d_out, r]`, the residual stays
//! low-rank: it is applied, merged and exported like LoRA, and no dense residual is formed.

use serde::{Deserialize, Serialize};

use super::generator_net::{Attention, Block, Clusters, Dense, Generator, Mix, Mlp, Norm};
use crate::error::AdapterError;
use crate::factors::{Factors, Init, Spec};

/// What a block computes from `C`, `[d_out, r]`.
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

/// Normalization of a block's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockNorm {
    /// Unit length over the channels, without parameters.
    #[default]
    L2,
    /// LayerNorm over the channels, with parameters.
    Layer,
    /// No normalization.
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

/// Settings of the generator. The default has no blocks: plain WeGeFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeneratorConfig {
    /// Kind of its blocks.
    pub block: BlockKind,
    /// Number of blocks.
    pub depth: usize,
    /// Normalization of each block's input.
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

    /// Refuses sizes, as in a damaged file, that would exhaust memory.
    pub(super) fn check(&self) -> Result<(), AdapterError> {
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

    /// True if the blocks depend on d_out.
    pub fn is_tied_to_d_out(&self) -> bool {
        self.block == BlockKind::MlpMixer && self.depth > 0
    }

    /// The specs of the blocks' factors, for a generated factor of `[d_out, r]`.
    pub(super) fn specs(&self, r: usize, d_out: usize) -> Vec<Spec> {
        let mut specs = Vec::new();
        for block in 0..self.blocks() {
            for (branch, kind) in self.branches().iter().enumerate() {
                let path = Path::new(block, branch);
                if self.norm == BlockNorm::Layer {
                    specs.push(path.spec("norm.layer.weight", [r]).with_init(Init::Ones));
                    specs.push(path.spec("norm.layer.bias", [r]));
                }
                match kind {
                    Branch::Channels => path.mlp(&mut specs, r, 2 * r),
                    Branch::Tokens => path.mlp(&mut specs, d_out, MIXER_HIDDEN),
                    Branch::Attention => path.attention(&mut specs, "mix", r),
                    Branch::Clusters => {
                        let logits = path.dense("mix.logits", r, self.clusters, Init::Normal(0.02));
                        // Cluster maps take no weight decay: the filter of WeGeFT's released vision code.
                        specs.extend(logits.map(Spec::without_decay));
                        path.attention(&mut specs, "mix.attention", r);
                    }
                }
            }
        }
        specs
    }

    /// The blocks of the factors that [`GeneratorConfig::specs`] lists.
    pub(super) fn bind(&self, factors: &Factors) -> Generator {
        let branch = |block, branch, kind: &Branch| {
            let path = Path::new(block, branch);
            let norm = match self.norm {
                BlockNorm::L2 => Norm::Unit,
                BlockNorm::None => Norm::None,
                BlockNorm::Layer => {
                    let vector = |field: &str| factors.vector(&path.name(field));
                    Norm::Layer(Box::new([vector("norm.layer.weight"), vector("norm.layer.bias")]))
                }
            };
            let mlp = || Mlp {
                fc1: Dense::of(factors, &path.name("mix.fc1")),
                fc2: Dense::of(factors, &path.name("mix.fc2")),
            };
            let mix = match kind {
                Branch::Channels => Mix::Channels(mlp()),
                Branch::Tokens => Mix::Tokens(mlp()),
                Branch::Attention => Mix::Attention(Box::new(Attention::of(factors, &path.name("mix")))),
                Branch::Clusters => Mix::Clusters(Box::new(Clusters {
                    logits: Dense::of(factors, &path.name("mix.logits")),
                    attention: Attention::of(factors, &path.name("mix.attention")),
                    softmax: self.cluster_activation == ClusterActivation::Softmax,
                })),
            };
            (norm, mix)
        };
        let block = |block| match self.block {
            BlockKind::Sigmoid => Block::Sigmoid,
            BlockKind::Gelu => Block::Gelu,
            _ => {
                let branches = self.branches().iter().enumerate();
                Block::Branches(branches.map(|(index, kind)| branch(block, index, kind)).collect())
            }
        };
        Generator {
            blocks: (0..self.blocks()).map(block).collect(),
        }
    }

    fn blocks(&self) -> usize {
        if self.is_identity() { 0 } else { self.depth }
    }

    fn branches(&self) -> &'static [Branch] {
        match self.block {
            BlockKind::Identity | BlockKind::Sigmoid | BlockKind::Gelu => &[],
            BlockKind::Mlp => &[Branch::Channels],
            BlockKind::MlpMixer => &[Branch::Tokens, Branch::Channels],
            BlockKind::Transformer => &[Branch::Attention, Branch::Channels],
            BlockKind::Paca => &[Branch::Clusters, Branch::Channels],
            BlockKind::PacaAttention => &[Branch::Clusters],
        }
    }
}

/// What a branch of a block operates on.
enum Branch {
    Channels,
    Tokens,
    Attention,
    Clusters,
}

/// Prefix of the names of a branch's factors.
struct Path(String);

impl Path {
    fn new(block: usize, branch: usize) -> Self {
        Self(format!("generator.blocks.{block}.branches.{branch}"))
    }

    fn name(&self, field: &str) -> String {
        format!("{}.{field}", self.0)
    }

    fn spec(&self, field: &str, shape: impl Into<Vec<usize>>) -> Spec {
        let name = self.name(field);
        Spec::new(name.clone(), format!("wegeft_{name}"), shape)
    }

    fn dense(&self, field: &str, d_in: usize, d_out: usize, init: Init) -> [Spec; 2] {
        [
            self.spec(&format!("{field}.weight"), [d_in, d_out])
                .with_init(init)
                .transposed(),
            self.spec(&format!("{field}.bias"), [d_out]).with_init(init),
        ]
    }

    fn mlp(&self, specs: &mut Vec<Spec>, size: usize, hidden: usize) {
        specs.extend(self.dense("mix.fc1", size, hidden, uniform(size)));
        specs.extend(self.dense("mix.fc2", hidden, size, uniform(hidden)));
    }

    fn attention(&self, specs: &mut Vec<Spec>, field: &str, r: usize) {
        for layer in ["q", "k", "v", "proj"] {
            specs.extend(self.dense(&format!("{field}.{layer}"), r, r, uniform(r)));
        }
    }
}

/// Initialization of linear layers in Burn and PyTorch: U(±1/√d_in) for weight and bias.
fn uniform(d_in: usize) -> Init {
    Init::Uniform(1.0 / (d_in as f64).sqrt())
}
