//! AdaLoRA (Adaptive Low-Rank Adaptation, Zhang et al. 2023, arXiv 2303.10512): `W' = W + s·B diag(E) A`, a residual in
//! the form of a singular value decomposition. E starts at 0, A and B are normal; s = alpha / init_r, whatever rank is left.
//!
//! During training a [`RankAllocator`](crate::RankAllocator) sets the least important singular values over all sites to zero, until
//! `target_r` are left per site on average, and [`AdaLoraConfig::penalty`] keeps A and B close to orthonormal. Singular values that
//! are zero stay in the file; in files from which PEFT removed them, `rank_pattern` says which ones are left.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check::{check_alpha, check_probability};
use super::lycoris;
use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Init, Spec};
use crate::group::Group;
use crate::json::null_as_default;
use crate::low_rank::LowRank;
use crate::method::{self, Method};
use crate::site::{Site, SiteKind};
use crate::tensor::{cast, dropped, dropped_inputs};

/// Settings of AdaLoRA; names and defaults as in PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdaLoraConfig {
    /// Initial rank of every site.
    #[serde(default = "twelve")]
    pub init_r: usize,
    /// Average rank of the sites at the end.
    #[serde(default = "lycoris::usual_rank")]
    pub target_r: usize,
    /// Numerator of the scale s.
    #[serde(rename = "lora_alpha", default = "lycoris::usual_alpha")]
    pub alpha: f64,
    /// Dropout on the input of A, in training.
    #[serde(rename = "lora_dropout", default)]
    pub dropout: f64,
    /// Steps before the rank budget starts to decrease.
    #[serde(default)]
    pub tinit: usize,
    /// Steps at the end in which ranks no longer change.
    #[serde(default)]
    pub tfinal: usize,
    /// Steps between two reallocations.
    #[serde(rename = "deltaT", default = "one")]
    pub delta_t: usize,
    /// Decay of the moving average of each element's importance.
    #[serde(default = "beta")]
    pub beta1: f64,
    /// Decay of the moving average of that importance's uncertainty.
    #[serde(default = "beta")]
    pub beta2: f64,
    /// Weight of [`AdaLoraConfig::penalty`] in the loss.
    #[serde(default = "half")]
    pub orth_reg_weight: f64,
    /// Number of training steps.
    #[serde(default)]
    pub total_step: Option<usize>,
    /// For an adapter from which singular values were removed: `<module>.lora_E` -> which of init_r are left.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub rank_pattern: BTreeMap<String, Vec<bool>>,
}

fn twelve() -> usize {
    12
}

fn one() -> usize {
    1
}

fn beta() -> f64 {
    0.85
}

fn half() -> f64 {
    0.5
}

impl AdaLoraConfig {
    /// Rank `init_r`, reduced to `target_r` on average over `total_step` steps; alpha = init_r, so that the scale is 1.
    pub fn new(init_r: usize, target_r: usize, total_step: usize) -> Self {
        Self {
            init_r,
            target_r,
            alpha: init_r as f64,
            dropout: 0.0,
            tinit: 0,
            tfinal: 0,
            delta_t: one(),
            beta1: beta(),
            beta2: beta(),
            orth_reg_weight: half(),
            total_step: Some(total_step),
            rank_pattern: BTreeMap::new(),
        }
    }

