//! Several named adapters on one frozen backbone, whose weights exist once.

use std::collections::HashSet;
use std::path::Path;

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, ParamGroup,
};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::Device;

use crate::adapted::Adapted;
use crate::config::AdapterConfig;
use crate::error::AdapterError;
use crate::freeze::frozen;
use crate::graft::{Frozen, Move};
use crate::site;

/// Name of the frozen backbone in a mixed batch, as in PEFT.
pub const BASE: &str = "__base__";

/// Named adapters on one backbone, of which at most one is active. As a Burn module it stands for the active adapter, or for
/// the frozen backbone if none is active: that is what is optimized, recorded and loaded. What changes the backbone
/// changes it for all adapters.
///
/// ```
/// # use burn::nn::{Linear, LinearConfig};
/// # use burn::tensor::{Device, Tensor};
/// use wegeft::{AdapterConfig, Adapters, linear};
/// # #[derive(burn::module::Module, Debug)]
/// # struct Model { proj: Linear }
/// # let device = Device::flex();
/// # let model = Model { proj: LinearConfig::new(8, 4).init(&device) };
/// let mut adapters = Adapters::new(model);
/// adapters.add("birds", &AdapterConfig::wegeft(2).with_target_modules(["proj"]))?;
/// adapters.add("cars", &AdapterConfig::lora(2).with_target_modules(["proj"]))?;
/// adapters.switch("cars")?;
/// let cars = adapters.bind();
/// adapters.disable();
/// let frozen = adapters.bind();
/// // One forward pass over a batch of three whose rows use different adapters:
/// let mixed = adapters.bind_rows(&["cars", "birds", "__base__"])?;
/// let y = linear(&mixed.proj, Tensor::<2>::ones([3, 8], &device));
/// # Ok::<(), wegeft::AdapterError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Adapters<M: Module + ModuleDisplay> {
    backbone: M,
    /// Path of a parameter of the backbone that carries an adapter already, so that no other can be added.
    carries: Option<String>,
    named: Vec<(String, Adapted<M>)>,
    active: Option<usize>,
}

impl<M: Module + ModuleDisplay> Adapters<M> {
    /// Freezes `backbone`, including its running statistics. It has no adapters yet; one that is bound to an adapter
    /// already is refused when the first is added.
    pub fn new(backbone: M) -> Self {
        Self {
            // Of the backbone as it is given.
            carries: carried(&backbone),
            backbone: frozen(backbone, HashSet::new()),
            named: Vec::new(),
            active: None,
        }
    }

    /// The frozen model.
    pub fn backbone(&self) -> &M {
        &self.backbone
    }

    /// Adds a fresh adapter; the first one added becomes active.
    ///
    /// # Errors
    /// A name that is taken, a config that does not fit the backbone, or a backbone that carries an adapter already.
    pub fn add(&mut self, name: &str, config: &AdapterConfig) -> Result<(), AdapterError> {
        self.check_name(name)?;
        let adapted = config.init(self.backbone.clone())?;
        self.put(name, adapted);
        Ok(())
    }

    /// Adds the adapter that `folder` holds.
    ///
    /// # Errors
    /// A name that is taken, or a folder that cannot be read or does not fit the backbone.
    pub fn load(&mut self, name: &str, folder: impl AsRef<Path>) -> Result<(), AdapterError> {
        self.check_name(name)?;
        let adapted = Adapted::load(self.backbone.clone(), folder)?;
        self.put(name, adapted);
        Ok(())
    }

    /// Adds an adapter that was made from a clone of the backbone, such as one with a head of its own. Its frozen weights
    /// are compared with the backbone's, element by element, and replaced by handles to them.
    ///
    /// # Errors
    /// A name that is taken or reserved, or an adapter of another backbone or of one whose weights were changed: merged, or
    /// trained.
    pub fn insert(&mut self, name: &str, adapted: Adapted<M>) -> Result<(), AdapterError> {
        self.check_name(name)?;
        if let Some(path) = Frozen::of(&self.backbone).first_difference(adapted.backbone(), adapted.own_params()) {
            return Err(AdapterError::OtherBackbone {
                name: name.to_string(),
                path,
            });
        }
        self.put(name, adapted);
        Ok(())
    }

