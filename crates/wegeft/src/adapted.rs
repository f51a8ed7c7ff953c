//! The adapted model: a frozen model and its bank, together one Burn `Module`.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, ParamGroup, ParamId,
};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::Device;

use crate::bank::Bank;
use crate::by_path::ByPath;
use crate::checkpoint::Tensors;
use crate::config::AdapterConfig;
use crate::error::AdapterError;
use crate::foreign;
use crate::freeze::frozen;
use crate::misspelled;
use crate::patterns;
use crate::replicas::Replicas;
use crate::site::{self, ParamInfo, Site};
use crate::statistics;
use crate::visible::Only;

#[derive(Module, Debug)]
struct Parts<M: Module + ModuleDisplay> {
    model: M,
    bank: Bank,
}

/// A backbone and its bank. Every parameter has one owner. As a Burn module it exposes only what is trained or saved: this is
/// what optimizers update, what `num_params` counts and what a record holds, also when it is a field of another module.
/// The frozen part is reached through [`Adapted::backbone`]; `to_device`, `fork`, `valid` and `train` act on both parts.
///
/// Everything else that maps parameters sees the trained part only: `quantize_weights` would quantize the factors and leave the
/// backbone as it is. Quantize a backbone before it is adapted, as `examples/qlora.rs` does.
///
/// [`Module::fork`] moves the frozen part to another device once and keeps it there, however often it is called; the trained
/// part moves each time. A training on several devices (Burn's `ExecutionStrategy::multi` forks the model for every device at
/// every step) therefore moves the factors but not the backbone.
#[derive(Debug, Clone)]
pub struct Adapted<M: Module + ModuleDisplay> {
    parts: Parts<M>,
    config: AdapterConfig,
    /// Paths of the parameters that are trained or saved.
    shown: Arc<HashSet<String>>,
    /// Paths of frozen parameters of the backbone that the adapter's file replaced; they are saved with the adapter.
    replaced: Arc<HashSet<String>>,
    warnings: Vec<String>,
    /// The model on other devices.
    replicas: Replicas<M>,
}

