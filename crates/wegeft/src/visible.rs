//! Visiting only a part of a module: the parameters at given paths.

use std::collections::HashSet;

use burn::module::{Flag, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// Shows `inner` only the float parameters at the given paths. Training flags, which are not weights, are always shown.
pub(crate) struct Only<'a, I> {
    inner: &'a mut I,
    paths: &'a HashSet<String>,
    path: Vec<String>,
}

impl<'a, I> Only<'a, I> {
    /// `paths` as seen from the module that is visited.
    pub(crate) fn new(paths: &'a HashSet<String>, inner: &'a mut I) -> Self {
        Self {
            inner,
            paths,
            path: Vec::new(),
        }
    }

    fn shows(&self) -> bool {
        self.paths.contains(&self.path.join("."))
    }
}

impl<V: ModuleVisitor> ModuleVisitor for Only<'_, V> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push(name.to_string());
        self.inner.enter_module(name, container_type);
    }

    fn exit_module(&mut self, name: &str, container_type: &str) {
        self.path.pop();
        self.inner.exit_module(name, container_type);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.shows() {
            self.inner.visit_float(param);
        }
    }

    fn visit_flag(&mut self, flag: &Param<Flag>) {
        self.inner.visit_flag(flag);
    }
}

impl<M: ModuleMapper> ModuleMapper for Only<'_, M> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push(name.to_string());
        self.inner.enter_module(name, container_type);
    }

    fn exit_module(&mut self, name: &str, container_type: &str) {
        self.path.pop();
        self.inner.exit_module(name, container_type);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.shows() {
            true => self.inner.map_float(param),
            false => param,
        }
    }

    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        self.inner.map_flag(flag)
    }
}
