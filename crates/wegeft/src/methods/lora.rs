//! LoRA (Low-Rank Adaptation, Hu et al. 2021, arXiv 2106.09685): `W' = W + s·B A`, `y = x W + s·(x Aᵀ) Bᵀ`, with
//! s = alpha / r, A Kaiming-uniform, B = 0; and the variants that differ in a setting:
//!
//! - rsLoRA (Kalajdzievski 2023, arXiv 2312.03732), `use_rslora`: s = alpha / √r;
//! - LoRA+ (Hayou et al. 2024, arXiv 2402.12354), `loraplus_lr_ratio`: a higher learning rate for B, 16 in the paper;
//! - LoRA-FA (Zhang et al. 2023, arXiv 2308.03303), `freeze_a`: A stays as it started, and only the code `x Aᵀ`
//!   of `[n, r]` is kept for the backward pass;
//! - DoRA, `use_dora`: see [`super::dora`];
//! - PiSSA and OLoRA, `init_lora_weights`: see [`super::lora_init`].

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::dora::{BoundDora, Dora};
use super::lora_init::{LoraInit, Start};
use super::low_rank::LowRank;
use super::wegeft::{check_alpha, check_probability};
use super::{Edit, Factors, Recipe, cast, dropped, with_rest};
use crate::bank::{Group, check_rank, own_groups};
use crate::config::Patterns;
use crate::error::AdapterError;
use crate::linear::{affine, product};
use crate::site::Site;
use crate::weights::Weights;

/// Settings of LoRA; names as in PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank of A and B.
    pub r: usize,
    /// Numerator of the scale s.
    #[serde(rename = "lora_alpha")]
    pub alpha: f64,
    /// Dropout on what A reads, in training.
    #[serde(rename = "lora_dropout", default)]
    pub dropout: f64,
    /// s = alpha / √r instead of alpha / r.
    #[serde(default)]
    pub use_rslora: bool,
    /// Learned magnitudes of the output columns.
    #[serde(default)]
    pub use_dora: bool,
    /// What A and B start as.
    #[serde(rename = "init_lora_weights", default)]
    pub init: LoraInit,
    /// A is not trained (LoRA-FA). Not a field of PEFT's, where the optimizer says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub freeze_a: bool,
    /// Learning rate of B over that of everything else (LoRA+); what builds the optimizer heeds it. Not a field of
    /// PEFT's, where the optimizer says so.
    #[serde(default = "no_ratio", skip_serializing_if = "is_no_ratio")]
    pub loraplus_lr_ratio: f64,
    /// Ranks and alphas of their own for some modules.
    #[serde(flatten)]
    pub patterns: Patterns,
}

fn no_ratio() -> f64 {
    1.0
}

fn is_no_ratio(ratio: &f64) -> bool {
    *ratio == no_ratio()
}

impl LoraConfig {
    /// Rank `r`, scale 1.
    pub fn new(r: usize) -> Self {
        Self {
            r,
            alpha: r as f64,
            dropout: 0.0,
            use_rslora: false,
            use_dora: false,
            init: LoraInit::default(),
            freeze_a: false,
            loraplus_lr_ratio: no_ratio(),
            patterns: Patterns::default(),
        }
    }

    /// Sets alpha.
    pub fn with_alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }

    /// Sets the dropout on what A reads.
    pub fn with_dropout(mut self, p: f64) -> Self {
        self.dropout = p;
        self
    }

    /// Sets whether s = alpha / √r (rsLoRA).
    pub fn with_rslora(mut self, use_rslora: bool) -> Self {
        self.use_rslora = use_rslora;
        self
    }

    /// Sets whether magnitudes are learned (DoRA).
    pub fn with_dora(mut self, use_dora: bool) -> Self {
        self.use_dora = use_dora;
        self
    }

    /// Sets what A and B start as.
    pub fn with_init(mut self, init: LoraInit) -> Self {
        self.init = init;
        self
    }

    /// Sets whether A stays as it starts (LoRA-FA).
    pub fn with_freeze_a(mut self, freeze_a: bool) -> Self {
        self.freeze_a = freeze_a;
        self
    }

    /// Sets the learning rate of B over that of everything else (LoRA+).
    pub fn with_loraplus_lr_ratio(mut self, ratio: f64) -> Self {
        self.loraplus_lr_ratio = ratio;
        self
    }

    fn check(&self) -> Result<(), AdapterError> {
        check_alpha("lora_alpha", self.alpha)?;
        check_probability("lora_dropout", self.dropout)?;
        if self.init.reads_weight() && self.alpha <= 0.0 {
            let message = format!(
                "{} gives no scale to divide the weight's part by; set it above 0",
                self.alpha
            );
            return Err(AdapterError::bad_field("lora_alpha", message));
        }
        match self.loraplus_lr_ratio.is_finite() && self.loraplus_lr_ratio > 0.0 {
            true => Ok(()),
            false => {
                let message = format!(
                    "{} is no ratio of learning rates; set it above 0",
                    self.loraplus_lr_ratio
                );
                Err(AdapterError::bad_field("loraplus_lr_ratio", message))
            }
        }
    }

    /// Rank and scale at a site.
    fn rank_and_scale(&self, site: &Site) -> (usize, f64) {
        let (r, alpha) = self.patterns.of(&site.module(), self.r, self.alpha);
        let divisor = if self.use_rslora { (r as f64).sqrt() } else { r as f64 };
        (r, alpha / divisor)
    }

    fn factors(&self, site: &Site, weights: &Weights, device: &Device) -> Result<Lora, AdapterError> {
        let (r, scale) = self.rank_and_scale(site);
        let Start { a, b, initial } = self.init.start(site, r, scale, weights, device)?;
        let mut lora = Lora {
            a: Param::from_tensor(a).set_require_grad(!self.freeze_a),
            b: Param::from_tensor(b),
            initial: initial.map(|(a, b)| Initial { a, b }),
            dora: None,
            scale,
            dropout: self.dropout,
            freeze_a: self.freeze_a,
        };
        if self.use_dora {
            lora.dora = Some(Dora::init(weights.matrix(site), lora.residual(), device));
        }
        Ok(lora)
    }
}