impl<M: Module + ModuleDisplay> Adapted<M> {
    pub(crate) fn new(model: M, bank: Bank, config: AdapterConfig) -> Self {
        let trained = site::params(&model).into_iter().filter(|param| trains(&config, param));
        let trained: HashSet<String> = trained.map(|param| param.path).collect();
        let own = trained.iter().map(|path| format!("model.{path}"));
        let factors = site::params(&bank).into_iter().zip(bank.specs());
        let factors = factors
            .filter(|(_, (_, spec))| spec.trained || spec.saved)
            .map(|(param, _)| format!("bank.{}", param.path));
        let shown = Arc::new(own.chain(factors).collect());
        let model = match trained.iter().any(|path| statistics::is_statistic(path)) {
            true => statistics::unshared(model),
            false => model,
        };
        let model = frozen(model, trained);
        Self {
            parts: Parts { model, bank },
            config,
            shown,
            replaced: Arc::default(),
            warnings: Vec::new(),
            replicas: Replicas::default(),
        }
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
        self.shown = Arc::new(self.shown.iter().cloned().chain(own).collect());
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

    /// The backbone as it is at rest: frozen but for `modules_to_save`, its sites unbound. A forward pass of this one is
    /// the frozen model's; [`Adapted::bind`] gives the adapted one.
    pub fn backbone(&self) -> &M {
        &self.parts.model
    }

    /// The trainable factors.
    pub fn bank(&self) -> &Bank {
        &self.parts.bank
    }

    /// The config that this adapter was made with.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// The model with every site bound to its factors, for one forward pass: handles only, a few microseconds
    /// per site on a CPU. Gradients taken from it (`GradientsParams::from_grads(.., &bound)`) are the bank's and fit this adapted
    /// model.
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

impl AdapterConfig {
    /// Adapts `model`: freezes it and makes the bank on the model's device.
    ///
    /// # Errors
    /// A target that matches nothing or cannot be adapted, an impossible rank, a group whose sites differ in a size that they
    /// must share, a `modules_to_save` that names no module, a quantized or tied weight that would be trained in full, a PEFT
    /// setting that is supported only in adapters that are loaded, or a field that would have no effect.
    pub fn init<M: Module + ModuleDisplay>(&self, model: M) -> Result<Adapted<M>, AdapterError> {
        self.check_fresh()?;
        let adapted = self.adapt(model)?;
        self.check_effect(&adapted)?;
        self.refuse_unmatched(&adapted)?;
        Ok(adapted)
    }

    /// Refuses a pattern of a rank or an alpha that matches nothing.
    pub(crate) fn refuse_unmatched<M: Module + ModuleDisplay>(&self, adapted: &Adapted<M>) -> Result<(), AdapterError> {
        match self.unmatched_patterns(adapted)?.first() {
            None => Ok(()),
            Some((field, key)) => {
                let message = format!("'{key}' matches none of the adapted modules");
                Err(AdapterError::bad_field(*field, message))
            }
        }
    }

    /// [`AdapterConfig::init`] for an adapter whose `tensors` are loaded next. Names are matched as PEFT matches those of a
    /// file, and sizes are checked against the tensors before any factor is allocated. `path` names the file in messages.
    pub(crate) fn init_to_load<M: Module + ModuleDisplay>(
        &self,
        model: M,
        tensors: &Tensors,
        path: &Path,
    ) -> Result<Adapted<M>, AdapterError> {
        let places = site::places(&model);
        let (targets, mut warnings) = self.targets.of_file(&places)?;
        warnings.extend(misspelled::warnings(&self.extra, &self.fields()));
        let config = Self {
            targets,
            method: self.method.as_stored(tensors).unwrap_or_else(|| self.method.clone()),
            ..self.clone()
        };
        let sites = config.method.sites(&places, &config.targets)?;
        if !sites.is_empty() {
            let expected = Bank::expected(&*config.method, &config.method.groups(&sites)?);
            foreign::check_sizes(&expected, tensors, path)?;
        }
        let adapted = config.adapt(model)?;
        let patterns = config.unmatched_patterns(&adapted)?.into_iter();
        warnings.extend(patterns.map(|(field, key)| format!("{field}: '{key}' matches none of the adapted modules")));
        Ok(adapted.with_warnings(warnings))
    }

    /// The names in the method's settings that match none of the adapted modules, by field.
    fn unmatched_patterns<M: Module + ModuleDisplay>(
        &self,
        adapted: &Adapted<M>,
    ) -> Result<Vec<(&'static str, String)>, AdapterError> {
        let sites = adapted.bank().groups().iter().flat_map(|group| &group.sites);
        let modules: Vec<String> = sites.map(Site::module).collect();
        patterns::unmatched(&self.method.settings(), &modules)
    }

    pub(crate) fn adapt<M: Module + ModuleDisplay>(&self, model: M) -> Result<Adapted<M>, AdapterError> {
        let places = site::places(&model);
        let params = &places.params;
        for name in &self.targets.modules_to_save {
            if !params
                .iter()
                .any(|param| site::is_saved(&param.path, std::slice::from_ref(name)))
            {
                let heads: Vec<_> = params.iter().map(|param| site::kind(param.name())).collect();
                let message = format!(
                    "'{name}' names no module of the model; the last ones are: {}",
                    last(heads)
                );
                return Err(AdapterError::bad_field("modules_to_save", message));
            }
        }
        if let Some(param) = params.iter().find(|param| param.quantized && trains(self, param)) {
            return Err(AdapterError::Quantized {
                path: param.path.clone(),
            });
        }
        let mut first_of: HashMap<ParamId, &ParamInfo> = HashMap::new();
        for param in params {
            let first = *first_of.entry(param.id).or_insert(param);
            if first.path != param.path && (trains(self, param) || trains(self, first)) {
                return Err(AdapterError::Tied {
                    path: first.path.clone(),
                    other: param.path.clone(),
                });
            }
        }
        let bank = Bank::init(self, &model, &places)?;
        let adapted = Adapted::new(model, bank, self.clone());
        let mut paths: HashMap<String, String> = HashMap::new();
        for (path, (_, key)) in adapted.names() {
            if let Some(first) = paths.insert(key.clone(), path.clone()) {
                return Err(AdapterError::SameKey {
                    key,
                    first,
                    second: path,
                });
            }
        }
        Ok(adapted)
    }
}

fn last(mut names: Vec<String>) -> String {
    names.dedup();
    let from = names.len().saturating_sub(4);
    names[from..].join(", ")
}

/// True if that parameter of the model is trained in full.
fn trains(config: &AdapterConfig, param: &ParamInfo) -> bool {
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
        // A mapper changes only what is visible, and that moves with every fork: the copies of the rest stay valid.
        Self {
            parts: self.parts.map(&mut Only::new(&self.shown, mapper)),
            ..self
        }
    }

    fn try_load_record(self, record: ModuleRecord) -> Result<Self, RecordError> {
        let saved = self.names().len();
        if record.len() != saved {
            return Err(RecordError::Validation(format!(
                "the record holds {} tensors, this adapter has {saved}",
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
