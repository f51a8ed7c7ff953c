//! LoRA (Low-Rank Adaptation, Hu et al. 2021, arXiv 2106.09685): `W' = W + s·B A`, `y = x W + s·(x Aᵀ) Bᵀ`, with
//! s = alpha / r, A Kaiming-uniform, B = 0; and the variants that differ in a setting:
//!
//! - rsLoRA (Kalajdzievski 2023, arXiv 2312.03732), `use_rslora`: s = alpha / √r;
//! - LoRA+ (Hayou et al. 2024, arXiv 2402.12354), `loraplus_lr_ratio`: a higher learning rate for B, 16 in the paper;
//! - LoRA-FA (Zhang et al. 2023, arXiv 2308.03303), `freeze_a`: A is not trained, and only `x Aᵀ`, `[n, r]`,
//!   is saved for backward;
//! - DoRA (Liu et al. 2024, arXiv 2402.09353), `use_dora`: learned magnitudes of the output columns, whose norms are
//!   constants in the backward pass; unlike PEFT's, `lora_dropout` acts only on the input of A, not on what the magnitudes
//!   scale;
//! - PiSSA and OLoRA, `init_lora_weights`: see [`super::lora_init`].
//!
//! It also adapts embeddings, convolutions and the stacked weights of experts, with PEFT's names and shapes on disk.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check::{check_alpha, check_probability};
use super::dora::{self, BoundDora};
use super::lora_edit::{BoundLora, residual};
use super::lora_init::{LoraInit, MOST_ITERATIONS, Start};
use super::lora_sites;
use super::lycoris;
use crate::checkpoint::{Names, Tensors};
use crate::edit::Edit;
use crate::error::AdapterError;
use crate::factors::{Factors, Spec};
use crate::group::Group;
use crate::json::null_as_default;
use crate::lazy::{Lazy, lazy};
use crate::method::{self, Method};
use crate::patterns::Patterns;
use crate::site::{Site, SiteKind};
use crate::weights::Weights;

/// Settings of LoRA; names as in PEFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank of A and B.
    #[serde(default = "lycoris::usual_rank")]
    pub r: usize,
    /// Numerator of the scale s.
    #[serde(rename = "lora_alpha", default = "lycoris::usual_alpha")]
    pub alpha: f64,
    /// Dropout on the input of A, in training.
    #[serde(rename = "lora_dropout", default)]
    pub dropout: f64,
    /// s = alpha / √r instead of alpha / r.
    #[serde(default)]
    pub use_rslora: bool,
    /// Learned magnitudes of the output columns.
    #[serde(default)]
    pub use_dora: bool,
    /// B has a bias, which starts at zero and is scaled like B A. On a layer without a bias of its own it cannot be
    /// merged, and is refused unless the model declares, with [`ActivationSpace`](crate::ActivationSpace), that it calls
    /// the layer with [`linear`](crate::linear).
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub lora_bias: bool,
    /// What A and B start as.
    #[serde(rename = "init_lora_weights", default)]
    pub init: LoraInit,
    /// A is not trained (LoRA-FA). Not a field of PEFT's, where the optimizer has this setting.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub freeze_a: bool,
    /// Learning rate of B relative to that of everything else (LoRA+), applied by
    /// [`Adapted::learning_rates`](crate::Adapted::learning_rates). Not a field of PEFT's, where the optimizer has this
    /// setting.
    #[serde(default = "no_ratio", skip_serializing_if = "is_no_ratio")]
    pub loraplus_lr_ratio: f64,
    /// Ranks and alphas that differ for some modules.
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
            lora_bias: false,
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

    /// Sets the dropout on the input of A.
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

    /// Sets whether B has a bias.
    pub fn with_lora_bias(mut self, lora_bias: bool) -> Self {
        self.lora_bias = lora_bias;
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

    /// Sets the learning rate of B relative to that of everything else (LoRA+).
    pub fn with_loraplus_lr_ratio(mut self, ratio: f64) -> Self {
        self.loraplus_lr_ratio = ratio;
        self
    }

    /// The probability at the sites of `group`: an embedding reads no activations that could be dropped.
    fn dropout_at(&self, group: &Group) -> f64 {
        match group.site().kind {
            SiteKind::Embedding => 0.0,
            _ => self.dropout,
        }
    }

    /// What B's bias adds to the output, `[d_out]`.
    fn out_bias(&self, group: &Group, factors: &Factors) -> Option<Lazy<Tensor<1>>> {
        let scale = group.scale;
        let scaled = |bias: Tensor<1>| lazy(move || bias.mul_scalar(scale));
        self.lora_bias.then(|| scaled(factors.vector("b_bias")))
    }

    fn check(&self) -> Result<(), AdapterError> {
        check_alpha("lora_alpha", self.alpha)?;
        check_probability("lora_dropout", self.dropout)?;
        // A file with more is refused, so an adapter with more could not be loaded again.
        if let LoraInit::PissaNiter(n) = self.init
            && n > MOST_ITERATIONS
        {
            let message = format!("has {n} power iterations; at most {MOST_ITERATIONS} are possible");
            return Err(AdapterError::bad_field("init_lora_weights", message));
        }
        if self.init.reads_weight() && self.alpha <= 0.0 {
            let message = format!(
                "is {}, but the part of the weight that A and B start from is divided by the scale; set it above 0",
                self.alpha
            );
            return Err(AdapterError::bad_field("lora_alpha", message));
        }
        if self.lora_bias && (self.use_dora || self.init.reads_weight()) {
            let message = "works neither with use_dora nor with an init_lora_weights that starts from the weight; set it to false";
            return Err(AdapterError::bad_field("lora_bias", message));
        }
        match self.loraplus_lr_ratio.is_finite() && self.loraplus_lr_ratio > 0.0 {
            true => Ok(()),
            false => {
                let message = format!("{} is not a valid ratio; set it above 0", self.loraplus_lr_ratio);
                Err(AdapterError::bad_field("loraplus_lr_ratio", message))
            }
        }
    }
}