    /// Refuses a name that cannot be given to one more adapter, and a backbone that takes no adapter.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), AdapterError> {
        if let Some(path) = &self.carries {
            return Err(AdapterError::AlreadyAdapted { path: path.clone() });
        }
        if name == BASE {
            return Err(AdapterError::ReservedName { name: name.to_string() });
        }
        match self.index(name) {
            Ok(_) => Err(AdapterError::NameTaken { name: name.to_string() }),
            Err(_) => Ok(()),
        }
    }

    /// Adds an adapter of this backbone.
    pub(crate) fn put(&mut self, name: &str, adapted: Adapted<M>) {
        let frozen = Frozen::of(&self.backbone);
        let adapted = adapted.with_own_ids();
        let own = adapted.own_params();
        let adapted = adapted.map_model(|model| frozen.grafted(model, own, None));
        self.named.push((name.to_string(), adapted));
        if self.named.len() == 1 {
            self.active = Some(0);
        }
    }

    /// Removes an adapter; if it was the active one, no adapter is active afterwards.
    ///
    /// # Errors
    /// An unknown name.
    pub fn remove(&mut self, name: &str) -> Result<Adapted<M>, AdapterError> {
        let index = self.index(name)?;
        self.active = match self.active {
            Some(active) if active == index => None,
            Some(active) if active > index => Some(active - 1),
            other => other,
        };
        Ok(self.named.remove(index).1)
    }

    /// The names, in the order of addition.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.iter().map(|(name, _)| name.as_str())
    }

    /// An adapter by name.
    ///
    /// # Errors
    /// An unknown name.
    pub fn get(&self, name: &str) -> Result<&Adapted<M>, AdapterError> {
        Ok(&self.named[self.index(name)?].1)
    }

    /// Makes an adapter the active one.
    ///
    /// # Errors
    /// An unknown name.
    pub fn switch(&mut self, name: &str) -> Result<(), AdapterError> {
        self.active = Some(self.index(name)?);
        Ok(())
    }

    /// Deactivates all adapters: [`Adapters::bind`] then gives the frozen backbone.
    pub fn disable(&mut self) {
        self.active = None;
    }

    /// The active adapter and its name.
    pub fn active(&self) -> Option<(&str, &Adapted<M>)> {
        self.active
            .map(|index| (self.named[index].0.as_str(), &self.named[index].1))
    }

    /// The backbone with the active adapter bound.
    pub fn bind(&self) -> M {
        match self.active() {
            Some((_, adapted)) => adapted.bind(),
            None => self.backbone.clone(),
        }
    }

    fn index(&self, name: &str) -> Result<usize, AdapterError> {
        let unknown = || AdapterError::UnknownAdapter {
            name: name.to_string(),
            known: self.names().map(ToString::to_string).collect(),
        };
        self.names().position(|known| known == name).ok_or_else(unknown)
    }

    /// All adapters on a backbone that took the place of theirs. If it moved to a device, of each adapter its own part
    /// moves.
    fn on(self, backbone: M, to: Option<&Move>) -> Self {
        let frozen = Frozen::of(&backbone);
        let named = self.named.into_iter().map(|(name, adapted)| {
            let own = adapted.own_params();
            let adapted = adapted.map_model(|model| frozen.grafted(model, own, to));
            let adapted = adapted.map_bank(|bank| match to {
                Some(to) => to.apply(bank),
                None => bank,
            });
            (name, adapted)
        });
        Self {
            named: named.collect(),
            backbone,
            carries: self.carries,
            active: self.active,
        }
    }

    fn map_active(mut self, change: impl FnOnce(Adapted<M>) -> Adapted<M>) -> Self {
        if let Some(index) = self.active {
            let (name, adapted) = self.named.swap_remove(index);
            self.named.push((name, change(adapted)));
            let last = self.named.len() - 1;
            self.named.swap(index, last);
        }
        self
    }
}

/// Path of the first parameter of `model` that carries an adapter.
fn carried<M: Module>(model: &M) -> Option<String> {
    site::places(model).reparameterized.into_iter().next()
}

impl<M: Module + ModuleDisplay> Module for Adapters<M> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        let devices = self.backbone.collect_devices(devices);
        let named = self.named.iter();
        named.fold(devices, |devices, (_, adapted)| adapted.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        let backbone = self.backbone.clone().fork(device);
        self.on(backbone, Some(&Move::Fork(device.clone())))
    }

    fn to_device(self, device: &Device) -> Self {
        let backbone = self.backbone.clone().to_device(device);
        self.on(backbone, Some(&Move::ToDevice(device.clone())))
    }

    fn train(self) -> Self {
        let named = self.named.into_iter().map(|(name, adapted)| (name, adapted.train()));
        Self {
            named: named.collect(),
            backbone: self.backbone.train(),
            carries: self.carries,
            active: self.active,
        }
    }

    fn valid(&self) -> Self {
        let named = self.named.iter().map(|(name, adapted)| (name.clone(), adapted.valid()));
        Self {
            named: named.collect(),
            backbone: self.backbone.valid(),
            carries: self.carries.clone(),
            active: self.active,
        }
    }

    fn materialize(self) -> Self {
        self.map_active(Adapted::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        match self.active() {
            Some((_, adapted)) => adapted.visit(visitor),
            None => self.backbone.visit(visitor),
        }
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        match self.active {
            Some(_) => self.map_active(|adapted| adapted.map(mapper)),
            None => {
                // It stays frozen, whatever the mapper is: Burn's `unfreeze` would make all adapters train it.
                let backbone = self.backbone.clone().map(mapper);
                let carries = carried(&backbone).or(self.carries.clone());
                let backbone = frozen(backbone, HashSet::new());
                Self {
                    carries,
                    ..self.on(backbone, None)
                }
            }
        }
    }

    fn into_record(self) -> ModuleRecord {
        match self.active() {
            Some((_, adapted)) => adapted.clone().into_record(),
            None => self.backbone.into_record(),
        }
    }

    fn into_record_group(self, group: ParamGroup) -> ModuleRecord {
        match self.active() {
            Some((_, adapted)) => adapted.clone().into_record_group(group),
            None => self.backbone.into_record_group(group),
        }
    }

    fn try_load_record(mut self, record: ModuleRecord) -> Result<Self, RecordError> {
        match self.active {
            Some(index) => {
                let loaded = self.named[index].1.clone().try_load_record(record)?;
                self.named[index].1 = loaded;
                Ok(self)
            }
            None => {
                let backbone = self.backbone.clone().try_load_record(record)?;
                Ok(self.on(backbone, None))
            }
        }
    }
}

impl<M: Module + ModuleDisplay> ModuleDisplayDefault for Adapters<M> {
    fn content(&self, content: Content) -> Option<Content> {
        let names: Vec<&str> = self.names().collect();
        content.add_formatted(&names.join(", ")).optional()
    }
}

impl<M: Module + ModuleDisplay> ModuleDisplay for Adapters<M> {}
