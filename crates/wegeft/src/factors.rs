//! Factors: the tensors that an adapter adds to a model, the same type for every method.

use std::any::Any;
use std::sync::Arc;

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param, ParamId,
};
use burn::tensor::{Device, Tensor};

pub use crate::spec::{Init, Spec};

#[derive(Module, Debug)]
enum Value {
    Rank1(Param<Tensor<1>>),
    Rank2(Param<Tensor<2>>),
    Rank3(Param<Tensor<3>>),
    Rank4(Param<Tensor<4>>),
}

impl Value {
    /// A parameter that starts as `spec` says.
    ///
    /// # Panics
    /// A shape that does not have one to four dimensions.
    fn draw(spec: &Spec, device: &Device) -> Self {
        fn param<const D: usize>(spec: &Spec, device: &Device) -> Param<Tensor<D>> {
            let mut shape = [0; D];
            shape.copy_from_slice(&spec.shape);
            Param::from_tensor(spec.init.draw(shape, device)).set_require_grad(spec.trained)
        }
        match spec.shape.len() {
            1 => Self::Rank1(param(spec, device)),
            2 => Self::Rank2(param(spec, device)),
            3 => Self::Rank3(param(spec, device)),
            4 => Self::Rank4(param(spec, device)),
            rank => panic!("factor '{}' has {rank} dimensions; one to four are possible", spec.name),
        }
    }

    fn of<const D: usize>(param: Param<Tensor<D>>) -> Self {
        fn same<const D: usize>(param: Box<dyn Any>) -> Param<Tensor<D>> {
            *param.downcast().expect("the arm is that of the parameter's rank")
        }
        let param: Box<dyn Any> = Box::new(param);
        match D {
            1 => Self::Rank1(same(param)),
            2 => Self::Rank2(same(param)),
            3 => Self::Rank3(same(param)),
            4 => Self::Rank4(same(param)),
            _ => panic!("a factor has one to four dimensions, not {D}"),
        }
    }

    fn id(&self) -> ParamId {
        match self {
            Self::Rank1(param) => param.id,
            Self::Rank2(param) => param.id,
            Self::Rank3(param) => param.id,
            Self::Rank4(param) => param.id,
        }
    }

    /// The `Param` itself.
    fn as_any(&self) -> &dyn Any {
        match self {
            Self::Rank1(param) => param,
            Self::Rank2(param) => param,
            Self::Rank3(param) => param,
            Self::Rank4(param) => param,
        }
    }
}

#[derive(Debug, Clone)]
struct Factor {
    value: Value,
    spec: Arc<Spec>,
}

/// The factors of one group of sites, in the order of their specs. As a Burn module, a factor's path is its name.
#[derive(Debug, Clone, Default)]
pub struct Factors {
    all: Vec<Factor>,
}

impl Factors {
    /// Factors that start as their specs say.
    ///
    /// # Panics
    /// A spec whose shape does not have one to four dimensions.
    pub fn draw(specs: Vec<Spec>, device: &Device) -> Self {
        let factor = |spec: Spec| Factor {
            value: Value::draw(&spec, device),
            spec: Arc::new(spec),
        };
        Self {
            all: specs.into_iter().map(factor).collect(),
        }
    }

    /// These factors with `value` as the factor `name`. `value` is detached from any graph.
    ///
    /// # Panics
    /// If there is no factor of that name and shape.
    pub fn with<const D: usize>(mut self, name: &str, value: Tensor<D>) -> Self {
        let index = self.index(name);
        let spec = &self.all[index].spec;
        assert_eq!(value.dims()[..], spec.shape[..], "shape of factor '{name}'");
        self.all[index].value = Value::of(Param::from_tensor(value.detach()).set_require_grad(spec.trained));
        self
    }

    /// One factor that holds a parameter of something else.
    pub(crate) fn of_param<const D: usize>(name: &str, param: Param<Tensor<D>>) -> Self {
        let spec = Arc::new(Spec::new(name, name, param.lazy_shape().to_vec()));
        let value = Value::of(param);
        Self {
            all: vec![Factor { value, spec }],
        }
    }

