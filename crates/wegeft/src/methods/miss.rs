//! MiSS (Matrix Shard Sharing, Kang and Yin 2024, arXiv 2409.15371): `y = x W + b + (Σ of x's shards of r) D`. The rows of the
//! residual repeat with period r, so that only one matrix D, `[r, d_out]`, is trained. It starts at 0. The shards of x are
//! summed, so that only a product with `[n, r]` is left. PEFT has two variants:
//!
//! - `mini`: D of `[r, mini_r]`, repeated along the outputs too;
//! - `bat`: `W' = W + (W + I) D` in blocks of r by r, a D for each block of outputs: the residual depends on W.

use std::sync::Arc;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check::check_probability;
use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Init, Spec};
use crate::group::Group;
use crate::lazy::{Lazy, lazy};
use crate::low_rank::LowRank;
use crate::method::{self, Method};
use crate::site::{Site, SiteKind};
use crate::tensor::{cast, dropped, for_products};

/// The variant, or the initialization: PEFT's `init_weights`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissVariant {
    /// The residual depends on W.
    Bat,
    /// D repeats along the outputs.
    Mini,
    /// Plain MiSS. True: D starts at 0; false: Kaiming-uniform.
    #[serde(untagged)]
    Plain(bool),
}

/// Settings of MiSS; names as in PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MissConfig {
    /// Length of a shard, and rank of the residual.
    pub r: usize,
    /// Number of outputs after which D repeats, in the variant `mini`.
    #[serde(default = "one")]
    pub mini_r: usize,
    /// Dropout on the input of D, in training.
    #[serde(rename = "miss_dropout", default)]
    pub dropout: f64,
    /// The variant.
    #[serde(rename = "init_weights", default = "plain")]
    pub variant: MissVariant,
}

fn one() -> usize {
    1
}

fn plain() -> MissVariant {
    MissVariant::Plain(true)
}

impl MissConfig {
    /// Plain MiSS of rank `r`.
    pub fn new(r: usize) -> Self {
        Self {
            r,
            mini_r: one(),
            dropout: 0.0,
            variant: plain(),
        }
    }

    /// Sets the variant.
    pub fn with_variant(mut self, variant: MissVariant) -> Self {
        self.variant = variant;
        self
    }

    /// Sets the variant `mini`, and the number of outputs after which D repeats.
    pub fn with_mini_r(mut self, mini_r: usize) -> Self {
        (self.mini_r, self.variant) = (mini_r, MissVariant::Mini);
        self
    }

    /// Sets the dropout on the input of D.
    pub fn with_dropout(mut self, p: f64) -> Self {
        self.dropout = p;
        self
    }

    fn check(&self, site: &Site) -> Result<(), AdapterError> {
        let bad = |field: &str, message: String| Err(AdapterError::bad_field(field, message));
        let (module, d_in, d_out) = (site.module(), site.d_in, site.d_out);
        match self.variant {
            MissVariant::Bat if !d_in.is_multiple_of(self.r) || !d_out.is_multiple_of(self.r) => bad(
                "r",
                format!("{} does not divide the sizes of '{module}', {d_in} and {d_out}", self.r),
            ),
            MissVariant::Mini if self.mini_r == 0 || !d_out.is_multiple_of(self.mini_r) => bad(
                "mini_r",
                format!("{} does not divide the {d_out} outputs of '{module}'", self.mini_r),
            ),
            MissVariant::Bat if self.dropout > 0.0 => bad(
                "miss_dropout",
                "acts on the input of D, which in the variant bat is W; set it to 0".into(),
            ),
            _ => Ok(()),
        }
    }
}

impl Method for MissConfig {
    fn name(&self) -> &'static str {
        "MISS"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn takes(&self, kind: SiteKind) -> bool {
        kind == SiteKind::Matrix
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        check_probability("miss_dropout", self.dropout)?;
        let mut groups = Group::each(sites);
        for group in &mut groups {
            group.rank = self.r;
            group.check_rank(|site| site.d_in)?;
            self.check(group.site())?;
        }
        Ok(groups)
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        let (r, d_out) = (self.r, group.site().d_out);
        let shape = match self.variant {
            MissVariant::Plain(_) => vec![r, d_out],
            MissVariant::Mini => vec![r, self.mini_r],
            MissVariant::Bat => vec![d_out / r, r, r],
        };
        let block = Spec::new("block", "miss_block", shape);
        vec![match self.variant {
            MissVariant::Plain(false) => block.with_init(Init::Uniform(1.0 / (d_out as f64).sqrt())),
            _ => block,
        }]
    }

