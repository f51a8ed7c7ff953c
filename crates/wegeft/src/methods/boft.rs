//! BOFT (Orthogonal Butterfly, Liu et al. 2024, arXiv 2311.06243): `y = s ∘ ((x R) W) + b`. R is orthogonal, a product of
//! block-diagonal factors with channels shuffled in between, so that a few small blocks reach all channels; s scales the
//! outputs. Each block is the Cayley transform of the skew-symmetric part of a matrix. R starts as I, s at 1. With one factor
//! it is OFT with learned output scales.

use std::sync::Arc;

use burn::tensor::{Distribution, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::cayley::{Turn, cayley, skew_part};
use super::check::check_probability;
use crate::checkpoint::Tensors;
use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Init, Spec};
use crate::group::Group;
use crate::lazy::{Lazy, lazy};
use crate::method::{self, Method};
use crate::site::{Site, SiteKind};
use crate::tensor::{cast, product, with_rest};

/// Settings of BOFT; names as in PEFT. Either `boft_block_size` or `boft_block_num` is set, and the other is 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoftConfig {
    /// Size of a block; 0 if `boft_block_num` is set.
    #[serde(default = "four")]
    pub boft_block_size: usize,
    /// Number of blocks; 0 if `boft_block_size` is set.
    #[serde(default)]
    pub boft_block_num: usize,
    /// Number of factors of R.
    #[serde(default = "one")]
    pub boft_n_butterfly_factor: usize,
    /// Share of the blocks of one factor that are replaced by the identity, in training.
    #[serde(rename = "boft_dropout", default)]
    pub dropout: f64,
    /// Whether R starts as I and s at 1; otherwise they start near that.
    #[serde(default = "yes")]
    pub init_weights: bool,
}

