//! OFT (Orthogonal Fine-Tuning, Qiu et al. 2023, arXiv 2306.07280; OFTv2, Qiu et al. 2025, arXiv 2506.19847): the input
//! channels of a layer are rotated block by block: `y = (x R) W + b`, with R block-diagonal and orthogonal. Each block is the
//! Cayley transform of a skew-symmetric matrix, or the first terms of its Neumann series; only the upper triangles are stored.
//! They start at 0, so that R = I.

use std::sync::Arc;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::cayley::{Turn, cayley, cayley_neumann, skew_from_upper};
use super::check::check_probability;
use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Init, Spec};
use crate::group::Group;
use crate::lazy::{Lazy, lazy};
use crate::method::{self, Method};
use crate::site::{Site, SiteKind};
use crate::tensor::{affine, cast, product};

/// Settings of OFT; names as in PEFT. Either `r` or `oft_block_size` is set, and the other is 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OftConfig {
    /// Number of blocks; 0 if `oft_block_size` is set.
    #[serde(default)]
    pub r: usize,
    /// Size of a block; 0 if `r` is set. A size that does not divide d_in is rounded to the nearest divisor. Before version
    /// 0.14, PEFT used this method's name for another method, without this field.
    pub oft_block_size: usize,
    /// Share of the blocks that are replaced by the identity, in training.
    #[serde(default)]
    pub module_dropout: f64,
    /// Whether blocks are kept within `eps` of the identity (constrained OFT).
    #[serde(default)]
    pub coft: bool,
    /// Largest norm of all skew-symmetric matrices together, with `coft`.
    #[serde(default = "eps")]
    pub eps: f64,
    /// Whether all blocks of a site share one matrix.
    #[serde(default)]
    pub block_share: bool,
    /// Whether to use the Neumann series instead of the exact transform.
    #[serde(default = "yes")]
    pub use_cayley_neumann: bool,
    /// Number of terms of the series.
    #[serde(default = "five")]
    pub num_cayley_neumann_terms: usize,
    /// Whether R starts as I; otherwise it starts near I.
    #[serde(default = "yes")]
    pub init_weights: bool,
}

fn eps() -> f64 {
    6e-5
}

fn yes() -> bool {
    true
}

fn five() -> usize {
    5
}

impl OftConfig {
    /// Blocks of `oft_block_size` channels.
    pub fn new(oft_block_size: usize) -> Self {
        Self {
            r: 0,
            oft_block_size,
            module_dropout: 0.0,
            coft: false,
            eps: eps(),
            block_share: false,
            use_cayley_neumann: true,
            num_cayley_neumann_terms: five(),
            init_weights: true,
        }
    }

    /// Sets whether the transform is exact.
    pub fn with_exact(mut self, exact: bool) -> Self {
        self.use_cayley_neumann = !exact;
        self
    }

    /// Sets whether all blocks of a site share one matrix.
    pub fn with_block_share(mut self, block_share: bool) -> Self {
        self.block_share = block_share;
        self
    }

    /// Keeps the blocks within `eps` of the identity.
    pub fn with_constraint(mut self, eps: f64) -> Self {
        (self.coft, self.eps) = (true, eps);
        self
    }

    /// Sets the share of the blocks that are replaced by the identity, in training.
    pub fn with_dropout(mut self, p: f64) -> Self {
        self.module_dropout = p;
        self
    }

    /// Number and size of the blocks at a site.
    fn blocks(&self, site: &Site) -> (usize, usize) {
        match self.r {
            0 => {
                let size = nearest_divisor(site.d_in, self.oft_block_size);
                (site.d_in / size, size)
            }
            r => {
                let count = nearest_divisor(site.d_in, r);
                (count, site.d_in / count)
            }
        }
    }

    fn check(&self) -> Result<(), AdapterError> {
        check_probability("module_dropout", self.module_dropout)?;
        if (self.r == 0) == (self.oft_block_size == 0) {
            let message = format!(
                "is {} and oft_block_size is {}; set one of them to 0, since their product is d_in",
                self.r, self.oft_block_size
            );
            return Err(AdapterError::bad_field("r", message));
        }
        if self.coft && !(self.eps.is_finite() && self.eps > 0.0) {
            return Err(AdapterError::bad_field(
                "eps",
                format!("{} is not a valid norm; set it above 0", self.eps),
            ));
        }
        // More terms make no difference in f32 if the series converges.
        match self.use_cayley_neumann && !(1..=64).contains(&self.num_cayley_neumann_terms) {
            false => Ok(()),
            true => {
                let message = format!("{} is out of range; choose 1 to 64", self.num_cayley_neumann_terms);
                Err(AdapterError::bad_field("num_cayley_neumann_terms", message))
            }
        }
    }
}

/// The divisor of `size` nearest to `wanted`; the smaller one of two equally near.
fn nearest_divisor(size: usize, wanted: usize) -> usize {
    let divisors = (1..=size).filter(|divisor| size.is_multiple_of(*divisor));
    divisors.min_by_key(|divisor| divisor.abs_diff(wanted)).unwrap_or(1)
}

