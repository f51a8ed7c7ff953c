//! The adapted model: a frozen model and its bank, together one Burn `Module`.

use std::collections::HashSet;
use std::sync::Arc;

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, ParamGroup,
};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::Device;

use crate::bank::Bank;
use crate::by_path::ByPath;
use crate::config::AdapterConfig;
use crate::freeze::frozen;
use crate::graft;
use crate::replicas::Replicas;
use crate::site::{self, ParamInfo};
use crate::statistics;
use crate::visible::{Only, Shown};

#[derive(Module, Debug)]
struct Parts<M: Module + ModuleDisplay> {
    model: M,
    bank: Bank,
}

/// An adapted model: a frozen backbone and a [`Bank`] of factors. As a Burn module it exposes only what is trained or
/// saved: this is what optimizers update, what `num_params` counts and what a record holds, also when it is a field of
/// another module. The frozen part is reached through [`Adapted::backbone`]; `to_device`, `fork`, `valid` and `train` act
/// on both parts.
///
/// Everything else that maps parameters sees the trained part only: `quantize_weights` would quantize the factors and
/// leave the backbone as it is. Quantize a backbone before it is adapted, as `examples/qlora.rs` does.
///
/// [`Module::fork`] moves the frozen part to another device once and keeps it there, however often it is called; the trained
/// part moves each time. A training on several devices (Burn's `ExecutionStrategy::multi` forks the model for every device
/// at every step) therefore moves the factors but not the backbone.
#[derive(Debug, Clone)]
pub struct Adapted<M: Module + ModuleDisplay> {
    parts: Parts<M>,
    config: AdapterConfig,
    /// The parameters that are trained or saved.
    shown: Arc<Shown>,
    /// Paths of frozen parameters of the backbone that the adapter's file replaced; they are saved with the adapter.
    replaced: Arc<HashSet<String>>,
    warnings: Vec<String>,
    /// The model on other devices.
    replicas: Replicas<M>,
}

impl<M: Module + ModuleDisplay> Adapted<M> {
    pub(crate) fn new(model: M, bank: Bank, config: AdapterConfig) -> Self {
        let own = site::params(&model).into_iter().filter(|param| trains(&config, param));
        let own: HashSet<String> = own.map(|param| param.path).collect();
        let mut shown = Shown::default();
        for path in &own {
            shown.paths.insert(format!("model.{path}"));
            shown.trained.insert(format!("model.{path}"));
        }
        for (param, (_, spec)) in site::params(&bank).into_iter().zip(bank.specs()) {
            let path = format!("bank.{}", param.path);
            if spec.trained {
                shown.trained.insert(path.clone());
            }
            if spec.trained || spec.saved {
                shown.paths.insert(path);
            }
        }
        shown.statistics = own.iter().any(|path| statistics::is_statistic(path));
        let model = match shown.statistics {
            true => statistics::unshared(model),
            false => model,
        };
        let model = frozen(model, own);
        let adapted = Self {
            parts: Parts { model, bank },
            config,
            shown: Arc::new(shown),
            replaced: Arc::default(),
            warnings: Vec::new(),
            replicas: Replicas::default(),
        };
        adapted.with_own_ids()
    }

    /// This adapter with new ids for what it trains in full.
    pub(crate) fn with_own_ids(self) -> Self {
        let own = self.own_params();
        self.map_model(|model| graft::with_ids(model, &own))
    }

    /// What in the adapter's files had no effect, one sentence each: names that match nothing while others match, and fields
    /// whose names look misspelled.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// This adapter with one more of [`Adapted::warnings`].
    pub fn with_warning(mut self, warning: String) -> Self {
        self.warnings.push(warning);
        self
    }

    pub(crate) fn with_warnings(self, warnings: Vec<String>) -> Self {
        Self { warnings, ..self }
    }

    /// This adapter, with the backbone's parameters at these paths saved along with it.
    pub(crate) fn with_replaced(mut self, replaced: HashSet<String>) -> Self {
        let own = replaced.iter().map(|path| format!("model.{path}"));
        Arc::make_mut(&mut self.shown).paths.extend(own);
        self.replaced = Arc::new(replaced);
        self
    }

    pub(crate) fn replaced(&self) -> &HashSet<String> {
        &self.replaced
    }

    /// True if the parameter at `path` is a frozen one of an adapted layer that the adapter's file replaced.
    pub(crate) fn is_below_adapter(&self, path: &str) -> bool {
        if !self.replaced.contains(path) {
            return false;
        }
        let layer = site::layer(path);
        let mut sites = self.bank().groups().iter().flat_map(|group| &group.sites);
        sites.any(|site| site::layer(&site.path) == layer)
    }

    /// The backbone without the adapter's edits: frozen, except for what is trained in full (`modules_to_save`).
    /// [`Adapted::bind`] gives the adapted model.
    pub fn backbone(&self) -> &M {
        &self.parts.model
    }

    /// The adapter's factors.
    pub fn bank(&self) -> &Bank {
        &self.parts.bank
    }

    /// The config that this adapter was made with.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// The model with every site bound to its factors, for one forward pass. Copies no tensor; takes a few microseconds per
    /// site on a CPU. Gradients can be taken from it (`GradientsParams::from_grads(.., &bound)`) or from this adapted model.
    ///
    /// On an autodiff device a forward pass draws dropout, and so does Burn's `materialize`: with dropout,
    /// `adapted.bind().materialize()` would write one mask into the weights. [`Adapted::merge`] gives the plain model, and
    /// `adapted.valid().bind().materialize()` one without gradients.
    pub fn bind(&self) -> M {
        self.parts.bank.bind(self.parts.model.clone())
    }

