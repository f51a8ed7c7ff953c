//! Freezing a model but for what is trained in full.

use std::collections::HashSet;

use burn::module::{Flag, Module, ModuleMapper, Param};
use burn::tensor::Tensor;

/// `model` with gradients for the parameters at the paths `trained` only. A BatchNorm updates its running statistics if one of
/// its parameters is among them, and keeps them otherwise: they would drift in training, and no adapter stores them.
pub(crate) fn frozen<M: Module>(model: M, trained: HashSet<String>) -> M {
    model.map(&mut Freeze {
        trained,
        path: Vec::new(),
        holders: Vec::new(),
    })
}

struct Freeze {
    trained: HashSet<String>,
    path: Vec<String>,
    holders: Vec<String>,
}

impl ModuleMapper for Freeze {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push(name.to_string());
        self.holders.push(container_type.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
        self.holders.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let trained = self.trained.contains(&self.path.join("."));
        param.set_require_grad(trained)
    }

    // Set either way: the flag of a backbone that other adapters share is off.
    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        if !self.holders.last().is_some_and(|holder| holder.ends_with(":BatchNorm")) {
            return flag;
        }
        let module = self.path[..self.path.len().saturating_sub(1)].join(".");
        let in_module = |path: &String| path.strip_prefix(&module).is_some_and(|rest| rest.starts_with('.'));
        flag.with_value(self.trained.iter().any(in_module))
    }
}