    fn bind(&self, group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        match self.variant {
            MissVariant::Bat => Arc::new(BoundBat {
                blocks: factors.get("block"),
            }),
            MissVariant::Mini => Arc::new(BoundMiss {
                shard: {
                    let (block, times) = (factors.matrix("block"), group.site().d_out / self.mini_r);
                    lazy(move || block.repeat_dim(1, times))
                },
                dropout: self.dropout,
            }),
            MissVariant::Plain(_) => Arc::new(BoundMiss {
                shard: {
                    let block = factors.matrix("block");
                    lazy(move || block)
                },
                dropout: self.dropout,
            }),
        }
    }

    fn has_lora_form(&self) -> bool {
        self.variant != MissVariant::Bat
    }
}

/// The edit of a bound site.
#[derive(Debug)]
struct BoundMiss {
    /// `[r, d_out]`
    shard: Lazy<Tensor<2>>,
    dropout: f64,
}

impl BoundMiss {
    /// The sum of the shards of x, `[n, r]`; the last shard may be shorter.
    fn summed(&self, x: Tensor<2>) -> Tensor<2> {
        let ([n, d_in], [r, _]) = (x.dims(), self.shard.dims());
        let shards = d_in / r;
        let whole = x
            .clone()
            .narrow(1, 0, shards * r)
            .reshape([n, shards, r])
            .sum_dim(1)
            .reshape([n, r]);
        match d_in - shards * r {
            0 => whole,
            rest => {
                let last = x.narrow(1, shards * r, rest);
                let start = whole.clone().narrow(1, 0, rest) + last;
                Tensor::cat(vec![start, whole.narrow(1, rest, r - rest)], 1)
            }
        }
    }
}

impl Edit for BoundMiss {
    fn update(&self, x: Tensor<2>, _weight: Tensor<2>) -> Tensor<2> {
        let dtype = x.dtype();
        let read = dropped(for_products(x), self.dropout);
        let shard = cast(self.shard.clone(), read.dtype());
        cast(self.summed(read).matmul(shard), dtype)
    }

    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        let ([d_in, _], [r, _]) = (weight.dims(), self.shard.dims());
        let rows = self.shard.clone().repeat_dim(0, d_in.div_ceil(r)).narrow(0, 0, d_in);
        cast(rows, weight.dtype())
    }

    fn residual_in_training(&self, weight: Tensor<2>) -> Tensor<2> {
        let mask = Tensor::ones([weight.dims()[0], 1], (&weight.device(), weight.dtype()));
        self.residual(weight) * dropped(mask, self.dropout)
    }

    // A adds up the shards: it has a 1 in row i mod r of column i.
    fn low_rank(&self, weight: Tensor<2>) -> Option<LowRank> {
        let ([d_in, _], [r, _]) = (weight.dims(), self.shard.dims());
        let identity = Tensor::<2>::eye(r, &self.shard.device()).cast(self.shard.dtype());
        Some(LowRank {
            a: identity.repeat_dim(1, d_in.div_ceil(r)).narrow(1, 0, d_in),
            b: self.shard.clone().transpose(),
            scale: 1.0,
        })
    }

    fn unmerged(&self, merged: Tensor<2>) -> Option<Tensor<2>> {
        Some(merged.clone() - self.residual(merged))
    }
}

/// The edit of a bound site in the variant `bat`.
#[derive(Debug)]
struct BoundBat {
    /// `[d_out / r, r, r]`
    blocks: Tensor<3>,
}

impl Edit for BoundBat {
    // In PyTorch's orientation the block W_ij of r outputs and r inputs becomes W_ij + W_ij D_i + D_i.
    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        let ([d_in, d_out], [outs, r, _]) = (weight.dims(), self.blocks.dims());
        let ins = d_in / r;
        let blocks = self.blocks.clone().reshape([1, outs, r, r]);
        let of_weight = cast(weight.clone(), blocks.dtype())
            .transpose()
            .reshape([outs, r, ins, r])
            .permute([2, 0, 1, 3]);
        let change = of_weight.matmul(blocks.clone().expand([ins, outs, r, r])) + blocks;
        let change = change.permute([1, 2, 0, 3]).reshape([d_out, d_in]).transpose();
        cast(change, weight.dtype())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AdapterConfig;
    use crate::methods::laws::Case;

    #[test]
    fn keeps_the_laws() {
        for config in [
            MissConfig::new(2),
            MissConfig::new(3),
            MissConfig::new(2).with_mini_r(2),
            MissConfig::new(2).with_variant(MissVariant::Bat),
        ] {
            Case::new(AdapterConfig::new(config).with_target_modules(["up", "down"])).check();
        }
    }
}
