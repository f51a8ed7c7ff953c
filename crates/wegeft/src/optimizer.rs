//! Parameter groups and learning rates of an adapted model.

use std::collections::HashMap;

use burn::grad_clipping::GradientClippingConfig;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use burn::module::{Module, ModuleDisplay, ParamGroup, ParamId};
use burn::optim::{ModuleOptimizer, Optimizer};

use crate::adapted::Adapted;
use crate::factors::Spec;
use crate::site::{self, ParamInfo};

impl<M: Module + ModuleDisplay> Adapted<M> {
    /// An optimizer with two parameter groups: one with `weight_decay`, and one without ([`Adapted::undecayed`]). `make`
    /// builds the optimizer for a given weight decay. Both groups clip gradients as `grad_clipping` says.
    ///
    /// ```
    /// # use burn::nn::LinearConfig;
    /// use burn::optim::AdamWConfig;
    /// # #[derive(burn::module::Module, Debug)]
    /// # struct Model { proj: burn::nn::Linear }
    /// # let device = burn::tensor::Device::flex().autodiff();
    /// # let model = Model { proj: LinearConfig::new(8, 4).init(&device) };
    /// # let adapted = wegeft::AdapterConfig::lora(2).with_target_modules(["proj"]).init(model)?;
    /// let optimizer = adapted.optimizer(1e-2, None, |decay| AdamWConfig::new().with_weight_decay(decay).build());
    /// # Ok::<(), wegeft::AdapterError>(())
    /// ```
    pub fn optimizer<O: Optimizer>(
        &self,
        weight_decay: f32,
        grad_clipping: Option<GradientClippingConfig>,
        make: impl Fn(f32) -> O,
    ) -> ModuleOptimizer {
        let clipping = || grad_clipping.as_ref().map(GradientClippingConfig::init);
        let mut optimizer = ModuleOptimizer::from(make(weight_decay));
        if let Some(clipping) = clipping() {
            optimizer = optimizer.with_grad_clipping(clipping);
        }
        optimizer.with_group(self.undecayed(), make(0.0), clipping())
    }

    /// The trained parameters without weight decay: biases, norms and all other vectors, and the cluster maps of
    /// generators (as in WeGeFT's released vision code).
    pub fn undecayed(&self) -> ParamGroup {
        self.trained_where(|param, spec| match spec {
            Some(spec) => !spec.decays,
            None => param.shape.len() < 2,
        })
    }

    /// `schedule` (a number, or any of Burn's schedulers, also one with groups of parameters) for every trained parameter,
    /// multiplied by `loraplus_lr_ratio` for LoRA's B (LoRA+, Hayou et al. 2024, arXiv 2402.12354). For the learner, or
    /// for a training loop of your own: `optimizer.step(rates.step(), adapted, grads)`.
    ///
    /// If the schedule has groups of its own, LoRA+ makes each step slower: Burn does not show which parameters a group
    /// holds, so every B gets a group and a copy of the whole schedule. The time of a step then grows with the square of
    /// the number of adapted modules.
    ///
    /// ```
    /// # use burn::nn::LinearConfig;
    /// use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
    /// # #[derive(burn::module::Module, Debug)]
    /// # struct Model { proj: burn::nn::Linear }
    /// # let device = burn::tensor::Device::flex();
    /// # let model = Model { proj: LinearConfig::new(8, 4).init(&device) };
    /// # let adapted = wegeft::AdapterConfig::lora(2).with_target_modules(["proj"]).init(model)?;
    /// let constant = adapted.learning_rates(1e-3);
    /// let cosine = adapted.learning_rates(CosineAnnealingLrSchedulerConfig::new(1e-3, 100).init().unwrap());
    /// # Ok::<(), wegeft::AdapterError>(())
    /// ```
    pub fn learning_rates(&self, schedule: impl Into<ModuleLrScheduler>) -> ModuleLrScheduler {
        let rates: ModuleLrScheduler = schedule.into();
        let schedule = rates.clone();
        // The factors of one scale differ in their rates only where the schedule has groups of its own.
        if !has_groups(&schedule) {
            let mut scales: Vec<f64> = self.bank().specs().map(|(_, spec)| spec.lr_scale).collect();
            scales.sort_by(f64::total_cmp);
            scales.dedup();
            scales.retain(|scale| *scale != 1.0);
            return scales.into_iter().fold(rates, |rates, by| {
                let group = self.trained_where(|_, spec| spec.is_some_and(|spec| spec.lr_scale == by));
                let schedule = schedule.clone();
                rates.with_group(group, Scaled { schedule, by, of: None })
            });
        }
        let scaled = self.trained_params(|_, spec| spec.is_some_and(|spec| spec.lr_scale != 1.0));
        scaled.into_iter().fold(rates, |rates, (param, spec)| {
            let scaled = Scaled {
                schedule: schedule.clone(),
                by: spec.map_or(1.0, |spec| spec.lr_scale),
                of: Some((param.id, param.path.clone())),
            };
            rates.with_group(group_of([param]), scaled)
        })
    }

