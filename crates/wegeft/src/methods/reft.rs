//! ReFT (Representation Fine-Tuning, Wu et al. 2024, arXiv 2404.03592): low-rank edits of hidden states at the
//! first and last tokens.
//!
//! - LoReFT: `h + Rᵀ(W h + b − R h)`, R of `[r, d]` with orthonormal rows. R stays orthonormal because what is trained
//!   is r reflection vectors of the same shape, from which each forward pass makes R ([`super::orthonormal`]);
//! - DiReFT: `h + W₂ᵀ(W₁ h + b)`.
//!
//! The weights start random, as in the authors' library: the adapted model does not start as the frozen one. The
//! paper's settings for LLaMA 7B: r = 8, position f7+l7 with shared weights, every layer's output.
//!
//! Positions count within the tokens that a forward pass reads, padding too. When generating with a cache, bind for
//! the prompt and use the frozen model for the tokens that follow, as the paper does.

use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use serde::{Deserialize, Serialize};

use super::orthonormal::{random_reflectors, rotation};
use super::wegeft::check_probability;
use super::{Edit, Factors, Recipe, cast, dropped};
use crate::bank::{Group, check_rank, own_groups};
use crate::config::Targets;
use crate::error::AdapterError;
use crate::select;
use crate::site::{Places, Site};
use crate::weights::Weights;

/// Which edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intervention {
    /// `h + Rᵀ(W h + b − R h)`
    Loreft,
    /// `h + W₂ᵀ(W₁ h + b)`
    Direft,
}

/// Which tokens are edited; on disk `all`, or the first and last n as in `f7+l7`, `f5`, `l1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Positions {
    /// All of them.
    All,
    /// Those at the ends.
    Ends {
        /// Number from the first on.
        first: usize,
        /// Number up to the last.
        last: usize,
    },
}

impl TryFrom<String> for Positions {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let (mut first, mut last) = (0, 0);
        for part in text.split('+') {
            let count = |letter| part.strip_prefix(letter).and_then(|n| n.parse::<usize>().ok());
            match (count('f'), count('l')) {
                (Some(n), _) => first = n,
                (_, Some(n)) => last = n,
                _ => {
                    return Err(format!(
                        "field 'position' is '{text}'; write it as f7+l7, f5, l1 or all"
                    ));
                }
            }
        }
        Ok(Self::Ends { first, last })
    }
}

impl From<Positions> for String {
    fn from(positions: Positions) -> Self {
        match positions {
            Positions::All => "all".to_string(),
            Positions::Ends { first, last } => format!("f{first}+l{last}"),
        }
    }
}

/// Settings of ReFT. `target_modules` names hooks; without, every block's `output`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReftConfig {
    /// Rank of the edit.
    pub r: usize,
    /// Which edit.
    pub intervention: Intervention,
    /// Which tokens.
    pub position: Positions,
    /// The first and the last tokens have the same weights ("tied"); otherwise each end its own.
    pub share_weights: bool,
    /// Dropout on the edit, in training.
    #[serde(default)]
    pub dropout: f64,
}

impl ReftConfig {
    /// LoReFT of rank `r` at f7+l7, tied.
    pub fn loreft(r: usize) -> Self {
        Self {
            r,
            intervention: Intervention::Loreft,
            position: Positions::Ends { first: 7, last: 7 },
            share_weights: true,
            dropout: 0.0,
        }
    }

    /// DiReFT of rank `r` at f7+l7, tied.
    pub fn direft(r: usize) -> Self {
        Self {
            intervention: Intervention::Direft,
            ..Self::loreft(r)
        }
    }

    /// Sets the edited tokens.
    pub fn with_position(mut self, position: Positions) -> Self {
        self.position = position;
        self
    }

    /// Sets whether both ends have the same weights.
    pub fn with_share_weights(mut self, share: bool) -> Self {
        self.share_weights = share;
        self
    }

    /// Sets the dropout on the edit.
    pub fn with_dropout(mut self, p: f64) -> Self {
        self.dropout = p;
        self
    }

    /// Number of edits with weights of their own.
    fn edits(&self) -> usize {
        match self.position {
            Positions::Ends { first, last } if !self.share_weights && first > 0 && last > 0 => 2,
            _ => 1,
        }
    }

    fn edit(&self, d: usize, device: &Device) -> Factor {
        let bound = 1.0 / (d as f64).sqrt();
        let uniform = Distribution::Uniform(-bound, bound);
        let write = match self.intervention {
            Intervention::Loreft => random_reflectors(self.r, d, device),
            Intervention::Direft => Tensor::random([self.r, d], uniform, device),
        };
        Factor {
            write: Param::from_tensor(write),
            read: Param::from_tensor(Tensor::random([self.r, d], uniform, device)),
            bias: Param::from_tensor(Tensor::random([self.r], uniform, device)),
        }
    }
}

