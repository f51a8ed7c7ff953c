//! AdaLoRA in training: which singular values it keeps, and its penalty. See [`AdaLoraConfig`].

use std::collections::HashMap;

use burn::module::{Module, ModuleDisplay, ModuleMapper, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};

use crate::adapted::Adapted;
use crate::checkpoint::{Stored, Tensors};
use crate::error::AdapterError;
use crate::factors::Factors;
use crate::group::Group;
use crate::methods::AdaLoraConfig;

/// AdaLoRA's factors at every site.
const NAMES: [&str; 3] = ["a", "b", "e"];

/// The groups that AdaLoRA adapts, each with its factors. Rows of an embedding that are trained beside it are none of them.
fn sites<M: Module + ModuleDisplay>(adapted: &Adapted<M>) -> impl Iterator<Item = (&Group, &Factors)> {
    let bank = adapted.bank();
    let all = bank.groups().iter().zip(&bank.factors);
    all.filter(|(_, factors)| NAMES.iter().all(|name| factors.contains(name)))
}

impl AdaLoraConfig {
    /// The penalty that keeps A and B close to orthonormal: the mean of `‖A Aᵀ - I‖` and `‖Bᵀ B - I‖` (Frobenius) over all
    /// sites, times `orth_reg_weight`; `[1]`. Add it to the loss. `None` if `adapted` has no site of AdaLoRA.
    pub fn penalty<M: Module + ModuleDisplay>(&self, adapted: &Adapted<M>) -> Option<Tensor<1>> {
        let of = |gram: Tensor<2>| {
            let identity = Tensor::eye(gram.dims()[0], &gram.device());
            (gram - identity).powi_scalar(2).sum().sqrt()
        };
        let norms = sites(adapted).flat_map(|(_, factors)| {
            let (a, b) = (factors.matrix("a"), factors.matrix("b"));
            [of(a.clone().matmul(a.transpose())), of(b.clone().transpose().matmul(b))]
        });
        let norms: Vec<Tensor<1>> = norms.collect();
        let scale = self.orth_reg_weight / norms.len() as f64;
        (!norms.is_empty()).then(|| Tensor::cat(norms, 0).sum().mul_scalar(scale))
    }
}

/// Decides after each step which of AdaLoRA's singular values to keep. The importance of a rank-one term is the importance of its
/// element of E plus the mean importance of its row of A and of its column of B. The importance of an element is a moving average
/// of |element · gradient|, times a moving average of how much that varies.
///
/// Call [`RankAllocator::observe`] before each optimizer step and [`RankAllocator::allocate`] after it; with burn-train's learner,
/// from an [`Around`](crate::Around) (feature `train`).
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

impl RankAllocator {
    /// An allocator for adapters of `config`.
    ///
    /// # Errors
    /// No `total_step`, or one that is not larger than `tinit` and `tfinal` together; an invalid setting.
    pub fn new(config: &AdaLoraConfig) -> Result<Self, AdapterError> {
        config.check()?;
        let least = config.tinit.saturating_add(config.tfinal);
        if config.total_step.is_none_or(|total| total <= least) {
            let message = "must be set to the number of training steps, which must exceed tinit and tfinal together";
            return Err(AdapterError::bad_field("total_step", message));
        }
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
        self.gradients = sites(adapted).map(|(_, factors)| of(factors)).collect();
    }

    /// Call it after optimizer step `step` (counted from 0). Returns `adapted` with the least important singular values set to
    /// zero.
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
        let sites = sites(adapted).map(|(_, factors)| factors).zip(&self.gradients);
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
        let ranks: Vec<usize> = sites(adapted).map(|(group, _)| group.rank).collect();
        let (all, target) = (ranks.iter().sum::<usize>(), config.target_r * ranks.len());
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
            .zip(sites(adapted))
            .map(|(averages, (group, _))| scores(averages, group.rank))
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
    let masks: HashMap<ParamId, &Vec<bool>> = sites(&adapted)
        .zip(left)
        .map(|((_, factors), left)| (factors.param::<2>("e").id, left))
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
