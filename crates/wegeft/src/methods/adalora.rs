//! AdaLoRA (Adaptive Low-Rank Adaptation, Zhang et al. 2023, arXiv 2303.10512): `W' = W + s·B diag(E) A`, a residual in
//! the form of a singular value decomposition. E starts at 0, A and B are normal; s = alpha / init_r, whatever rank is left.
//!
//! During training a [`RankAllocator`] zeroes the least important singular values over all sites, until `target_r` are left
//! per site on average, and [`AdaLoraConfig::penalty`] keeps A and B close to orthonormal. Zeroed singular values stay in the
//! file; in files from which PEFT removed them, `rank_pattern` says which ones are left.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use burn::module::{Module, ModuleDisplay, ModuleMapper, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check::{check_alpha, check_probability};
use super::lycoris;
use crate::adapted::Adapted;
use crate::checkpoint::{Stored, Tensors};
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

    fn check(&self) -> Result<(), AdapterError> {
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

    /// The penalty that keeps A and B close to orthonormal: the mean of `‖A Aᵀ - I‖` and `‖Bᵀ B - I‖` (Frobenius) over all
    /// sites, times `orth_reg_weight`. Add it to the loss.
    pub fn penalty<M: Module + ModuleDisplay>(&self, adapted: &Adapted<M>) -> Option<Tensor<1>> {
        let of = |gram: Tensor<2>| {
            let identity = Tensor::eye(gram.dims()[0], &gram.device());
            (gram - identity).powi_scalar(2).sum().sqrt()
        };
        let norms = adapted.bank().factors.iter().flat_map(|factors| {
            let (a, b) = (factors.matrix("a"), factors.matrix("b"));
            [of(a.clone().matmul(a.transpose())), of(b.clone().transpose().matmul(b))]
        });
        let norms: Vec<Tensor<1>> = norms.collect();
        let scale = self.orth_reg_weight / norms.len() as f64;
        (!norms.is_empty()).then(|| Tensor::cat(norms, 0).sum().mul_scalar(scale))
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

/// Decides after each step which singular values to keep. The importance of a rank-one term is the importance of its element
/// of E plus the mean importance of its row of A and of its column of B. The importance of an element is a moving average of
/// |element · gradient|, times a moving average of how much that varies.
#[derive(Debug, Clone)]
pub struct RankAllocator {
    config: AdaLoraConfig,
    /// Both moving averages for A, B and E of every site, element by element.
    averages: Vec<[Average; 3]>,
    /// The gradients of the current step, likewise.
    gradients: Vec<[Vec<f32>; 3]>,
    /// After the last reallocation: which singular values are left.
    left: Option<Vec<Vec<bool>>>,
}

#[derive(Debug, Clone, Default)]
struct Average {
    importance: Vec<f32>,
    uncertainty: Vec<f32>,
}

impl Average {
    fn update(&mut self, value: &[f32], gradient: &[f32], beta1: f32, beta2: f32) {
        self.importance.resize(value.len(), 0.0);
        self.uncertainty.resize(value.len(), 0.0);
        let pairs = value
            .iter()
            .zip(gradient)
            .map(|(value, gradient)| (value * gradient).abs());
        let averages = self.importance.iter_mut().zip(&mut self.uncertainty);
        for ((importance, uncertainty), now) in averages.zip(pairs) {
            *importance = beta1 * *importance + (1.0 - beta1) * now;
            *uncertainty = beta2 * *uncertainty + (1.0 - beta2) * (now - *importance).abs();
        }
    }

    fn scores(&self) -> impl Iterator<Item = f32> {
        self.importance.iter().zip(&self.uncertainty).map(|(a, b)| a * b)
    }
}

const NAMES: [&str; 3] = ["a", "b", "e"];

impl RankAllocator {
    /// An allocator for adapters of `config`.
    ///
    /// # Errors
    /// Without `total_step`, or with fewer steps than `tinit` and `tfinal` have together.
    pub fn new(config: &AdaLoraConfig) -> Result<Self, AdapterError> {
        config.check()?;
        let Some(total) = config.total_step.filter(|total| *total > config.tinit + config.tfinal) else {
            let message = "must be set, and larger than tinit and tfinal together";
            return Err(AdapterError::bad_field("total_step", message));
        };
        debug_assert!(total > 0);
        Ok(Self {
            config: config.clone(),
            averages: Vec::new(),
            gradients: Vec::new(),
            left: None,
        })
    }

    /// Records the gradients of a step. Call it before the optimizer step.
    pub fn observe<M: Module + ModuleDisplay>(&mut self, adapted: &Adapted<M>, gradients: &GradientsParams) {
        let of = |factors: &Factors| {
            NAMES.map(|name| {
                let gradient = gradients.get::<2>(factors.param::<2>(name).id);
                gradient.map(values).unwrap_or_default()
            })
        };
        self.gradients = adapted.bank().factors.iter().map(of).collect();
    }

    /// Call it after optimizer step `step` (counted from 0). Returns `adapted` with the least important singular values
    /// zeroed.
    pub fn allocate<M: Module + ModuleDisplay>(&mut self, step: usize, adapted: Adapted<M>) -> Adapted<M> {
        let last = self.config.total_step.unwrap_or_default() - self.config.tfinal;
        if step < last {
            self.average(&adapted);
        }
        if step <= last {
            let (budget, cuts) = self.budget(step, &adapted);
            if cuts || step == last {
                let left = self.choose(budget, &adapted);
                let cut = cut(adapted, &left);
                self.left = Some(left);
                return cut;
            }
            return adapted;
        }
        match &self.left {
            Some(left) => cut(adapted, left),
            None => adapted,
        }
    }

    /// Its state, for a checkpoint; [`RankAllocator::with_state`] continues from it.
    pub fn state(&self) -> Tensors {
        let mut state = Tensors::new();
        let mut add = |name: String, values: Vec<f32>| {
            let shape = vec![values.len()];
            state.insert(name, Stored { shape, values });
        };
        for (site, averages) in self.averages.iter().enumerate() {
            for (name, average) in NAMES.iter().zip(averages) {
                add(format!("{site}.{name}.importance"), average.importance.clone());
                add(format!("{site}.{name}.uncertainty"), average.uncertainty.clone());
            }
        }
        for (site, left) in self.left.iter().flatten().enumerate() {
            let values = left.iter().map(|left| f32::from(u8::from(*left)));
            add(format!("{site}.left"), values.collect());
        }
        state
    }

    /// This allocator, continuing from `state`.
    pub fn with_state(mut self, state: &Tensors) -> Self {
        let of = |name: String| state.get(&name).map(|stored| stored.values.clone());
        let average = |site: usize, name: &str| {
            Some(Average {
                importance: of(format!("{site}.{name}.importance"))?,
                uncertainty: of(format!("{site}.{name}.uncertainty"))?,
            })
        };
        let [a, b, e] = NAMES;
        let averages = |site| Some([average(site, a)?, average(site, b)?, average(site, e)?]);
        self.averages = (0..).map_while(averages).collect();
        let left = |site| Some(of(format!("{site}.left"))?.iter().map(|left| *left > 0.0).collect());
        let left: Vec<Vec<bool>> = (0..).map_while(left).collect();
        self.left = (!left.is_empty()).then_some(left);
        self
    }

    fn average<M: Module + ModuleDisplay>(&mut self, adapted: &Adapted<M>) {
        let (beta1, beta2) = (self.config.beta1 as f32, self.config.beta2 as f32);
        let sites = adapted.bank().factors.iter().zip(&self.gradients);
        self.averages.resize_with(self.gradients.len(), Default::default);
        for (averages, (factors, gradients)) in self.averages.iter_mut().zip(sites) {
            let pairs = NAMES.iter().zip(gradients);
            for (average, (name, gradient)) in averages.iter_mut().zip(pairs) {
                average.update(&values(factors.matrix(name)), gradient, beta1, beta2);
            }
        }
    }

    /// The number of singular values to keep over all sites after `step`, and whether ranks are reallocated at that step.
    fn budget<M: Module + ModuleDisplay>(&self, step: usize, adapted: &Adapted<M>) -> (usize, bool) {
        let config = &self.config;
        let sites = adapted.bank().groups().len();
        let all: usize = adapted.bank().groups().iter().map(|group| group.rank).sum();
        let target = config.target_r * sites;
        let (first, last) = (config.tinit, config.total_step.unwrap_or_default() - config.tfinal);
        if step <= first {
            return (all, false);
        }
        if step > last {
            return (target, true);
        }
        let rest = 1.0 - (step - first) as f64 / (last - first) as f64;
        let budget = (all as f64 - target as f64) * rest.powi(3) + target as f64;
        (budget as usize, step.is_multiple_of(config.delta_t))
    }

    /// Which singular values are kept: those more important than the (all - budget)-th least important one.
    fn choose<M: Module + ModuleDisplay>(&self, budget: usize, adapted: &Adapted<M>) -> Vec<Vec<bool>> {
        let scores: Vec<Vec<f32>> = self
            .averages
            .iter()
            .zip(adapted.bank().groups())
            .map(|(averages, group)| scores(averages, group.rank))
            .collect();
        let mut sorted: Vec<f32> = scores.iter().flatten().copied().collect();
        sorted.sort_by(f32::total_cmp);
        let threshold = sorted.len().checked_sub(budget).and_then(|cut| cut.checked_sub(1));
        let threshold = threshold.map_or(f32::NEG_INFINITY, |index| sorted[index]);
        let left = scores
            .iter()
            .map(|site| site.iter().map(|score| *score > threshold).collect());
        left.collect()
    }
}

/// The importance of each of a site's `rank` terms.
fn scores([a, b, e]: &[Average; 3], rank: usize) -> Vec<f32> {
    let (a, b, e): (Vec<f32>, Vec<f32>, Vec<f32>) = (a.scores().collect(), b.scores().collect(), e.scores().collect());
    let mean = |values: &mut dyn Iterator<Item = f32>, count: usize| values.sum::<f32>() / count.max(1) as f32;
    let (d_in, d_out) = (a.len() / rank.max(1), b.len() / rank.max(1));
    (0..e.len())
        .map(|term| {
            let row = mean(&mut a[term * d_in..(term + 1) * d_in].iter().copied(), d_in);
            let column = mean(&mut b.iter().skip(term).step_by(rank).copied(), d_out);
            e[term] + row + column
        })
        .collect()
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// `adapted` with 0 in E where `left` is false.
fn cut<M: Module + ModuleDisplay>(adapted: Adapted<M>, left: &[Vec<bool>]) -> Adapted<M> {
    let sites = adapted.bank().factors.iter().zip(left);
    let masks: HashMap<ParamId, &Vec<bool>> = sites
        .map(|(factors, left)| (factors.param::<2>("e").id, left))
        .collect();
    adapted.map(&mut Cutter { masks })
}

struct Cutter<'a> {
    masks: HashMap<ParamId, &'a Vec<bool>>,
}

impl ModuleMapper for Cutter<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(left) = self.masks.get(&param.id) else {
            return param;
        };
        let mask: Vec<f32> = left.iter().map(|left| f32::from(u8::from(*left))).collect();
        param.map(|e| {
            let mask = TensorData::new(mask, e.shape());
            let mask = Tensor::<D>::from_data(mask, (&e.device(), e.dtype()));
            let trained = e.is_require_grad();
            (e.detach() * mask).detach().set_require_grad(trained)
        })
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
