//! Optimizer groups and learning rates of an adapted model, so that nobody writes a visitor for them.

use burn::grad_clipping::GradientClippingConfig;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use burn::module::{Module, ModuleDisplay, ParamGroup};
use burn::optim::{ModuleOptimizer, Optimizer};

use crate::adapted::Adapted;
use crate::config::Method;
use crate::site::{self, ParamInfo};

/// In the paths of a PaCa block's maps from tokens to clusters.
const CLUSTER_MAPS: &str = ".Clusters.logits.";

impl<M: Module + ModuleDisplay> Adapted<M> {
    /// An optimizer with two groups: what takes weight decay and what does not ([`Adapted::undecayed`]). `make` builds
    /// the per-parameter optimizer of a given decay; both groups clip their gradients in the same way.
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

    /// The trained parameters that take no weight decay: biases, norms and everything else of one dimension, and the
    /// cluster maps of generators (the filter of WeGeFT's released vision code).
    pub fn undecayed(&self) -> ParamGroup {
        self.trained_where(|param| param.shape.len() < 2 || param.path.contains(CLUSTER_MAPS))
    }

    /// `schedule` for every trained parameter, and `loraplus_lr_ratio` of the config times it for LoRA's B (LoRA+, Hayou
    /// et al. 2024, arXiv 2402.12354). For the learner, or for a loop of one's own:
    /// `optimizer.step(rates.step(), adapted, grads)`.
    pub fn learning_rates<S: LrScheduler + Clone + 'static>(&self, schedule: S) -> ModuleLrScheduler {
        let rates = ModuleLrScheduler::new(schedule.clone());
        let ratio = match &self.config().method {
            Method::Lora(lora) => lora.loraplus_lr_ratio,
            _ => 1.0,
        };
        if ratio == 1.0 {
            return rates;
        }
        let b = self.bank().lora_b();
        let group = self.trained_where(|param| b.contains(&param.id));
        rates.with_group(group, Scaled { schedule, by: ratio })
    }

    /// Known by id and by path: loading a record gives parameters the ids of the run that wrote it.
    fn trained_where(&self, chosen: impl Fn(&ParamInfo) -> bool) -> ParamGroup {
        let trained = self.trained();
        let params = site::params(self).into_iter();
        let (ids, paths) = params
            .filter(|param| trained.matches(&param.id, None) && chosen(param))
            .map(|param| (param.id, param.path))
            .unzip::<_, _, Vec<_>, Vec<String>>();
        ParamGroup::from_ids(ids).fuse(&ParamGroup::from_paths(paths))
    }
}

/// A schedule times a factor.
#[derive(Debug, Clone)]
struct Scaled<S> {
    schedule: S,
    by: f64,
}

impl<S: LrScheduler + Clone + 'static> LrScheduler for Scaled<S> {
    fn step(&mut self) -> f64 {
        self.schedule.step() * self.by
    }

    fn to_record(&self) -> LrSchedulerRecord {
        self.schedule.to_record()
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        self.schedule.load_record(record);
    }
}