    /// The model's own parameters (not the bank's) that are trained in full, in traversal order.
    pub fn saved_params(&self) -> Vec<ParamInfo> {
        let mut params = site::params(&self.parts.model);
        params.retain(|param| trains(&self.config, param));
        params
    }

    /// The model's own parameters that are saved with the adapter: those that are trained in full, and frozen ones that the
    /// adapter's file replaced (biases, an embedding that was resized).
    pub fn own_params(&self) -> Vec<ParamInfo> {
        let mut params = site::params(&self.parts.model);
        params.retain(|param| trains(&self.config, param) || self.replaced.contains(&param.path));
        params
    }

    /// Applies the last update of running statistics that are trained, so that visitors see what [`Module::valid`] gives.
    pub(crate) fn settle(&self) {
        if self.trains_statistics() {
            statistics::settle(&self.parts.model);
        }
    }

    /// True if running statistics of the model are trained.
    pub(crate) fn trains_statistics(&self) -> bool {
        self.shown.statistics
    }

    pub(crate) fn map_model(self, change: impl FnOnce(M) -> M) -> Self {
        self.map_parts(|Parts { model, bank }| Parts {
            model: change(model),
            bank,
        })
    }

    pub(crate) fn map_bank(self, change: impl FnOnce(Bank) -> Bank) -> Self {
        self.map_parts(|Parts { model, bank }| Parts {
            model,
            bank: change(bank),
        })
    }

    fn map_parts(self, change: impl FnOnce(Parts<M>) -> Parts<M>) -> Self {
        Self {
            parts: change(self.parts),
            replicas: Replicas::default(),
            ..self
        }
    }

    /// Everything that is trained, as a parameter group.
    pub fn trained(&self) -> ParamGroup {
        let factors = self.bank().specs().filter(|(_, spec)| spec.trained);
        let saved = self.saved_params().into_iter().map(|param| param.id);
        ParamGroup::from_ids(saved.chain(factors.map(|(id, _)| id)).collect())
    }
}

/// True if that parameter of the model is trained in full.
pub(crate) fn trains(config: &AdapterConfig, param: &ParamInfo) -> bool {
    config.method.trains(param) || site::is_saved(&param.path, &config.targets.modules_to_save)
}

// Written by hand, not derived: the frozen part is not visited, so that a checkpoint is kilobytes and not another copy of
// the backbone.
impl<M: Module + ModuleDisplay> Module for Adapted<M> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.parts.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        let devices = self.parts.model.devices();
        if devices.is_empty() || devices.contains(device) {
            // Nothing moves.
            return Self {
                parts: self.parts.fork(device),
                ..self
            };
        }
        const MODEL: &str = "model"; // the field of `Parts`
        let Parts { model, bank } = self.parts;
        let mut shown = ByPath::default();
        let mut only = Only::new(&self.shown, &mut shown);
        ModuleVisitor::enter_module(&mut only, MODEL, "");
        model.visit(&mut only);
        ModuleVisitor::exit_module(&mut only, MODEL, "");
        let mut shown = shown.on(device);
        let mut only = Only::new(&self.shown, &mut shown);
        ModuleMapper::enter_module(&mut only, MODEL, "");
        let model = self.replicas.at(&model, device).map(&mut only);
        Self {
            parts: Parts {
                model,
                bank: bank.fork(device),
            },
            // They are copies of the other device's model, not of this one.
            replicas: Replicas::default(),
            ..self
        }
    }

    fn to_device(self, device: &Device) -> Self {
        self.map_parts(|parts| parts.to_device(device))
    }

    fn train(self) -> Self {
        self.map_parts(Parts::train)
    }

    fn valid(&self) -> Self {
        Self {
            parts: self.parts.valid(),
            config: self.config.clone(),
            shown: self.shown.clone(),
            replaced: self.replaced.clone(),
            warnings: self.warnings.clone(),
            replicas: Replicas::default(),
        }
    }

    fn materialize(self) -> Self {
        self.map_parts(Parts::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.parts.visit(&mut Only::new(&self.shown, visitor));
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        self.settle();
        // A mapper changes only what is visible, and that moves with every fork: the copies of the rest stay valid.
        Self {
            parts: self.parts.map(&mut Only::new(&self.shown, mapper)),
            ..self
        }
    }

    // Through an option, which records what is in it: what these replace cannot be called from here.
    fn into_record(self) -> ModuleRecord {
        self.settle();
        Some(self).into_record()
    }

    fn into_record_group(self, group: ParamGroup) -> ModuleRecord {
        self.settle();
        Some(self).into_record_group(group)
    }

    fn try_load_record(self, record: ModuleRecord) -> Result<Self, RecordError> {
        // An update that is still to come would replace what is loaded.
        self.settle();
        let saved = self.names().len();
        if record.len() != saved {
            return Err(RecordError::Validation(format!(
                "the record holds {} tensors, but this adapter has {saved}; load it into an adapter with the same config",
                record.len()
            )));
        }
        let parts = self.parts.try_load_record(record.allow_partial(true))?;
        Ok(Self { parts, ..self })
    }
}

impl<M: Module + ModuleDisplay> ModuleDisplayDefault for Adapted<M> {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&format!("{:?}", self.config.method)).optional()
    }
}

impl<M: Module + ModuleDisplay> ModuleDisplay for Adapted<M> {}
