//! Running statistics, such as a batch norm's. Burn's clones of a module share them: what is trained or loaded in one clone
//! shows in all others, and so in the backbone that an adapter was made from.

use std::any::Any;
use std::collections::HashMap;

use burn::module::{Flag, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, Int, Tensor};

/// True if the parameter at `path` is a running statistic.
pub(crate) fn is_statistic(path: &str) -> bool {
    path.rsplit('.')
        .next()
        .is_some_and(|field| field.starts_with("running_"))
}

/// `model` with running statistics that it shares with no clone of it; everything else is as it was.
pub(crate) fn unshared<M: Module>(model: M) -> M {
    let mut params = Params::default();
    model.visit(&mut params);
    // Of all that Burn does to a module, only `valid` and `train` make new statistics.
    model.valid().map(&mut params)
}

/// Parameters by path: visited in one module, put into another.
#[derive(Default)]
struct Params {
    path: Vec<String>,
    by_path: HashMap<String, Box<dyn Any>>,
}

impl Params {
    fn insert<P: 'static>(&mut self, param: P) {
        self.by_path.insert(self.path.join("."), Box::new(param));
    }

    fn in_place_of<P: Clone + 'static>(&self, param: P) -> P {
        let visited = self.by_path.get(&self.path.join("."));
        visited
            .and_then(|visited| visited.downcast_ref().cloned())
            .unwrap_or(param)
    }
}

impl ModuleVisitor for Params {
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

impl ModuleMapper for Params {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.in_place_of(param)
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        self.in_place_of(param)
    }

    fn map_bool<const D: usize>(&mut self, param: Param<Tensor<D, Bool>>) -> Param<Tensor<D, Bool>> {
        self.in_place_of(param)
    }

    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        self.in_place_of(flag)
    }
}
