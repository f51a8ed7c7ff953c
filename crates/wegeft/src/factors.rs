//! Factors: the tensors that an adapter adds to a model, the same type for every method.

use std::any::Any;
use std::sync::Arc;

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param, ParamId,
};
use burn::tensor::{Device, Distribution, Tensor};

/// What a factor starts as.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// All elements equal.
    Full(f64),
    /// Uniform in ±bound.
    Uniform(f64),
    /// Normal of that standard deviation.
    Normal(f64),
    /// Normal of that standard deviation; elements beyond two of them are drawn again.
    TruncatedNormal(f64),
}

impl Init {
    fn draw<const D: usize>(self, shape: [usize; D], device: &Device) -> Tensor<D> {
        match self {
            Self::Zeros => Tensor::zeros(shape, device),
            Self::Ones => Tensor::ones(shape, device),
            Self::Full(value) => Tensor::full(shape, value, device),
            Self::Uniform(bound) => Tensor::random(shape, Distribution::Uniform(-bound, bound), device),
            Self::Normal(std) => Tensor::random(shape, Distribution::Normal(0.0, std), device),
            Self::TruncatedNormal(std) => truncated_normal(shape, std, device),
        }
    }
}

fn truncated_normal<const D: usize>(shape: [usize; D], std: f64, device: &Device) -> Tensor<D> {
    let draw = || Tensor::<D>::random(shape, Distribution::Normal(0.0, std), device);
    let mut values = draw();
    loop {
        let beyond = values.clone().abs().greater_elem(2.0 * std);
        if !beyond.clone().any().into_scalar::<bool>() {
            return values;
        }
        values = values.mask_where(beyond, draw());
    }
}

/// Everything about a factor except its elements. Counting, saving, optimizer groups and learning rates read it, so that none
/// of them depends on a method.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Name within its group, such as `a`, by which [`Factors::get`] finds it.
    pub name: String,
    /// Shape in memory, one to four dimensions.
    pub shape: Vec<usize>,
    /// End of its key on disk, such as `lora_A.weight`, preceded by the name of the group's first module.
    pub suffix: String,
    /// True if the suffix is the whole key.
    pub is_whole_key: bool,
    /// True if the file holds the transpose, as PyTorch keeps linear weights.
    pub transposed: bool,
    /// True if it gets gradients.
    pub trained: bool,
    /// True if it is written to disk and to records.
    pub saved: bool,
    /// True if it takes weight decay.
    pub decays: bool,
    /// Multiplies the learning rate for this factor.
    pub lr_scale: f64,
    /// What it starts as.
    pub init: Init,
}

impl Spec {
    /// A factor that is trained and saved and starts at zero; it takes weight decay unless it is a vector.
    pub fn new(name: impl Into<String>, suffix: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        Self {
            name: name.into(),
            suffix: suffix.into(),
            is_whole_key: false,
            transposed: false,
            trained: true,
            saved: true,
            decays: shape.len() > 1,
            lr_scale: 1.0,
            init: Init::Zeros,
            shape,
        }
    }

    /// Sets what it starts as.
    pub fn with_init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    /// Makes the suffix the whole key on disk, without the name of a module.
    pub fn with_whole_key(mut self) -> Self {
        self.is_whole_key = true;
        self
    }

    /// Its key on disk in a group that is stored under `module`.
    pub(crate) fn key(&self, module: &str) -> String {
        match self.is_whole_key {
            true => self.suffix.clone(),
            false => format!("{module}.{}", self.suffix),
        }
    }

    /// Makes the file hold the transpose.
    pub fn transposed(mut self) -> Self {
        self.transposed = true;
        self
    }

    /// Makes it saved but not trained.
    pub fn frozen(mut self) -> Self {
        self.trained = false;
        self
    }

    /// Makes it neither trained nor saved, for a factor that can be recomputed.
    pub fn constant(mut self) -> Self {
        self.trained = false;
        self.saved = false;
        self
    }

    /// Exempts it from weight decay.
    pub fn without_decay(mut self) -> Self {
        self.decays = false;
        self
    }

    /// Sets the multiplier of its learning rate.
    pub fn with_lr_scale(mut self, lr_scale: f64) -> Self {
        self.lr_scale = lr_scale;
        self
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True if it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of elements that are trained: all or none.
    pub fn trained_len(&self) -> usize {
        if self.trained { self.len() } else { 0 }
    }

    fn draw(&self, device: &Device) -> Value {
        fn param<const D: usize>(spec: &Spec, device: &Device) -> Param<Tensor<D>> {
            let mut shape = [0; D];
            shape.copy_from_slice(&spec.shape);
            Param::from_tensor(spec.init.draw(shape, device)).set_require_grad(spec.trained)
        }
        match self.shape.len() {
            1 => Value::Rank1(param(self, device)),
            2 => Value::Rank2(param(self, device)),
            3 => Value::Rank3(param(self, device)),
            4 => Value::Rank4(param(self, device)),
            rank => panic!("factor '{}' has {rank} dimensions; one to four are possible", self.name),
        }
    }
}

#[derive(Module, Debug)]
enum Value {
    Rank1(Param<Tensor<1>>),
    Rank2(Param<Tensor<2>>),
    Rank3(Param<Tensor<3>>),
    Rank4(Param<Tensor<4>>),
}

impl Value {
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
            value: spec.draw(device),
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