impl Recipe for ReftConfig {
    fn sites(&self, places: &Places, targets: &Targets) -> Result<Vec<Site>, AdapterError> {
        select::find_hooks(&places.hooks, targets, &["output"])
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        check_probability("dropout", self.dropout)?;
        if self.position == (Positions::Ends { first: 0, last: 0 }) {
            return Err(AdapterError::bad_field(
                "position",
                "names no token; write it as f7+l7, f5, l1 or all",
            ));
        }
        for site in sites {
            check_rank(self.r, site, site.d_in)?;
        }
        Ok(own_groups(sites))
    }

    fn params(&self, group: &Group) -> usize {
        self.edits() * (2 * self.r * group.sites[0].d_in + self.r)
    }

    fn make(&self, groups: &[Group], _weights: &Weights, device: &Device) -> Result<Vec<Factors>, AdapterError> {
        let (first, last) = match self.position {
            Positions::All => (usize::MAX, 0),
            Positions::Ends { first, last } => (first, last),
        };
        let factors = groups.iter().map(|group| {
            let edits = (0..self.edits()).map(|_| self.edit(group.sites[0].d_in, device));
            Factors::Reft(Reft {
                edits: edits.collect(),
                orthonormal: self.intervention == Intervention::Loreft,
                first,
                last,
                dropout: self.dropout,
            })
        });
        Ok(factors.collect())
    }

    fn merges(&self) -> bool {
        false
    }
}

/// The edits of one site.
#[derive(Module, Debug)]
pub struct Reft {
    /// One for both ends, or the first tokens' and the last tokens'.
    pub edits: Vec<Factor>,
    orthonormal: bool,
    first: usize,
    last: usize,
    dropout: f64,
}

/// The weights of one edit.
#[derive(Module, Debug)]
pub struct Factor {
    /// The vectors that R is made of, or W₂; `[r, d]`.
    pub write: Param<Tensor<2>>,
    /// W, or W₁; `[r, d]`.
    pub read: Param<Tensor<2>>,
    /// b, `[r]`
    pub bias: Param<Tensor<1>>,
}

impl Reft {
    pub(crate) fn bind(&self) -> BoundReft {
        let edits = self.edits.iter().map(|edit| {
            let (write, read) = (edit.write.val(), edit.read.val());
            let bias = edit.bias.val();
            match self.orthonormal {
                true => {
                    let r = rotation(write);
                    BoundFactor {
                        read: read - r.clone(),
                        write: r,
                        bias,
                    }
                }
                false => BoundFactor { write, read, bias },
            }
        });
        BoundReft {
            edits: edits.collect(),
            first: self.first,
            last: self.last,
            dropout: self.dropout,
        }
    }
}

/// The edits as a bound hook sees them.
#[derive(Module, Debug)]
pub struct BoundReft {
    edits: Vec<BoundFactor>,
    first: usize,
    last: usize,
    dropout: f64,
}

/// `h + writeᵀ(read h + bias)`
#[derive(Module, Debug)]
struct BoundFactor {
    write: Tensor<2>,
    read: Tensor<2>,
    bias: Tensor<1>,
}

impl BoundFactor {
    fn edit(&self, h: Tensor<3>, dropout: f64) -> Tensor<3> {
        let [batch, tokens, d] = h.dims();
        let rows = cast(h.clone().reshape([batch * tokens, d]), self.read.dtype());
        let code = rows.matmul(self.read.clone().transpose()) + self.bias.clone().unsqueeze::<2>();
        let change = dropped(code.matmul(self.write.clone()), dropout);
        h.clone() + cast(change.reshape([batch, tokens, d]), h.dtype())
    }
}

impl Edit for BoundReft {
    fn activation(&self, h: Tensor<3>) -> Tensor<3> {
        let [_, tokens, _] = h.dims();
        let first = self.first.min(tokens);
        let last = self.last.min(tokens - first);
        let middle = tokens - first - last;
        let (start, end) = (&self.edits[0], &self.edits[self.edits.len() - 1]);
        if middle == 0 && self.edits.len() == 1 {
            return start.edit(h, self.dropout);
        }
        let part = |from, length| h.clone().narrow(1, from, length);
        let mut parts = Vec::with_capacity(3);
        if first > 0 {
            parts.push(start.edit(part(0, first), self.dropout));
        }
        if middle > 0 {
            parts.push(part(first, middle));
        }
        if last > 0 {
            parts.push(end.edit(part(first + middle, last), self.dropout));
        }
        Tensor::cat(parts, 1)
    }
}
