//! Several named adapters on one frozen backbone, whose weights exist once.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param, ParamId,
};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Device, Tensor};

use crate::adapted::Adapted;
use crate::config::AdapterConfig;
use crate::error::AdapterError;
use crate::freeze::frozen;
use crate::tensor::dequantized;

/// Name of the frozen backbone in a mixed batch, as in PEFT.
pub const BASE: &str = "__base__";

/// Named adapters on one backbone, of which at most one is active. As a Burn module it stands for the active adapter, or for
/// the frozen backbone if none is active: that is what is optimized, recorded and loaded. What changes the backbone changes it
/// for all adapters.
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
    named: Vec<(String, Adapted<M>)>,
    active: Option<usize>,
}

impl<M: Module + ModuleDisplay> Adapters<M> {
    /// Freezes `backbone`, running statistics included, which has no adapters yet.
    pub fn new(backbone: M) -> Self {
        Self {
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
    /// A name that is taken, or a config that does not fit the backbone.
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

    /// Adds an adapter that was made from a clone of the backbone, such as one with a head of its own. Its frozen weights are
    /// compared with the backbone's, element by element, and replaced by handles to them.
    ///
    /// # Errors
    /// A name that is taken or reserved, or an adapter of another backbone or of one whose weights were changed: merged, or
    /// trained.
    pub fn insert(&mut self, name: &str, adapted: Adapted<M>) -> Result<(), AdapterError> {
        self.check_name(name)?;
        if let Some(stranger) = self.stranger(&adapted) {
            return Err(AdapterError::OtherBackbone {
                name: name.to_string(),
                path: stranger,
            });
        }
        self.put(name, adapted);
        Ok(())
    }

    /// Refuses a name that cannot be given to one more adapter.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), AdapterError> {
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
        // The heads of all adapters start from the same parameter; they need ids of their own, or an optimizer would confuse
        // them.
        let own = adapted.own_params().into_iter().map(|param| param.id).collect();
        let adapted = adapted.map_model(|model| model.map(&mut FreshIds { own }));
        let adapted = grafted(adapted, &Frozen::of(&self.backbone), None);
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

    /// A frozen parameter of `adapted` that is not the backbone's.
    fn stranger(&self, adapted: &Adapted<M>) -> Option<String> {
        let mut strangers = Strangers {
            frozen: &Frozen::of(&self.backbone),
            own: own_paths(adapted),
            path: Vec::new(),
            found: None,
        };
        adapted.backbone().visit(&mut strangers);
        strangers.found
    }

    fn index(&self, name: &str) -> Result<usize, AdapterError> {
        let unknown = || AdapterError::UnknownAdapter {
            name: name.to_string(),
            known: self.names().map(ToString::to_string).collect(),
        };
        self.names().position(|known| known == name).ok_or_else(unknown)
    }

    /// All adapters on a backbone that took the place of theirs. If it moved to a device, of each adapter its own part moves.
    fn on(self, backbone: M, to: Option<&Move>) -> Self {
        let frozen = Frozen::of(&backbone);
        let named = self.named.into_iter().map(|(name, adapted)| {
            let adapted = grafted(adapted, &frozen, to);
            (
                name,
                adapted.map_bank(|bank| to.map_or(bank.clone(), |to| to.apply(bank))),
            )
        });
        Self {
            named: named.collect(),
            backbone,
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

/// Paths of the parameters that an adapter does not share with the backbone.
fn own_paths<M: Module + ModuleDisplay>(adapted: &Adapted<M>) -> HashSet<String> {
    adapted.own_params().into_iter().map(|param| param.path).collect()
}

/// `adapted` with handles to the backbone's frozen parameters in place of its own, and with its own part moved.
fn grafted<M: Module + ModuleDisplay>(adapted: Adapted<M>, frozen: &Frozen, to: Option<&Move>) -> Adapted<M> {
    let mut graft = Graft {
        frozen,
        own: own_paths(&adapted),
        to,
        path: Vec::new(),
    };
    adapted.map_model(|model| model.map(&mut graft))
}

/// The frozen parameters of a backbone, by path: a record that is loaded may give them other ids.
#[derive(Default)]
struct Frozen {
    params: HashMap<String, Box<dyn Any>>,
    path: Vec<String>,
}

impl Frozen {
    fn of<M: Module>(backbone: &M) -> Self {
        let mut frozen = Self::default();
        backbone.visit(&mut frozen);
        frozen
    }

    fn at<const D: usize>(&self, path: &[String]) -> Option<&Param<Tensor<D>>> {
        self.params.get(&path.join("."))?.downcast_ref()
    }
}

impl ModuleVisitor for Frozen {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.params.insert(self.path.join("."), Box::new(param.clone()));
    }
}

/// Finds the frozen parameters that are not the backbone's: of other ids, or of other elements, since a merged or trained
/// clone keeps its ids.
struct Strangers<'a> {
    frozen: &'a Frozen,
    own: HashSet<String>,
    path: Vec<String>,
    /// The first in the alphabet.
    found: Option<String>,
}

impl ModuleVisitor for Strangers<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        if self.own.contains(&path) || self.found.as_ref().is_some_and(|found| *found <= path) {
            return;
        }
        let same = self.frozen.at(&self.path);
        if !same.is_some_and(|frozen| frozen.id == param.id && equal(frozen, param)) {
            self.found = Some(path);
        }
    }
}

/// True if two parameters of one id have equal elements. One that is not yet drawn is what it was.
fn equal<const D: usize>(a: &Param<Tensor<D>>, b: &Param<Tensor<D>>) -> bool {
    if !a.is_initialized() || !b.is_initialized() {
        return true;
    }
    let plain = |param: &Param<Tensor<D>>| dequantized(param.base().without_autodiff());
    let (a, b) = (plain(a), plain(b));
    let b = b.to_device(&a.device());
    a.shape() == b.shape() && a.dtype() == b.dtype() && a.equal(b).all().into_scalar::<bool>()
}

struct FreshIds {
    own: HashSet<ParamId>,
}

impl ModuleMapper for FreshIds {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.own.contains(&param.id) {
            return param;
        }
        let (_, tensor, mapper) = param.consume();
        Param::from_mapped_value(ParamId::new(), tensor, mapper)
    }
}