impl Method for OftConfig {
    fn name(&self) -> &'static str {
        "OFT"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn check_fresh(&self) -> Result<(), AdapterError> {
        match self.block_share && self.module_dropout > 0.0 {
            true => Err(AdapterError::bad_field(
                "module_dropout",
                "has no effect with block_share, whose one matrix is never dropped; set one of the two",
            )),
            false => Ok(()),
        }
    }

    fn takes(&self, kind: SiteKind) -> bool {
        kind == SiteKind::Matrix
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        self.check()?;
        for site in sites {
            let (_, size) = self.blocks(site);
            if size < 2 {
                let message = format!(
                    "gives blocks of size 1 for the {} channels of '{}', which cannot rotate",
                    site.d_in,
                    site.module()
                );
                return Err(AdapterError::bad_field("oft_block_size", message));
            }
        }
        Ok(Group::each(sites))
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        let (count, size) = self.blocks(group.site());
        let count = if self.block_share { 1 } else { count };
        let upper = Spec::new("upper", "oft_R.weight", [count, size * (size - 1) / 2]);
        vec![match self.init_weights {
            true => upper,
            false => upper.with_init(Init::Normal(0.1)),
        }]
    }

    fn bind(&self, group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        let (count, size) = self.blocks(group.site());
        let (config, upper) = (self.clone(), factors.matrix("upper"));
        Arc::new(BoundOft {
            turn: lazy(move || config.turn(upper, count, size)),
            // As in PEFT, whose files may have both, a matrix that all blocks share is never dropped.
            dropout: if self.block_share { 0.0 } else { self.module_dropout },
        })
    }
}

impl OftConfig {
    /// The rotation by `count` blocks of that size, which `upper` describes.
    fn turn(&self, upper: Tensor<2>, count: usize, size: usize) -> Turn {
        let upper = match self.coft {
            true => constrained(upper, self.eps),
            false => upper,
        };
        let skew = skew_from_upper(upper, size);
        let blocks = match self.use_cayley_neumann {
            true => cayley_neumann(skew, self.num_cayley_neumann_terms),
            false => cayley(skew),
        };
        Turn::new(match self.block_share {
            true => blocks.repeat_dim(0, count),
            false => blocks,
        })
    }
}

/// `upper` with the norm of every block's skew-symmetric matrix limited to eps / √blocks. The gradient passes unchanged: PEFT
/// clips the parameter itself in each forward pass, which gives the same outputs.
fn constrained(upper: Tensor<2>, eps: f64) -> Tensor<2> {
    let [blocks, _] = upper.dims();
    let most = eps / (blocks as f64).sqrt();
    let fixed = upper.clone().detach();
    // Both triangles count: √2 times the norm of one.
    let length = fixed.clone().powi_scalar(2).sum_dim(1).mul_scalar(2.0).sqrt();
    let shorter = length.clamp_min(most).recip().mul_scalar(most);
    let step = fixed.clone() * shorter - fixed;
    upper + step
}

/// The edit of a bound site.
#[derive(Debug)]
struct BoundOft {
    turn: Lazy<Turn>,
    dropout: f64,
}

impl BoundOft {
    fn change(turn: &Turn, weight: Tensor<2>) -> Tensor<2> {
        let wide = cast(weight.clone(), turn.dtype());
        cast(turn.rows(wide.clone()) - wide, weight.dtype())
    }
}

impl Edit for BoundOft {
    fn affine(
        &self,
        x: Tensor<2>,
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
        residual: Option<Tensor<2>>,
    ) -> Tensor<2> {
        affine(self.edit_input(x), weight, bias, residual)
    }

    fn update(&self, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        product(self.edit_input(x.clone()) - x, weight)
    }

    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        Self::change(&self.turn, weight)
    }

    fn residual_in_training(&self, weight: Tensor<2>) -> Tensor<2> {
        Self::change(&self.turn.dropped(self.dropout), weight)
    }

    fn unmerged(&self, merged: Tensor<2>) -> Option<Tensor<2>> {
        let dtype = merged.dtype();
        let turned = self.turn.inverse()?.rows(cast(merged, self.turn.dtype()));
        Some(cast(turned, dtype))
    }

    fn edit_input(&self, x: Tensor<2>) -> Tensor<2> {
        let dtype = x.dtype();
        let turn = self.turn.dropped(self.dropout);
        cast(turn.columns(cast(x, turn.dtype())), dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AdapterConfig;
    use crate::methods::laws::Case;

    fn case(config: OftConfig) -> Case {
        Case::new(AdapterConfig::new(config).with_target_modules(["up", "down"]))
    }

    #[test]
    fn keeps_the_laws() {
        case(OftConfig::new(2)).check();
        case(OftConfig::new(4).with_exact(true)).check();
        case(OftConfig::new(3).with_block_share(true)).check();
        // A clipped block passes its gradient on as if it were not clipped.
        case(OftConfig::new(4).with_constraint(0.01))
            .with_exact_gradients(&[])
            .check();
    }

    #[test]
    fn block_sizes_are_those_that_peft_takes() {
        for (size, wanted, taken) in [
            (24, 8, 8),
            (24, 7, 6),
            (24, 5, 4),
            (96, 50, 48),
            (24, 100, 24),
            (7, 3, 1),
        ] {
            assert_eq!(nearest_divisor(size, wanted), taken, "{size}, {wanted}");
        }
    }
}
