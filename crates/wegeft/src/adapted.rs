//! The adapted model: a frozen model and its bank, together one Burn `Module`.

use std::collections::HashSet;

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param, ParamGroup,
    ParamId,
};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Device, Tensor};

use crate::bank::Bank;
use crate::config::{AdapterConfig, Method};
use crate::site::{self, ParamInfo};

/// A model and its bank. Every parameter has one owner; the frozen ones get no gradient, and a record of
/// this module holds the trained ones only.
#[derive(Debug, Clone)]
pub struct Adapted<M> {
    /// The model; frozen but for `modules_to_save`.
    pub model: M,
    /// The trainable factors.
    pub bank: Bank,
    config: AdapterConfig,
    trained: Vec<ParamId>,
}

impl<M: Module> Adapted<M> {
    pub(crate) fn new(model: M, bank: Bank, config: AdapterConfig) -> Self {
        let trained: HashSet<ParamId> = site::params(&model)
            .into_iter()
            .filter(|param| trains(&config, &param.path))
            .map(|param| param.id)
            .collect();
        let model = model.map(&mut Freeze { trained: &trained });
        let mut all: Vec<ParamId> = trained.into_iter().collect();
        all.extend(site::params(&bank).into_iter().map(|param| param.id));
        Self { model, bank, config, trained: all }
    }

    /// The config that this adapter was made with.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// The model with every site bound to its factors, for one forward pass.
    pub fn bind(&self) -> M {
        self.bank.bind(self.model.clone())
    }

    /// A plain model with the residuals written into its weights.
    pub fn merge(self) -> M {
        self.bank.bind(self.model.clone()).materialize()
    }

    /// The model parameters (not the bank's) that are trained in full, in traversal order.
    pub fn saved_params(&self) -> Vec<ParamInfo> {
        let mut params = site::params(&self.model);
        params.retain(|param| trains(&self.config, &param.path));
        params
    }

    /// The identities of everything that is trained.
    pub fn trained(&self) -> &[ParamId] {
        &self.trained
    }
}

fn trains(config: &AdapterConfig, path: &str) -> bool {
    config.method == Method::Full || site::is_saved(path, &config.targets.modules_to_save)
}

struct Freeze<'a> {
    trained: &'a HashSet<ParamId>,
}

impl ModuleMapper for Freeze<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let trained = self.trained.contains(&param.id);
        param.set_require_grad(trained)
    }
}

// Written out, not derived: a record of an adapted model is its trained part, so that a checkpoint is
// kilobytes and not the backbone once more.
impl<M: Module> Module for Adapted<M> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.bank.collect_devices(self.model.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        Self { model: self.model.fork(device), bank: self.bank.fork(device), ..self }
    }

    fn to_device(self, device: &Device) -> Self {
        Self { model: self.model.to_device(device), bank: self.bank.to_device(device), ..self }
    }

    fn train(self) -> Self {
        Self { model: self.model.train(), bank: self.bank.train(), ..self }
    }

    fn valid(&self) -> Self {
        Self {
            model: self.model.valid(),
            bank: self.bank.valid(),
            config: self.config.clone(),
            trained: self.trained.clone(),
        }
    }

    fn materialize(self) -> Self {
        Self { model: self.model.materialize(), bank: self.bank.materialize(), ..self }
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        visitor.enter_module("model", "Struct:Adapted");
        self.model.visit(visitor);
        visitor.exit_module("model", "Struct:Adapted");
        visitor.enter_module("bank", "Struct:Adapted");
        self.bank.visit(visitor);
        visitor.exit_module("bank", "Struct:Adapted");
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        mapper.enter_module("model", "Struct:Adapted");
        let model = self.model.map(mapper);
        mapper.exit_module("model", "Struct:Adapted");
        mapper.enter_module("bank", "Struct:Adapted");
        let bank = self.bank.map(mapper);
        mapper.exit_module("bank", "Struct:Adapted");
        Self { model, bank, ..self }
    }

    fn into_record(self) -> ModuleRecord {
        let trained = ParamGroup::from_ids(site::params(&self).into_iter().filter(|p| self.trains(&p.path)).map(|p| p.id).collect());
        self.into_record_group(trained)
    }

    // Paths, not identities, decide: loading gives parameters the identities of the record.
    fn try_load_record(self, record: ModuleRecord) -> Result<Self, RecordError> {
        let found: Vec<usize> = vec![record.len()];
        let wanted = site::params(&self).iter().filter(|p| self.trains(&p.path)).count();
        if found[0] != wanted {
            return Err(RecordError::Validation(format!("the record has {} tensors, this adapter trains {wanted}", found[0])));
        }
        let mut loaded = record.allow_partial(true).apply_to(self)?;
        loaded.trained = site::params(&loaded).into_iter().filter(|p| loaded.trains(&p.path)).map(|p| p.id).collect();
        Ok(loaded)
    }
}