    /// The factor of that name: a handle, no copy.
    ///
    /// # Panics
    /// If the method has no factor of that name and rank.
    pub fn get<const D: usize>(&self, name: &str) -> Tensor<D> {
        self.param(name).val()
    }

    /// [`Factors::get`] of a vector.
    pub fn vector(&self, name: &str) -> Tensor<1> {
        self.get(name)
    }

    /// [`Factors::get`] of a matrix.
    pub fn matrix(&self, name: &str) -> Tensor<2> {
        self.get(name)
    }

    /// The parameter of that name.
    ///
    /// # Panics
    /// If the method has no factor of that name and rank.
    pub fn param<const D: usize>(&self, name: &str) -> &Param<Tensor<D>> {
        let value = self.all[self.index(name)].value.as_any();
        let param = value.downcast_ref();
        param.unwrap_or_else(|| panic!("factor '{name}' is not of rank {D}"))
    }

    /// True if there is a factor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.all.iter().any(|factor| factor.spec.name == name)
    }

    /// Identities and specs, in order.
    pub fn specs(&self) -> impl Iterator<Item = (ParamId, &Spec)> {
        self.all.iter().map(|factor| (factor.value.id(), &*factor.spec))
    }

    /// Number of factors.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Handles to these factors and to `more`.
    pub(crate) fn joined(&self, more: &Self) -> Self {
        Self {
            all: self.all.iter().chain(&more.all).cloned().collect(),
        }
    }

    /// Handles to the factors `start..start + length`.
    pub(crate) fn part(&self, start: usize, length: usize) -> Self {
        Self {
            all: self.all[start..start + length].to_vec(),
        }
    }

    fn index(&self, name: &str) -> usize {
        let found = self.all.iter().position(|factor| factor.spec.name == name);
        found.unwrap_or_else(|| panic!("the method has no factor '{name}'"))
    }

    fn each(self, mut change: impl FnMut(Value) -> Value) -> Self {
        let change = |factor: Factor| Factor {
            value: change(factor.value),
            spec: factor.spec,
        };
        Self {
            all: self.all.into_iter().map(change).collect(),
        }
    }
}

/// Container type that visitors see for a factor.
pub(crate) const CONTAINER: &str = "Factor";

// Written by hand, not derived, so that a factor's path is its name.
impl Module for Factors {
    fn collect_devices(&self, devices: Devices) -> Devices {
        let factors = self.all.iter();
        factors.fold(devices, |devices, factor| factor.value.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        self.each(|value| value.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.each(|value| value.to_device(device))
    }

    fn train(self) -> Self {
        self.each(Module::train)
    }

    fn valid(&self) -> Self {
        self.clone().each(|value| value.valid())
    }

    fn materialize(self) -> Self {
        self
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for Factor { value, spec } in &self.all {
            visitor.enter_module(&spec.name, CONTAINER);
            match value {
                Value::Rank1(param) => param.visit(visitor),
                Value::Rank2(param) => param.visit(visitor),
                Value::Rank3(param) => param.visit(visitor),
                Value::Rank4(param) => param.visit(visitor),
            }
            visitor.exit_module(&spec.name, CONTAINER);
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let map = |Factor { value, spec }: Factor| {
            mapper.enter_module(&spec.name, CONTAINER);
            let value = match value {
                Value::Rank1(param) => Value::Rank1(Module::map(param, mapper)),
                Value::Rank2(param) => Value::Rank2(Module::map(param, mapper)),
                Value::Rank3(param) => Value::Rank3(Module::map(param, mapper)),
                Value::Rank4(param) => Value::Rank4(Module::map(param, mapper)),
            };
            mapper.exit_module(&spec.name, CONTAINER);
            Factor { value, spec }
        };
        Self {
            all: self.all.into_iter().map(map).collect(),
        }
    }
}

impl ModuleDisplayDefault for Factors {
    fn content(&self, content: Content) -> Option<Content> {
        let all = self.all.iter();
        all.fold(content, |content, Factor { spec, .. }| {
            content.add_formatted(&format!("{}: {:?}", spec.name, spec.shape))
        })
        .optional()
    }
}

impl ModuleDisplay for Factors {}
