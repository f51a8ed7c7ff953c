//! Freezing a model but for what is trained in full.

use std::collections::HashSet;

use burn::module::{Flag, Module, ModuleMapper, Param};
use burn::tensor::Tensor;

/// `model` with gradients for the parameters at the paths `trained` only. A BatchNorm updates its running statistics if
/// one of its parameters is among them, and keeps them otherwise: they would drift in training, and no adapter stores
/// them.
pub(crate) fn frozen<M: Module>(model: M, trained: HashSet<String>) -> M {
    model.map(&mut Freeze {
        trained,
        path: Vec::new(),
        norms: Vec::new(),
    })
}

/// `param`, which alone decides whether it asks for gradients. In Burn, clones of a parameter that is not drawn yet share
/// that too: freezing one would freeze all. The elements stay shared: whichever clone is used first draws them for all.
pub(crate) fn own<const D: usize>(param: Param<Tensor<D>>) -> Param<Tensor<D>> {
    match param.is_initialized() {
        true => param,
        false => param.init_mapper(|drawn| drawn),
    }
}

struct Freeze {
    trained: HashSet<String>,
    path: Vec<String>,
    /// For each part of the path whether it is a field of a BatchNorm.
    norms: Vec<bool>,
}

impl ModuleMapper for Freeze {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push(name.to_string());
        self.norms.push(is_norm(container_type));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
        self.norms.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let trained = self.trained.contains(&self.path.join("."));
        own(param).set_require_grad(trained)
    }

    // Set either way: the flag of a backbone that other adapters share is off.
    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        let in_norm = self.norms.last().copied().unwrap_or_default();
        match trains_norm(&self.path, in_norm, &self.trained) {
            Some(trains) => flag.with_value(trains),
            None => flag,
        }
    }
}

/// True for the container type that visitors see for the fields of a BatchNorm.
pub(crate) fn is_norm(container_type: &str) -> bool {
    container_type.ends_with(":BatchNorm")
}

/// Whether the BatchNorm is trained whose training flag is at `path`; `None` for the flag of anything else. `in_norm` tells
/// whether a BatchNorm holds it ([`is_norm`]), and `trained` has the paths of all parameters that are trained.
pub(crate) fn trains_norm(path: &[String], in_norm: bool, trained: &HashSet<String>) -> Option<bool> {
    if !in_norm {
        return None;
    }
    let module = path[..path.len().saturating_sub(1)].join(".");
    let in_module = |path: &String| path.strip_prefix(&module).is_some_and(|rest| rest.starts_with('.'));
    Some(trained.iter().any(in_module))
}
