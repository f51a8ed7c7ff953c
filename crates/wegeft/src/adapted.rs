//! The adapted model: a frozen model and its bank, together one Burn `Module`.

use std::collections::HashSet;

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param, ParamGroup,
    ParamId,
};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Device, Tensor};

use crate::bank::Bank;
use crate::config::AdapterConfig;
use crate::error::AdapterError;
use crate::site::{self, ParamInfo};

#[derive(Module, Debug)]
struct Parts<M: Module + ModuleDisplay> {
    model: M,
    bank: Bank,
}

/// A model and its bank. Every parameter has one owner; the frozen ones get no gradient, and a record of
/// this module holds the trained ones only.
#[derive(Debug, Clone)]
pub struct Adapted<M: Module + ModuleDisplay> {
    parts: Parts<M>,
    config: AdapterConfig,
}

impl<M: Module + ModuleDisplay> Adapted<M> {
    pub(crate) fn new(model: M, bank: Bank, config: AdapterConfig) -> Self {
        let trained = site::params(&model).into_iter().filter(|param| trains(&config, param));
        let trained = trained.map(|param| param.id).collect();
        let model = model.map(&mut Freeze { trained });
        Self {
            parts: Parts { model, bank },
            config,
        }
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

    /// The model with every site bound to its factors, for one forward pass: handles only.
    pub fn bind(&self) -> M {
        self.parts.bank.bind(self.parts.model.clone())
    }

    /// The model's own parameters (not the bank's) that are trained in full, in traversal order.
    pub fn saved_params(&self) -> Vec<ParamInfo> {
        let mut params = site::params(&self.parts.model);
        params.retain(|param| trains(&self.config, param));
        params
    }

    pub(crate) fn map_model(self, change: impl FnOnce(M) -> M) -> Self {
        let Parts { model, bank } = self.parts;
        Self {
            parts: Parts {
                model: change(model),
                bank,
            },
            config: self.config,
        }
    }

    pub(crate) fn map_bank(self, change: impl FnOnce(Bank) -> Bank) -> Self {
        let Parts { model, bank } = self.parts;
        Self {
            parts: Parts {
                model,
                bank: change(bank),
            },
            config: self.config,
        }
    }

    pub(crate) fn map_parts(self, mapper: &mut impl ModuleMapper) -> Self {
        Self {
            parts: self.parts.map(mapper),
            config: self.config,
        }
    }

    /// Everything that is trained, as a parameter group.
    pub fn trained(&self) -> ParamGroup {
        let factors = self.bank().specs().filter(|(_, spec)| spec.trained);
        let saved = self.saved_params().into_iter().map(|param| param.id);
        ParamGroup::from_ids(saved.chain(factors.map(|(id, _)| id)).collect())
    }

    /// Everything that is saved: what is trained, and what of the bank cannot be made anew.
    fn saved(&self) -> Vec<ParamId> {
        self.names().into_values().map(|(param, _)| param.id).collect()
    }
}

impl AdapterConfig {
    /// Adapts `model`: freezes it, makes the bank on the model's device.
    ///
    /// # Errors
    /// A target that matches nothing or is no matrix, an impossible rank, unequal d_in in a group,
    /// a `modules_to_save` that names no module.
    pub fn init<M: Module + ModuleDisplay>(&self, model: M) -> Result<Adapted<M>, AdapterError> {
        let places = site::places(&model);
        let params = &places.params;
        for name in &self.targets.modules_to_save {
            if !params
                .iter()
                .any(|param| site::is_saved(&param.path, std::slice::from_ref(name)))
            {
                let heads: Vec<_> = params.iter().map(|param| site::kind(param.module())).collect();
                let message = format!(
                    "'{name}' names no module of the model; the last ones are: {}",
                    last(heads)
                );
                return Err(AdapterError::bad_field("modules_to_save", message));
            }
        }
        let bank = Bank::init(self, &model, &places)?;
        Ok(Adapted::new(model, bank, self.clone()))
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

struct Freeze {
    trained: HashSet<ParamId>,
}

impl ModuleMapper for Freeze {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let trained = self.trained.contains(&param.id);
        param.set_require_grad(trained)
    }
}

// Written out, not derived: a record of an adapted model is its trained part, so that a checkpoint is
// kilobytes and not the backbone once more.
impl<M: Module + ModuleDisplay> Module for Adapted<M> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.parts.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self {
            parts: self.parts.fork(device),
            config: self.config,
        }
    }

    fn to_device(self, device: &Device) -> Self {
        Self {
            parts: self.parts.to_device(device),
            config: self.config,
        }
    }

    fn train(self) -> Self {
        Self {
            parts: self.parts.train(),
            config: self.config,
        }
    }

    fn valid(&self) -> Self {
        Self {
            parts: self.parts.valid(),
            config: self.config.clone(),
        }
    }

    fn materialize(self) -> Self {
        Self {
            parts: self.parts.materialize(),
            config: self.config,
        }
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.parts.visit(visitor);
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        self.map_parts(mapper)
    }

    fn into_record(self) -> ModuleRecord {
        let saved = ParamGroup::from_ids(self.saved());
        self.parts.into_record_group(saved)
    }

    fn try_load_record(self, record: ModuleRecord) -> Result<Self, RecordError> {
        let saved = self.saved().len();
        if record.len() != saved {
            return Err(RecordError::Validation(format!(
                "the record holds {} tensors, this adapter has {saved}",
                record.len()
            )));
        }
        let parts = self.parts.try_load_record(record.allow_partial(true))?;
        Ok(Self {
            parts,
            config: self.config,
        })
    }
}

impl<M: Module + ModuleDisplay> ModuleDisplayDefault for Adapted<M> {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&format!("{:?}", self.config.method)).optional()
    }
}

impl<M: Module + ModuleDisplay> ModuleDisplay for Adapted<M> {}
