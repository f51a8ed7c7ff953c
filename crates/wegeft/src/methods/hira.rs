//! HiRA (Hadamard high-rank adaptation, Huang et al., ICLR 2025): `W' = W + W ∘ (B A)`. A is Kaiming-uniform and B = 0 as
//! in LoRA, but the residual can have a high rank, as W has, and there is no scale.

use std::sync::Arc;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check::check_probability;
use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Init, Spec};
use crate::group::Group;
use crate::method::{self, Method};
use crate::patterns::Patterns;
use crate::site::{Site, SiteKind};
use crate::tensor::{cast, dequantized, dropped, for_products};

/// Initialization of A.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HiraInit {
    /// Normal of standard deviation 1/r.
    Gaussian,
    /// True: Kaiming-uniform; false: neither A nor B starts at 0.
    #[serde(untagged)]
    Kaiming(bool),
}

/// Settings of HiRA; names as in PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HiraConfig {
    /// Rank of A and B.
    pub r: usize,
    /// Dropout on the input of the residual, in training.
    #[serde(rename = "hira_dropout", default)]
    pub dropout: f64,
    /// Initialization of A.
    #[serde(rename = "init_weights", default = "kaiming")]
    pub init: HiraInit,
    /// Ranks that differ for some modules.
    #[serde(flatten)]
    pub patterns: Patterns,
}

fn kaiming() -> HiraInit {
    HiraInit::Kaiming(true)
}

impl HiraConfig {
    /// Rank `r`.
    pub fn new(r: usize) -> Self {
        Self {
            r,
            dropout: 0.0,
            init: kaiming(),
            patterns: Patterns::default(),
        }
    }

    /// Sets the dropout on the input of the residual.
    pub fn with_dropout(mut self, p: f64) -> Self {
        self.dropout = p;
        self
    }
}

impl Method for HiraConfig {
    fn name(&self) -> &'static str {
        "HIRA"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn check_fresh(&self) -> Result<(), AdapterError> {
        match self.patterns.alpha_pattern.is_empty() {
            true => Ok(()),
            false => Err(AdapterError::bad_field(
                "alpha_pattern",
                "has no effect on HiRA, which has no scale; leave it unset",
            )),
        }
    }

    fn takes(&self, kind: SiteKind) -> bool {
        kind == SiteKind::Matrix
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        check_probability("hira_dropout", self.dropout)?;
        let mut groups = Group::each(sites);
        self.patterns.resolve(&mut groups, self.r, 1.0, |_, _| 1.0)?;
        for group in &groups {
            group.check_rank(|site| site.d_in.min(site.d_out))?;
        }
        Ok(groups)
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        let (site, r) = (group.site(), group.rank);
        let a = Spec::new("a", "hira_A", [r, site.d_in]);
        let b = Spec::new("b", "hira_B", [site.d_out, r]);
        match self.init {
            HiraInit::Kaiming(true) => vec![a.with_init(Init::Uniform(1.0 / (site.d_in as f64).sqrt())), b],
            HiraInit::Gaussian => vec![a.with_init(Init::Normal(1.0 / r as f64)), b],
            HiraInit::Kaiming(false) => vec![a.with_init(Init::Normal(1.0)), b.with_init(Init::Normal(1.0))],
        }
    }

    fn bind(&self, _group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        Arc::new(BoundHira {
            a: factors.matrix("a"),
            b: factors.matrix("b"),
            dropout: self.dropout,
        })
    }
}

/// The edit of a bound site.
#[derive(Debug)]
struct BoundHira {
    /// `[r, d_in]`
    a: Tensor<2>,
    /// `[d_out, r]`
    b: Tensor<2>,
    dropout: f64,
}

impl BoundHira {
    /// `(B A)ᵀ`, `[d_in, d_out]`.
    fn gains(&self) -> Tensor<2> {
        self.a.clone().transpose().matmul(self.b.clone().transpose())
    }
}

impl Edit for BoundHira {
    fn update(&self, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        let dtype = x.dtype();
        let change = cast(dequantized(weight), self.a.dtype()) * self.gains();
        let read = dropped(for_products(x), self.dropout);
        let change = cast(change, read.dtype());
        cast(read.matmul(change), dtype)
    }

    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        let dtype = weight.dtype();
        cast(cast(weight, self.a.dtype()) * self.gains(), dtype)
    }

    fn residual_in_training(&self, weight: Tensor<2>) -> Tensor<2> {
        let mask = Tensor::ones([weight.dims()[0], 1], (&weight.device(), weight.dtype()));
        self.residual(weight) * dropped(mask, self.dropout)
    }

    fn unmerged(&self, merged: Tensor<2>) -> Option<Tensor<2>> {
        let dtype = merged.dtype();
        Some(cast(cast(merged, self.a.dtype()) / self.gains().add_scalar(1.0), dtype))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AdapterConfig;
    use crate::methods::laws::Case;

    #[test]
    fn keeps_the_laws() {
        let config = AdapterConfig::new(HiraConfig::new(2));
        Case::new(config.with_target_modules(["up", "down"])).check();
    }
}