impl Recipe for LoraConfig {
    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        self.check()?;
        self.patterns.check(sites)?;
        for site in sites {
            check_rank(self.rank_and_scale(site).0, site, site.d_in.min(site.d_out))?;
        }
        Ok(own_groups(sites))
    }

    fn params(&self, group: &Group) -> usize {
        let site = &group.sites[0];
        let (r, _) = self.rank_and_scale(site);
        let a = if self.freeze_a { 0 } else { r * site.d_in };
        let magnitudes = if self.use_dora { site.d_out } else { 0 };
        a + r * site.d_out + magnitudes
    }

    fn make(&self, groups: &[Group], weights: &Weights, device: &Device) -> Result<Vec<Factors>, AdapterError> {
        let factors = groups
            .iter()
            .map(|group| self.factors(&group.sites[0], weights, device).map(Factors::Lora));
        factors.collect()
    }

    fn has_lora_form(&self) -> bool {
        !self.use_dora
    }
}

/// The pair (A, B) of one site.
#[derive(Module, Debug)]
pub struct Lora {
    /// `[r, d_in]`
    pub a: Param<Tensor<2>>,
    /// `[d_out, r]`
    pub b: Param<Tensor<2>>,
    /// Magnitudes, for DoRA.
    pub dora: Option<Dora>,
    initial: Option<Initial>,
    /// s
    pub scale: f64,
    dropout: f64,
    freeze_a: bool,
}

/// What (A, B) started as, for the inits that take a part of the weight. PEFT subtracts their product from the
/// frozen weight; here the residual is `s·(B A − B₀ A₀)`, so that the weight stays as it is and can be shared.
#[derive(Module, Debug)]
struct Initial {
    a: Tensor<2>,
    b: Tensor<2>,
}

impl Lora {
    /// `s·B A`, or `s·(B A − B₀ A₀)` of twice the rank.
    fn residual(&self) -> LowRank {
        let (a, b) = (self.a.val(), self.b.val());
        let (a, b) = match &self.initial {
            Some(initial) => (
                Tensor::cat(vec![a, initial.a.clone()], 0),
                Tensor::cat(vec![b, initial.b.clone().neg()], 1),
            ),
            None => (a, b),
        };
        LowRank {
            a,
            b,
            scale: self.scale,
        }
    }

    pub(crate) fn bind(&self) -> BoundLora {
        let LowRank { a, b, scale } = self.residual();
        BoundLora {
            a,
            b,
            scale,
            dora: self.dora.as_ref().map(Dora::bind),
            reads_weight: self.initial.is_some(),
            dropout: self.dropout,
        }
    }

    pub(crate) fn frozen(&self) -> Option<ParamId> {
        self.freeze_a.then_some(self.a.id)
    }
}

/// (A, B) as a bound site sees them.
#[derive(Module, Debug)]
pub struct BoundLora {
    a: Tensor<2>,
    b: Tensor<2>,
    scale: f64,
    dora: Option<BoundDora>,
    reads_weight: bool,
    dropout: f64,
}

impl BoundLora {
    fn factors(&self) -> LowRank {
        LowRank {
            a: self.a.clone(),
            b: self.b.clone(),
            scale: self.scale,
        }
    }
}

impl Edit for BoundLora {
    fn matmul(&self, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        let update = self.factors().forward(dropped(x.clone(), self.dropout));
        let out = product(x, weight.clone()) + update;
        match &self.dora {
            Some(dora) => out.clone() * cast(dora.factor(weight, self.factors()), out.dtype()),
            None => out,
        }
    }

    fn affine(
        &self,
        x: Tensor<2>,
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
        residual: Option<Tensor<2>>,
    ) -> Tensor<2> {
        if self.dora.is_some() {
            return with_rest(self.matmul(x, weight), bias, residual);
        }
        let update = self.factors().forward(dropped(x.clone(), self.dropout));
        affine(x, weight, bias, Some(with_rest(update, None, residual)))
    }

    fn residual(&self, weight: Tensor<2>) -> Tensor<2> {
        let residual = cast(self.factors().dense(), weight.dtype());
        match &self.dora {
            Some(dora) => {
                let factor = cast(dora.factor(weight.clone(), self.factors()), weight.dtype());
                (weight.clone() + residual) * factor - weight
            }
            None => residual,
        }
    }

    fn low_rank(&self, _weight: Tensor<2>) -> Option<LowRank> {
        self.dora.is_none().then(|| self.factors())
    }

    // DoRA's norms and what PiSSA and OLoRA start from are the weight's own before the merge.
    fn unmerged(&self, merged: Tensor<2>) -> Option<Tensor<2>> {
        let determined = self.dora.is_none() && !self.reads_weight;
        determined.then(|| merged.clone() - self.residual(merged))
    }
}