/// How parameters change their device.
enum Move {
    Fork(Device),
    ToDevice(Device),
}

impl Move {
    fn apply<T: Module>(&self, module: T) -> T {
        match self {
            Self::Fork(device) => module.fork(device),
            Self::ToDevice(device) => module.to_device(device),
        }
    }
}

/// Replaces an adapter's copies of the backbone's parameters with handles to them, and moves the adapter's own.
struct Graft<'a> {
    frozen: &'a Frozen,
    /// Paths of its own: running statistics have the backbone's ids all the same.
    own: HashSet<String>,
    to: Option<&'a Move>,
    path: Vec<String>,
}

impl ModuleMapper for Graft<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let frozen = self.frozen.at(&self.path);
        match frozen.filter(|_| !self.own.contains(&self.path.join("."))) {
            Some(shared) => shared.clone(),
            None => match self.to {
                Some(to) => to.apply(param),
                None => param,
            },
        }
    }
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
            active: self.active,
        }
    }

    fn valid(&self) -> Self {
        let named = self.named.iter().map(|(name, adapted)| (name.clone(), adapted.valid()));
        Self {
            named: named.collect(),
            backbone: self.backbone.valid(),
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
                let backbone = self.backbone.clone().map(mapper);
                self.on(backbone, None)
            }
        }
    }

    fn into_record(self) -> ModuleRecord {
        match self.active() {
            Some((_, adapted)) => adapted.clone().into_record(),
            None => self.backbone.into_record(),
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
                // A record has training flags, too.
                let backbone = frozen(self.backbone.clone().try_load_record(record)?, HashSet::new());
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