    fn trained_where(&self, chosen: impl Fn(&ParamInfo, Option<&Spec>) -> bool) -> ParamGroup {
        group_of(self.trained_params(chosen).into_iter().map(|(param, _)| param))
    }

    /// The trained parameters that are `chosen`, with the specs of factors.
    fn trained_params(&self, chosen: impl Fn(&ParamInfo, Option<&Spec>) -> bool) -> Vec<(ParamInfo, Option<&Spec>)> {
        let trained = self.trained();
        let specs: HashMap<ParamId, &Spec> = self.bank().specs().collect();
        let params = site::params(self).into_iter();
        let params = params.filter(|param| trained.matches(&param.id, None));
        let params = params.map(|param| (specs.get(&param.id).copied(), param));
        params
            .filter(|(spec, param)| chosen(param, *spec))
            .map(|(spec, param)| (param, spec))
            .collect()
    }
}

/// Matches by id and by path: loading a record gives parameters the ids of the run that wrote it.
fn group_of(params: impl IntoIterator<Item = ParamInfo>) -> ParamGroup {
    let params = params.into_iter();
    let (ids, paths) = params
        .map(|param| (param.id, param.path))
        .unzip::<_, _, Vec<_>, Vec<String>>();
    ParamGroup::from_ids(ids).fuse(&ParamGroup::from_paths(paths))
}

/// True if a schedule has rates for groups of parameters beside its base rate. Burn does not tell, but one more group
/// changes the place of its scheduler in the record.
fn has_groups(schedule: &ModuleLrScheduler) -> bool {
    let marked = schedule.clone().with_group(ParamGroup::from_ids(Vec::new()), Mark);
    marked.to_record().record("1").scalar::<f64>(MARK).is_none()
}

/// A scheduler that is known by its record.
#[derive(Clone)]
struct Mark;

/// What that record holds.
const MARK: &str = "wegeft";

impl LrScheduler for Mark {
    fn step(&mut self) -> f64 {
        0.0
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new().with_scalar(MARK, 1.0)
    }

    fn load_record(&mut self, _record: LrSchedulerRecord) {}
}

/// The rate of a schedule times a factor.
#[derive(Clone)]
struct Scaled {
    schedule: ModuleLrScheduler,
    by: f64,
    /// Id and path of the parameter whose rate it is; the base rate if there is none.
    of: Option<(ParamId, String)>,
}

impl LrScheduler for Scaled {
    fn step(&mut self) -> f64 {
        let rates = self.schedule.step();
        self.by
            * match &self.of {
                Some((id, path)) => rates.lr_from_param(*id, Some(path)),
                None => rates.base(),
            }
    }

    fn to_record(&self) -> LrSchedulerRecord {
        self.schedule.to_record()
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        self.schedule = self.schedule.clone().load_record(record);
    }
}
