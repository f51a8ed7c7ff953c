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
    /// An optimizer with two parameter groups: with weight decay and without ([`Adapted::undecayed`]). `make` builds the
    /// optimizer for a given weight decay; both groups clip gradients in the same way.
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

    /// The trained parameters without weight decay: biases, norms and all other vectors, and the cluster maps of generators (as
    /// in WeGeFT's released vision code).
    pub fn undecayed(&self) -> ParamGroup {
        self.trained_where(|param, spec| match spec {
            Some(spec) => !spec.decays,
            None => param.shape.len() < 2,
        })
    }

    /// `schedule` (a number, or any of Burn's schedulers) for every trained parameter, multiplied by `loraplus_lr_ratio` for
    /// LoRA's B (LoRA+, Hayou et al. 2024, arXiv 2402.12354). For the learner, or for a training loop of your own:
    /// `optimizer.step(rates.step(), adapted, grads)`.
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
        let mut scales: Vec<f64> = self.bank().specs().map(|(_, spec)| spec.lr_scale).collect();
        scales.sort_by(f64::total_cmp);
        scales.dedup();
        scales.retain(|scale| *scale != 1.0);
        let schedule = rates.clone();
        scales.into_iter().fold(rates, |rates, by| {
            let group = self.trained_where(|_, spec| spec.is_some_and(|spec| spec.lr_scale == by));
            let schedule = schedule.clone();
            rates.with_group(group, Scaled { schedule, by })
        })
    }

    /// Matches by id and by path: loading a record gives parameters the ids of the run that wrote it.
    fn trained_where(&self, chosen: impl Fn(&ParamInfo, Option<&Spec>) -> bool) -> ParamGroup {
        let trained = self.trained();
        let specs: HashMap<ParamId, &Spec> = self.bank().specs().collect();
        let params = site::params(self).into_iter();
        let (ids, paths) = params
            .filter(|param| trained.matches(&param.id, None) && chosen(param, specs.get(&param.id).copied()))
            .map(|param| (param.id, param.path))
            .unzip::<_, _, Vec<_>, Vec<String>>();
        ParamGroup::from_ids(ids).fuse(&ParamGroup::from_paths(paths))
    }
}

/// The base rate of a schedule times a factor.
#[derive(Clone)]
struct Scaled {
    schedule: ModuleLrScheduler,
    by: f64,
}

impl LrScheduler for Scaled {
    fn step(&mut self) -> f64 {
        self.schedule.step().base() * self.by
    }

    fn to_record(&self) -> LrSchedulerRecord {
        self.schedule.to_record()
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        self.schedule = self.schedule.clone().load_record(record);
    }
}