impl Method for LoraConfig {
    fn name(&self) -> &'static str {
        "LORA"
    }

    fn settings(&self) -> Map<String, Value> {
        method::settings(self)
    }

    fn check_fresh(&self) -> Result<(), AdapterError> {
        match self.init {
            LoraInit::Elsewhere(start) => Err(start.refused()),
            _ => Ok(()),
        }
    }

    fn takes(&self, _kind: SiteKind) -> bool {
        true
    }

    fn groups(&self, sites: &[Site]) -> Result<Vec<Group>, AdapterError> {
        self.check()?;
        let plain = matches!(
            self.init,
            LoraInit::Kaiming | LoraInit::Gaussian | LoraInit::Elsewhere(_)
        );
        let plain = plain && !self.use_dora;
        if let Some(site) = sites.iter().find(|site| site.kind != SiteKind::Matrix && !plain) {
            let message = format!(
                "'{}' is {}, for which LoRA supports only init_lora_weights true or \"gaussian\", and no DoRA",
                site.module(),
                site.kind
            );
            return Err(AdapterError::bad_field("target_modules", message));
        }
        if self.lora_bias {
            let takes = |site: &Site| site.kind == SiteKind::Matrix || site.kind == SiteKind::Conv && site.has_bias;
            if let Some(site) = sites.iter().find(|site| !takes(site)) {
                let message = format!(
                    "'{}' cannot have a bias of B; only linear layers, and convolutions with a bias of their own, can",
                    site.module()
                );
                return Err(AdapterError::bad_field("lora_bias", message));
            }
            let is_read = |site: &Site| site.has_bias || site.in_activation_space;
            if let Some(site) = sites.iter().find(|site| !is_read(site)) {
                let message = format!(
                    "'{}' has no bias, and Linear::forward would not add one; call it with wegeft::linear and declare that with a \
                     field of type wegeft::ActivationSpace, or set lora_bias to false",
                    site.module()
                );
                return Err(AdapterError::bad_field("lora_bias", message));
            }
        }
        let mut groups = Group::each(sites);
        self.patterns.resolve(&mut groups, self.r, self.alpha, |r, alpha| {
            let divisor = if self.use_rslora { (r as f64).sqrt() } else { r as f64 };
            alpha / divisor
        })?;
        for group in &groups {
            group.check_rank(|site| site.d_in.min(site.d_out))?;
        }
        Ok(groups)
    }

    fn specs(&self, group: &Group) -> Vec<Spec> {
        let (site, r) = (group.site(), group.rank);
        let (a, b) = match site.kind {
            SiteKind::Matrix => (
                Spec::new("a", "lora_A.weight", [r, site.d_in]),
                Spec::new("b", "lora_B.weight", [site.d_out, r]),
            ),
            _ => lora_sites::specs(group, self.init),
        };
        let b = b.with_lr_scale(self.loraplus_lr_ratio);
        let mut specs = vec![if self.freeze_a { a.frozen() } else { a }, b];
        if self.lora_bias {
            let bias = Spec::new("b_bias", "lora_B.bias", [site.d_out]);
            specs.push(bias.with_lr_scale(self.loraplus_lr_ratio));
        }
        if self.init.reads_weight() {
            // The start of (A, B). PEFT subtracts their product from the frozen weight; here the residual is
            // `s·(B A − B₀ A₀)`, so that the weight is unchanged and can be shared.
            specs.push(Spec::new("initial_a", "", [r, site.d_in]).constant());
            specs.push(Spec::new("minus_initial_b", "", [site.d_out, r]).constant());
        }
        if self.use_dora {
            specs.extend(dora::specs(site.d_out));
        }
        specs
    }

    fn start(&self, group: &Group, weights: &Weights, device: &Device) -> Result<Factors, AdapterError> {
        let site = group.site();
        if site.kind != SiteKind::Matrix {
            return Ok(Factors::draw(self.specs(group), device));
        }
        let Start { a, b, initial } = self.init.start(site, group.rank, group.scale, weights, device)?;
        let mut factors = Factors::draw(self.specs(group), device).with("a", a).with("b", b);
        if let Some((a, b)) = initial {
            factors = factors.with("initial_a", a).with("minus_initial_b", b.neg());
        }
        match self.use_dora {
            true => {
                let residual = residual(&factors, group.scale)();
                Ok(dora::start(factors, weights.matrix(site), residual, device))
            }
            false => Ok(factors),
        }
    }

    fn bind(&self, group: &Group, factors: &Factors) -> Arc<dyn Edit> {
        if matches!(group.site().kind, SiteKind::Conv | SiteKind::Experts) {
            return lora_sites::bind(group, factors, self.dropout, self.out_bias(group, factors));
        }
        Arc::new(BoundLora {
            residual: lazy(residual(factors, group.scale)),
            dora: self.use_dora.then(|| BoundDora::of(factors)),
            reads_weight: self.init.reads_weight(),
            dropout: self.dropout_at(group),
            out_bias: self.out_bias(group, factors),
            without_bias: (self.lora_bias && !group.site().has_bias).then(|| group.module()),
        })
    }

    fn edits_bias(&self, group: &Group) -> bool {
        self.lora_bias && group.site().has_bias
    }

    fn has_lora_form(&self) -> bool {
        !self.use_dora && !self.lora_bias
    }

    // Adapters of embeddings were once stored under the keys of a linear layer.
    fn respell(&self, names: &Names, tensors: &mut Tensors) {
        for (_, name) in names.values() {
            let former = match name.rsplit_once('.') {
                Some((module, "lora_embedding_A")) => format!("{module}.lora_A.weight"),
                Some((module, "lora_embedding_B")) => format!("{module}.lora_B.weight"),
                _ => continue,
            };
            if let Some(stored) = tensors.remove(&former) {
                tensors.entry(name.clone()).or_insert(stored);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::laws::{Case, Net, stir};
    use crate::{Adapted, AdapterConfig};

    const TARGETS: [&str; 3] = ["proj", "up", "down"];

    fn case(config: LoraConfig) -> Case {
        Case::new(AdapterConfig::new(config.with_alpha(3.0)).with_target_modules(TARGETS))
    }

    fn lora() -> LoraConfig {
        LoraConfig::new(2)
    }

    #[test]
    fn keeps_the_laws() {
        let head = AdapterConfig::lora(2).with_target_modules(TARGETS);
        Case::new(head.with_modules_to_save(["head"])).check();
        case(lora().with_rslora(true).with_loraplus_lr_ratio(16.0)).check();
        case(lora().with_freeze_a(true)).check();
        case(lora().with_init(LoraInit::Gaussian)).check();
        case(lora().with_lora_bias(true)).check();
    }

    #[test]
    fn keeps_the_laws_when_it_starts_from_the_weight() {
        for init in [LoraInit::Pissa, LoraInit::PissaNiter(4), LoraInit::Olora] {
            case(lora().with_init(init)).starting_within(1e-5).check();
        }
    }

    #[test]
    fn dora_keeps_the_laws() {
        // The norm is a constant to the backward pass, by design: only the magnitudes' gradient is the function's.
        let dora = || lora().with_dora(true);
        case(dora()).with_exact_gradients(&["magnitude"]).check();
        let pissa = case(dora().with_init(LoraInit::Pissa)).starting_within(1e-5);
        pissa.with_exact_gradients(&["magnitude"]).check();
    }

    #[test]
    fn lora_fa_saves_the_a_it_does_not_train() {
        let device = Device::flex().autodiff();
        let config = AdapterConfig::new(lora().with_freeze_a(true)).with_target_modules(["proj"]);
        let fresh = config.init(Net::new(8, 1, &device)).unwrap();
        let a = |adapted: &Adapted<Net>| adapted.bank().factors[0].matrix("a").into_data();
        let folder = tempfile::tempdir().unwrap();
        let stirred = stir(fresh.clone(), 8, 2, &device);
        assert_eq!(a(&fresh), a(&stirred));
        assert_eq!(stirred.summary().adapter_params, 8 * 2);
        stirred.save(folder.path()).unwrap();
        let other = config.init(Net::new(8, 1, &device)).unwrap();
        assert_ne!(a(&other), a(&fresh));
        assert_eq!(a(&other.load_weights(folder.path()).unwrap()), a(&fresh));
    }
}
