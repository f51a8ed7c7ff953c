//! Parameters and flags of a module by path: collected in one module, put into another of the same shape. Handles only.

use std::any::Any;
use std::collections::HashMap;

use burn::module::{Flag, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, Device, Int, Tensor};

/// What was visited in a module; as a mapper, it takes the place of what another module has at the same paths.
#[derive(Default)]
pub(crate) struct ByPath {
    path: Vec<String>,
    visited: HashMap<String, Box<dyn Any>>,
    device: Option<Device>,
}

impl ByPath {
    /// The same, its float parameters put on `device`.
    pub(crate) fn on(self, device: &Device) -> Self {
        Self {
            device: Some(device.clone()),
            ..self
        }
    }

    fn insert<P: 'static>(&mut self, param: P) {
        self.visited.insert(self.path.join("."), Box::new(param));
    }

    /// What was visited at this path.
    pub(crate) fn at<P: 'static>(&self, path: &[String]) -> Option<&P> {
        self.visited.get(&path.join("."))?.downcast_ref()
    }

    fn get<P: Clone + 'static>(&self) -> Option<P> {
        self.at(&self.path).cloned()
    }
}

impl ModuleVisitor for ByPath {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.insert(param.clone());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.insert(param.clone());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.insert(param.clone());
    }

    fn visit_flag(&mut self, flag: &Param<Flag>) {
        self.insert(flag.clone());
    }
}

impl ModuleMapper for ByPath {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match (self.get::<Param<Tensor<D>>>(), &self.device) {
            (Some(visited), Some(device)) => visited.fork(device),
            (Some(visited), None) => visited,
            (None, _) => param,
        }
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        self.get().unwrap_or(param)
    }

    fn map_bool<const D: usize>(&mut self, param: Param<Tensor<D, Bool>>) -> Param<Tensor<D, Bool>> {
        self.get().unwrap_or(param)
    }

    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        self.get().unwrap_or(flag)
    }
}
