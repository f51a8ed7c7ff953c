//! Visiting only a part of a module: the parameters at given paths.

use std::collections::HashSet;

use burn::module::{Flag, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::freeze;

/// The parameters that an adapted model shows, by their paths as seen from the module that is visited.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    /// Those that are trained or saved.
    pub paths: HashSet<String>,
    /// Those of them that are trained.
    pub trained: HashSet<String>,
    /// True if running statistics are among those that are trained. Every step asks.
    pub statistics: bool,
}

/// Shows `inner` only the float parameters at the paths of `shown`, and the training flags, except that of a BatchNorm
/// which is not trained: Burn's `unfreeze` sets all flags, and its statistics would drift. For the same reason what is
/// saved but not trained stays frozen, whatever `inner` maps it to.
pub(crate) struct Only<'a, I> {
    inner: &'a mut I,
    shown: &'a Shown,
    path: Vec<String>,
    /// For each part of the path whether it is a field of a BatchNorm.
    norms: Vec<bool>,
}

impl<'a, I> Only<'a, I> {
    pub(crate) fn new(shown: &'a Shown, inner: &'a mut I) -> Self {
        Self {
            inner,
            shown,
            path: Vec::new(),
            norms: Vec::new(),
        }
    }

    fn shows_flag(&self) -> bool {
        let in_norm = self.norms.last().copied().unwrap_or_default();
        freeze::trains_norm(&self.path, in_norm, &self.shown.trained).unwrap_or(true)
    }

    fn enter(&mut self, name: &str, container_type: &str) {
        self.path.push(name.to_string());
        self.norms.push(freeze::is_norm(container_type));
    }

    fn exit(&mut self) {
        self.path.pop();
        self.norms.pop();
    }
}

impl<V: ModuleVisitor> ModuleVisitor for Only<'_, V> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.enter(name, container_type);
        self.inner.enter_module(name, container_type);
    }

    fn exit_module(&mut self, name: &str, container_type: &str) {
        self.exit();
        self.inner.exit_module(name, container_type);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.shown.paths.contains(&self.path.join(".")) {
            self.inner.visit_float(param);
        }
    }

    fn visit_flag(&mut self, flag: &Param<Flag>) {
        if self.shows_flag() {
            self.inner.visit_flag(flag);
        }
    }
}

impl<M: ModuleMapper> ModuleMapper for Only<'_, M> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.enter(name, container_type);
        self.inner.enter_module(name, container_type);
    }

    fn exit_module(&mut self, name: &str, container_type: &str) {
        self.exit();
        self.inner.exit_module(name, container_type);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        if !self.shown.paths.contains(&path) {
            return param;
        }
        let param = self.inner.map_float(param);
        match self.shown.trained.contains(&path) {
            true => param,
            false => param.set_require_grad(false),
        }
    }

    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        match self.shows_flag() {
            true => self.inner.map_flag(flag),
            false => flag,
        }
    }
}