/// PEFT's size of a block where a file gives none.
fn four() -> usize {
    4
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

impl BoftConfig {
    /// Blocks of `boft_block_size` channels, in `boft_n_butterfly_factor` factors.
    pub fn new(boft_block_size: usize, boft_n_butterfly_factor: usize) -> Self {
        Self {
            boft_block_size,
            boft_block_num: 0,
            boft_n_butterfly_factor,
            dropout: 0.0,
            init_weights: true,
        }
    }

    /// Sets the share of the blocks of one factor that are replaced by the identity, in training.
    pub fn with_dropout(mut self, p: f64) -> Self {
        self.dropout = p;
        self
    }

    /// Number and size of the blocks at a site.
    fn blocks(&self, site: &Site) -> Result<(usize, usize), AdapterError> {
        let bad = |field: &str, value: usize, problem: &str| {
            let message = format!("{value} {problem} the {} channels of '{}'", site.d_in, site.module());
            Err(AdapterError::bad_field(field, message))
        };
        let (field, value) = match (self.boft_block_size, self.boft_block_num) {
            (0, 0) | (1.., 1..) => {
                let message = format!(
                    "is {} and boft_block_num is {}; set one of them to 0, since their product is d_in",
                    self.boft_block_size, self.boft_block_num
                );
                return Err(AdapterError::bad_field("boft_block_size", message));
            }
            (size, 0) => ("boft_block_size", size),
            (0, count) => ("boft_block_num", count),
        };
        if !site.d_in.is_multiple_of(value) {
            return bad(field, value, "does not divide");
        }
        let (count, size) = match self.boft_block_size {
            0 => (value, site.d_in / value),
            size => (site.d_in / size, size),
        };
        let factors = self.boft_n_butterfly_factor;
        if size < 2 {
            return bad(field, value, "gives blocks of size 1, which cannot rotate, for");
        }
        if factors == 0 {
            return Err(AdapterError::bad_field(
                "boft_n_butterfly_factor",
                "is 0; set it to 1 or more",
            ));
        }
        let place = || format!("'{}' ({} channels): {count} blocks of {size}", site.module(), site.d_in);
        // Factor i shuffles 2^i blocks, half a block at a time.
        let power = u32::try_from(factors - 1).ok();
        let shuffled = power.and_then(|power| 2usize.checked_pow(power));
        if shuffled.is_none_or(|shuffled| !count.is_multiple_of(shuffled)) {
            let message = format!(
                "{}; {factors} factors need a multiple of 2^{} blocks",
                place(),
                factors - 1
            );
            return Err(AdapterError::bad_field("boft_n_butterfly_factor", message));
        }
        if factors > 1 && (!size.is_multiple_of(2) || !count.is_multiple_of(2)) {
            let message = format!("{}; with several factors both must be even", place());
            return Err(AdapterError::bad_field(field, message));
        }
        Ok((count, size))
    }
}

impl Method for BoftConfig {
    fn name(&self) -> &'static str {
        "BOFT"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn takes(&self, kind: SiteKind) -> bool {
        kind == SiteKind::Matrix
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        check_probability("boft_dropout", self.dropout)?;
        for site in sites {
            self.blocks(site)?;
        }
        Ok(Group::each(sites))
    }

    /// Without its CUDA kernel, PEFT trains one factor, whatever it was asked for.
    fn as_stored(&self, tensors: &Tensors) -> Option<Arc<dyn Method>> {
        let blocks = tensors.iter().filter(|(name, _)| name.ends_with(".boft_R"));
        let mut factors = blocks.map(|(_, stored)| stored.shape.first().copied().unwrap_or_default());
        let first = factors
            .next()
            .filter(|first| *first > 0 && *first != self.boft_n_butterfly_factor)?;
        factors.all(|other| other == first).then(|| {
            Arc::new(Self {
                boft_n_butterfly_factor: first,
                ..self.clone()
            }) as Arc<dyn Method>
        })
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        let site = group.site();
        let (count, size) = self.blocks(site).expect("groups were made of such sites only");
        let blocks = Spec::new("blocks", "boft_R", [self.boft_n_butterfly_factor, count, size, size]);
        let scales = Spec::new("scales", "boft_s", [site.d_out, 1]).with_init(Init::Ones);
        vec![
            if self.init_weights {
                blocks
            } else {
                blocks.with_init(Init::Normal(0.1))
            },
            scales.without_decay(),
        ]
    }

    fn bind(&self, _group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        let blocks = factors.get::<4>("blocks");
        let [turns, count, size, _] = blocks.dims();
        let turns = move || {
            let turned = cayley(skew_part(blocks.reshape([turns * count, size, size])));
            let turn = |index: usize| {
                let own = turned.clone().narrow(0, index * count, count);
                match index {
                    0 => Turn::new(own),
                    _ => Turn::new(own).shuffled(size << index, size / 2),
                }
            };
            (0..turns).map(turn).collect()
        };
        Arc::new(BoundBoft {
            turns: lazy(turns),
            scales: factors.matrix("scales"),
            dropout: self.dropout,
        })
    }
}

/// The edit of a bound site.
#[derive(Debug)]
struct BoundBoft {
    turns: Lazy<Vec<Turn>>,
    /// `[d_out, 1]`
    scales: Tensor<2>,
    dropout: f64,
}

impl BoundBoft {
    /// `[1, d_out]`
    fn row(&self) -> Tensor<2> {
        self.scales.clone().transpose()
    }

    /// The factors in training: blocks of one randomly chosen factor may be replaced by the identity.
    fn dropped(&self) -> Vec<Turn> {
        let device = self.scales.device();
        if self.dropout == 0.0 || !device.is_autodiff() {
            return self.turns.clone();
        }
        let count = self.turns.len();
        let draw = Tensor::<1>::random([1], Distribution::Uniform(0.0, count as f64), &device);
        let chosen = (draw.into_scalar::<f64>() as usize).min(count - 1);
        let turns = self.turns.iter().enumerate();
        turns
            .map(|(index, turn)| turn.dropped(if index == chosen { self.dropout } else { 0.0 }))
            .collect()
    }

    fn change(&self, turns: &[Turn], weight: Tensor<2>) -> Tensor<2> {
        let wide = cast(weight.clone(), self.scales.dtype());
        let turned = turns.iter().fold(wide.clone(), |rows, turn| turn.rows(rows));
        cast(turned * self.row() - wide, weight.dtype())
    }
}

impl Edit for BoundBoft {
    fn affine(
        &self,
        x: Tensor<2>,
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
        residual: Option<Tensor<2>>,
    ) -> Tensor<2> {
        let dtype = x.dtype();
        let x = cast(x, self.scales.dtype());
        let turned = self.dropped().iter().rev().fold(x, |x, turn| turn.columns(x));
        let out = product(cast(turned, dtype), weight);
        let row = cast(self.row(), out.dtype());
        with_rest(out * row, bias, residual)
    }

    fn update(&self, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        self.affine(x.clone(), weight.clone(), None, None) - product(x, weight)
    }

    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        self.change(&self.turns, weight)
    }

    fn residual_in_training(&self, weight: Tensor<2>) -> Tensor<2> {
        self.change(&self.dropped(), weight)
    }

    fn unmerged(&self, merged: Tensor<2>) -> Option<Tensor<2>> {
        let dtype = merged.dtype();
        let wide = cast(merged, self.scales.dtype()) / self.row();
        // The inverse of an orthogonal matrix is its transpose.
        let back = self
            .turns
            .iter()
            .rev()
            .fold(wide, |rows, turn| turn.transposed().rows(rows));
        Some(cast(back, dtype))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AdapterConfig;
    use crate::methods::laws::Case;

    #[test]
    fn keeps_the_laws() {
        for (size, factors) in [(4, 1), (2, 2)] {
            let config = AdapterConfig::new(BoftConfig::new(size, factors));
            Case::new(config.with_target_modules(["up", "down"])).check();
        }
    }
}
