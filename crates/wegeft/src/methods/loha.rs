//! LoHa (low-rank Hadamard product; Hyeon-Woo et al. 2022, arXiv 2108.06098; LyCORIS, arXiv 2309.14859):
//! `W' = W + s·(A₁ B₁) ∘ (A₂ B₂)`, s = alpha / r. B₂ starts at 0.
//!
//! Four factors of rank r make a residual of rank up to r²: its factors are all products of a column of A₁ with one of A₂
//! and of a row of B₁ with one of B₂. In activation space this form is used if it is cheaper than the dense one; it is also the
//! form that is exported as LoRA.

use std::sync::Arc;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check::check_alpha;
use super::lycoris::{self, Dropout};
use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Init, Spec};
use crate::group::Group;
use crate::low_rank::LowRank;
use crate::method::{self, Method};
use crate::patterns::Patterns;
use crate::site::{Site, SiteKind};
use crate::tensor::{cast, for_products};

/// Settings of LoHa; names as in PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LohaConfig {
    /// Rank of each of the two products.
    #[serde(default = "lycoris::usual_rank")]
    pub r: usize,
    /// Numerator of the scale s.
    #[serde(default = "lycoris::usual_alpha")]
    pub alpha: f64,
    /// Probability that the residual of an output is dropped, in training.
    #[serde(default)]
    pub rank_dropout: f64,
    /// Probability that the residual of a whole module is dropped, in training.
    #[serde(default)]
    pub module_dropout: f64,
    /// Whether B₂ starts at 0; otherwise it starts like the other factors.
    #[serde(default = "lycoris::yes")]
    pub init_weights: bool,
    /// Ranks and alphas that differ for some modules.
    #[serde(flatten)]
    pub patterns: Patterns,
}

impl LohaConfig {
    /// Rank `r`, scale 1.
    pub fn new(r: usize) -> Self {
        Self {
            r,
            alpha: r as f64,
            rank_dropout: 0.0,
            module_dropout: 0.0,
            init_weights: true,
            patterns: Patterns::default(),
        }
    }

    /// Sets alpha.
    pub fn with_alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }

    /// Sets the probabilities that the residuals of outputs and of whole modules are dropped.
    pub fn with_dropout(mut self, rank_dropout: f64, module_dropout: f64) -> Self {
        (self.rank_dropout, self.module_dropout) = (rank_dropout, module_dropout);
        self
    }

    fn dropout(&self) -> Dropout {
        Dropout {
            rank: self.rank_dropout,
            module: self.module_dropout,
            rescaled: true,
        }
    }
}

impl Method for LohaConfig {
    fn name(&self) -> &'static str {
        "LOHA"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn takes(&self, kind: SiteKind) -> bool {
        kind == SiteKind::Matrix
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        check_alpha("alpha", self.alpha)?;
        self.dropout().check()?;
        let mut groups = Group::each(sites);
        self.patterns
            .resolve(&mut groups, self.r, self.alpha, |r, alpha| alpha / r as f64)?;
        for group in &groups {
            group.check_rank(|site| site.d_in.min(site.d_out))?;
        }
        Ok(groups)
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        let (site, r) = (group.site(), group.rank);
        let a = |name: &str| lycoris::random(name, &format!("hada_{name}"), [site.d_out, r]);
        let b = |name: &str| lycoris::random(name, &format!("hada_{name}"), [r, site.d_in]);
        let last = match self.init_weights {
            true => b("w2_b").with_init(Init::Zeros),
            false => b("w2_b"),
        };
        vec![a("w1_a"), b("w1_b"), a("w2_a"), last]
    }

    fn bind(&self, group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        Arc::new(BoundLoha {
            a: [factors.matrix("w1_a"), factors.matrix("w2_a")],
            b: [factors.matrix("w1_b"), factors.matrix("w2_b")],
            scale: group.scale,
            dropout: self.dropout(),
        })
    }

    fn has_lora_form(&self) -> bool {
        true
    }
}

/// The edit of a bound site.
#[derive(Debug)]
struct BoundLoha {
    /// A₁ and A₂, `[d_out, r]`
    a: [Tensor<2>; 2],
    /// B₁ and B₂, `[r, d_in]`
    b: [Tensor<2>; 2],
    scale: f64,
    dropout: Dropout,
}

impl BoundLoha {
    /// The residual as a product of rank r².
    fn factors(&self) -> LowRank {
        let ([a1, a2], [b1, b2]) = (self.a.clone(), self.b.clone());
        let ([d_out, r], [_, d_in]) = (a1.dims(), b1.dims());
        LowRank {
            a: (b1.unsqueeze_dim::<3>(1) * b2.unsqueeze_dim::<3>(0)).reshape([r * r, d_in]),
            b: (a1.unsqueeze_dim::<3>(2) * a2.unsqueeze_dim::<3>(1)).reshape([d_out, r * r]),
            scale: self.scale,
        }
    }

    /// `[d_in, d_out]`
    fn dense(&self) -> Tensor<2> {
        let ([a1, a2], [b1, b2]) = (self.a.clone(), self.b.clone());
        let product = |a: Tensor<2>, b: Tensor<2>| b.transpose().matmul(a.transpose());
        product(a1.mul_scalar(self.scale), b1) * product(a2, b2)
    }

    /// True if the product of rank r² is cheaper than the dense residual.
    fn is_low(&self) -> bool {
        let ([d_out, r], [_, d_in]) = (self.a[0].dims(), self.b[0].dims());
        r * r * (d_in + d_out) < d_in * d_out
    }
}

impl Edit for BoundLoha {
    fn update(&self, x: Tensor<2>, _weight: Tensor<2>) -> Tensor<2> {
        let dtype = x.dtype();
        let update = match self.is_low() {
            true => self.factors().forward(x),
            false => {
                let x = for_products(x);
                let dense = cast(self.dense(), x.dtype());
                x.matmul(dense)
            }
        };
        cast(self.dropout.apply(update), dtype)
    }

    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        cast(self.dense(), weight.dtype())
    }

    fn residual_in_training(&self, weight: Tensor<2>) -> Tensor<2> {
        cast(self.dropout.apply(self.dense()), weight.dtype())
    }

    fn low_rank(&self, _weight: Tensor<2>) -> Option<LowRank> {
        let ([d_out, r], [_, d_in]) = (self.a[0].dims(), self.b[0].dims());
        if r * r <= d_in.min(d_out) {
            return Some(self.factors());
        }
        // No matrix has a higher rank than its smaller side.
        let change = self.dense().transpose();
        let identity = Tensor::<2>::eye(d_in.min(d_out), &change.device()).cast(change.dtype());
        let (a, b) = match d_in < d_out {
            true => (identity, change),
            false => (change, identity),
        };
        Some(LowRank { a, b, scale: 1.0 })
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
        for r in [1, 2, 4] {
            let config = AdapterConfig::new(LohaConfig::new(r).with_alpha(3.0));
            Case::new(config.with_target_modules(["up", "down"])).check();
        }
    }
}