    /// Sets alpha.
    pub fn with_alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }

    /// Sets the dropout on the input of A.
    pub fn with_dropout(mut self, p: f64) -> Self {
        self.dropout = p;
        self
    }

    /// Sets the steps before ranks decrease, the steps at the end without changes, and the steps between two reallocations.
    pub fn with_steps(mut self, tinit: usize, tfinal: usize, delta_t: usize) -> Self {
        (self.tinit, self.tfinal, self.delta_t) = (tinit, tfinal, delta_t);
        self
    }

    pub(crate) fn check(&self) -> Result<(), AdapterError> {
        check_alpha("lora_alpha", self.alpha)?;
        check_probability("lora_dropout", self.dropout)?;
        check_probability("beta1", self.beta1)?;
        check_probability("beta2", self.beta2)?;
        if self.delta_t == 0 {
            return Err(AdapterError::bad_field("deltaT", "is 0; set it to 1 or more"));
        }
        if !(self.orth_reg_weight.is_finite() && self.orth_reg_weight >= 0.0) {
            let message = format!("{} is not a valid weight; set it to 0 or more", self.orth_reg_weight);
            return Err(AdapterError::bad_field("orth_reg_weight", message));
        }
        Ok(())
    }

    /// The rank of `module`: init_r, or what `rank_pattern` leaves of it.
    fn rank(&self, module: &str) -> Result<usize, AdapterError> {
        let Some(left) = self.rank_pattern.get(&format!("{module}.lora_E")) else {
            return Ok(self.init_r);
        };
        if left.len() != self.init_r {
            let message = format!(
                "lists {} singular values for '{module}', but init_r is {}",
                left.len(),
                self.init_r
            );
            return Err(AdapterError::bad_field("rank_pattern", message));
        }
        Ok(left.iter().filter(|left| **left).count())
    }
}

impl Method for AdaLoraConfig {
    fn name(&self) -> &'static str {
        "ADALORA"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn takes(&self, kind: SiteKind) -> bool {
        kind == SiteKind::Matrix
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        self.check()?;
        let mut groups = Group::each(sites);
        for group in &mut groups {
            group.rank = self.init_r;
            group.check_rank(|site| site.d_in.min(site.d_out))?;
            group.rank = self.rank(&group.module())?;
            let alpha = if self.alpha > 0.0 {
                self.alpha
            } else {
                self.init_r as f64
            };
            // 1e-5 as in PEFT, which divides by the rank that is left and so avoids dividing by 0.
            group.scale = alpha / (self.init_r as f64 + 1e-5);
        }
        Ok(groups)
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        let (site, r) = (group.site(), group.rank);
        vec![
            Spec::new("a", "lora_A", [r, site.d_in]).with_init(Init::Normal(0.02)),
            Spec::new("b", "lora_B", [site.d_out, r]).with_init(Init::Normal(0.02)),
            Spec::new("e", "lora_E", [r, 1]),
        ]
    }

    fn bind(&self, group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        Arc::new(BoundAdaLora {
            a: factors.matrix("a"),
            b: factors.matrix("b"),
            e: factors.matrix("e"),
            scale: group.scale,
            dropout: self.dropout,
        })
    }

    fn has_lora_form(&self) -> bool {
        true
    }
}

/// The edit of a bound site.
#[derive(Debug)]
struct BoundAdaLora {
    /// `[r, d_in]`
    a: Tensor<2>,
    /// `[d_out, r]`
    b: Tensor<2>,
    /// `[r, 1]`
    e: Tensor<2>,
    scale: f64,
    dropout: f64,
}

impl BoundAdaLora {
    fn factors(&self) -> LowRank {
        LowRank {
            a: self.a.clone() * self.e.clone(),
            b: self.b.clone(),
            scale: self.scale,
        }
    }
}

impl Edit for BoundAdaLora {
    fn update(&self, x: Tensor<2>, _weight: Tensor<2>) -> Tensor<2> {
        self.factors().forward(dropped(x, self.dropout))
    }

    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        cast(self.factors().dense(), weight.dtype())
    }

    fn residual_in_training(&self, weight: Tensor<2>) -> Tensor<2> {
        let LowRank { a, b, scale } = self.factors();
        let a = dropped_inputs(a, self.dropout);
        cast(LowRank { a, b, scale }.dense(), weight.dtype())
    }

    fn low_rank(&self, _weight: Tensor<2>) -> Option<LowRank> {
        Some(self.factors())
    }

    fn unmerged(&self, merged: Tensor<2>) -> Option<Tensor<2>> {
        Some(merged.clone() - self.residual(merged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AdapterConfig;
    use crate::methods::laws::Case;

    #[test]
    fn keeps_the_laws() {
        let config = AdaLoraConfig::new(3, 2, 10).with_alpha(6.0);
        Case::new(AdapterConfig::new(config).with_target_modules(["up", "down"])).check();
    }
}
