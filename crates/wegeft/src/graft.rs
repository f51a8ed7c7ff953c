//! Adapters that share a backbone: whether an adapter's frozen parameters are the backbone's, and handles to those in
//! their place.

use std::collections::HashSet;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor};

use crate::by_path::ByPath;
use crate::freeze;
use crate::site::ParamInfo;
use crate::tensor::dequantized;

fn paths(params: Vec<ParamInfo>) -> HashSet<String> {
    params.into_iter().map(|param| param.path).collect()
}

/// The frozen parameters of a backbone, by path: a record that is loaded may give them other ids.
pub(crate) struct Frozen(ByPath);

impl Frozen {
    pub(crate) fn of<M: Module>(backbone: &M) -> Self {
        let mut frozen = ByPath::default();
        backbone.visit(&mut frozen);
        Self(frozen)
    }

    /// The first frozen parameter of `model`, by name, that is not the backbone's. `own` are an adapter's own parameters.
    pub(crate) fn first_difference<M: Module>(&self, model: &M, own: Vec<ParamInfo>) -> Option<String> {
        let mut differences = Differences {
            frozen: self,
            own: paths(own),
            path: Vec::new(),
            found: None,
        };
        model.visit(&mut differences);
        differences.found
    }

    /// An adapter's `model` with handles to these parameters in place of its copies, and with the adapter's `own` moved.
    pub(crate) fn grafted<M: Module>(&self, model: M, own: Vec<ParamInfo>, to: Option<&Move>) -> M {
        let mut graft = Graft {
            frozen: self,
            own: paths(own),
            to,
            path: Vec::new(),
        };
        model.map(&mut graft)
    }

    fn at<const D: usize>(&self, path: &[String]) -> Option<&Param<Tensor<D>>> {
        self.0.at(path)
    }
}

/// Finds the frozen parameters that are not the backbone's: of other ids, or of other elements, since a clone that was
/// trained keeps its ids.
struct Differences<'a> {
    frozen: &'a Frozen,
    own: HashSet<String>,
    path: Vec<String>,
    /// The first in the alphabet.
    found: Option<String>,
}

impl ModuleVisitor for Differences<'_> {
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

/// True if two parameters of one id have equal elements. Clones that are not drawn yet will be drawn together; if only one
/// of them was used so far, the other is drawn here.
fn equal<const D: usize>(a: &Param<Tensor<D>>, b: &Param<Tensor<D>>) -> bool {
    if !a.is_initialized() && !b.is_initialized() {
        return true;
    }
    let plain = |param: &Param<Tensor<D>>| dequantized(param.base().without_autodiff());
    let (a, b) = (plain(a), plain(b));
    let b = b.to_device(&a.device());
    if a.shape() != b.shape() || a.dtype() != b.dtype() {
        return false;
    }
    let same = a.clone().equal(b.clone());
    // A weight that is NaN is itself, too.
    same.clone().all().into_scalar::<bool>()
        || same
            .bool_or(a.is_nan().bool_and(b.is_nan()))
            .all()
            .into_scalar::<bool>()
}

/// `model` with new ids for an adapter's `own` parameters: the heads of all adapters start from the same parameter, and an
/// optimizer would confuse them, as would a backward pass through two of them.
pub(crate) fn with_ids<M: Module>(model: M, own: &[ParamInfo]) -> M {
    let own = own.iter().map(|param| param.id).collect();
    model.map(&mut FreshIds { own })
}

struct FreshIds {
    own: HashSet<ParamId>,
}

impl ModuleMapper for FreshIds {
    fn map_float<const D: usize>(&mut self, mut param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.own.contains(&param.id) {
            return param;
        }
        param.id = ParamId::new();
        match param.is_initialized() {
            // A leaf of its own in the graph, which keeps whether it asks for gradients.
            true => param.map(Tensor::detach),
            // It becomes a leaf at its first use, when it draws its elements.
            false => freeze::own(param),
        }
    }
}

/// How parameters change their device.
pub(crate) enum Move {
    Fork(Device),
    ToDevice(Device),
}

impl Move {
    pub(crate) fn apply<T: Module>(&self, module: T) -> T {
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
