//! An adapted model on other devices: what is frozen moves to each of them once, what is trained with every fork.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::{Flag, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

/// Copies of one frozen model, one for each other device that asked for one. Clones share them.
#[derive(Clone)]
pub(crate) struct Replicas<M>(Arc<Mutex<Vec<(Device, M)>>>);

impl<M> Default for Replicas<M> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<M> fmt::Debug for Replicas<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replicas")
    }
}

impl<M: Module> Replicas<M> {
    /// `model` on `device`, moved there if nobody did before.
    pub(crate) fn at(&self, model: &M, device: &Device) -> M {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Devices are equal with and without autodiff.
        let same = |other: &Device| other == device && other.is_autodiff() == device.is_autodiff();
        if let Some((_, replica)) = known.iter().find(|(other, _)| same(other)) {
            return replica.clone();
        }
        let replica = model.clone().fork(device);
        known.push((device.clone(), replica.clone()));
        replica
    }
}

/// Parameters and flags of a module by path: handles only.
#[derive(Default)]
pub(crate) struct Taken {
    path: Vec<String>,
    params: HashMap<String, Box<dyn Any>>,
    flags: HashMap<String, Param<Flag>>,
}

impl ModuleVisitor for Taken {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.params.insert(self.path.join("."), Box::new(param.clone()));
    }

    fn visit_flag(&mut self, flag: &Param<Flag>) {
        self.flags.insert(self.path.join("."), flag.clone());
    }
}

/// Puts what was taken of a module into one of the same shape on `device`.
pub(crate) struct Put<'a> {
    path: Vec<String>,
    taken: Taken,
    device: &'a Device,
}

impl<'a> Put<'a> {
    pub(crate) fn new(taken: Taken, device: &'a Device) -> Self {
        Self {
            path: Vec::new(),
            taken,
            device,
        }
    }
}

impl ModuleMapper for Put<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let taken = self.taken.params.remove(&self.path.join("."));
        match taken.and_then(|taken| taken.downcast::<Param<Tensor<D>>>().ok()) {
            Some(taken) => taken.fork(self.device),
            None => param,
        }
    }

    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        self.taken.flags.remove(&self.path.join(".")).unwrap_or(flag)
    }
}
