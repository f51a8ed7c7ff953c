//! Sites: the places of a model by name.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;

use crate::activation_space;
pub use crate::kind::SiteKind;
use crate::paths::name_of;
pub(crate) use crate::paths::{EDIT_POINT, TOKEN_POINT, index_in, layer, layer_index, list_before_number};
pub use crate::paths::{is_saved, kind, name_matches};
use crate::tensor::is_quantized;

/// One float parameter of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamInfo {
    /// Path in the module tree, `blocks.3.attn.proj.weight`.
    pub path: String,
    /// Shape in Burn's layout; a linear weight is `[d_in, d_out]`.
    pub shape: Vec<usize>,
    /// Name of the module type that holds it (`Linear`, `LayerNorm`, …).
    pub holder: String,
    /// Burn's id of the parameter; clones of a model have the same.
    pub id: ParamId,
    /// True if it is stored quantized.
    pub quantized: bool,
    /// True if files hold its transpose: weights of linear layers, and factors whose spec says so.
    pub transposed: bool,
}

impl ParamInfo {
    /// Path of the module that holds the parameter, `blocks.3.attn.proj`.
    pub fn module(&self) -> &str {
        layer(&self.path)
    }

    /// Name that targets match and files use: the module's path for a weight, a bias, `gamma` and `beta`; the parameter's
    /// own path for any other field of a module, such as `experts.0.up`.
    pub fn name(&self) -> &str {
        name_of(&self.path)
    }

    /// Name as a PyTorch checkpoint spells it: `gamma` and `beta` of norms are `weight` and `bias`.
    pub fn torch_name(&self) -> String {
        match self.path.rsplit_once('.') {
            Some((module, "gamma")) => format!("{module}.weight"),
            Some((module, "beta")) => format!("{module}.bias"),
            _ => self.path.clone(),
        }
    }

    /// True for weights that PyTorch stores transposed (`[d_out, d_in]`).
    pub fn is_linear_weight(&self) -> bool {
        self.holder == "Linear" && self.shape.len() == 2
    }

    /// Shape on disk.
    pub fn stored_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.transposed {
            shape.reverse();
        }
        shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True if the parameter has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True for a bare parameter, such as the stacked weights of experts, that only `target_parameters` can name.
    pub(crate) fn is_stack(&self) -> bool {
        self.name() == self.path && self.shape.len() > 2
    }
}

/// The places of a model where an adapter can act.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Float parameters, in traversal order.
    pub params: Vec<ParamInfo>,
    /// Hooks, in traversal order: their edit points, `blocks.3.output.edit_point`, `[width]`.
    pub hooks: Vec<ParamInfo>,
    /// Places for virtual tokens, in traversal order: `prompt.token_point`, `[width]`.
    pub token_hooks: Vec<ParamInfo>,
    /// Paths of the modules with a field of type [`ActivationSpace`](crate::ActivationSpace).
    pub activation_space: Vec<String>,
    /// Paths of the parameters that already carry an adapter, or another of Burn's reparameterizations.
    pub(crate) reparameterized: Vec<String>,
    /// True if the targets are those of an adapter's file, whose `target_modules` name modules only.
    pub(crate) for_file: bool,
}

impl Places {
    /// True if the model declares that it calls the linear layer at `path` with [`linear`](crate::linear).
    pub(crate) fn calls_with_linear(&self, path: &str) -> bool {
        let within = |module: &String| match path.strip_prefix(module.as_str()) {
            Some(rest) => module.is_empty() || rest.starts_with('.'),
            None => false,
        };
        self.activation_space.iter().any(within)
    }
}

/// Container type that visitors see, in Burn, for what is attached to a parameter.
const REPARAMETERIZATION: &str = "Reparameterization";

#[derive(Default)]
struct Collector {
    path: Vec<String>,
    holders: Vec<String>,
    places: Places,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        if container_type == activation_space::CONTAINER {
            // The path ends with the name of the field.
            let module = &self.path[..self.path.len().saturating_sub(1)];
            self.places.activation_space.push(module.join("."));
        }
        if container_type == REPARAMETERIZATION {
            self.places.reparameterized.push(self.path.join("."));
        }
        self.path.push(name.to_string());
        let holder = container_type.rsplit(':').next().unwrap_or(container_type);
        self.holders.push(holder.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
        self.holders.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let list = match self.path.last().map(String::as_str) {
            Some(EDIT_POINT) => &mut self.places.hooks,
            Some(TOKEN_POINT) => &mut self.places.token_hooks,
            _ => &mut self.places.params,
        };
        let mut info = ParamInfo {
            path: self.path.join("."),
            shape: param.lazy_shape().to_vec(),
            holder: self.holders.last().cloned().unwrap_or_default(),
            id: param.id,
            quantized: param.is_initialized() && is_quantized(param.base().dtype()),
            transposed: false,
        };
        info.transposed = info.is_linear_weight();
        if info.transposed && !param.is_initialized() && transposes(param) {
            info.shape.reverse();
        }
        list.push(info);
    }
}

/// True for a linear weight in column layout: until it is initialized, it reports its shape as `[d_out, d_in]`, and it
/// transposes what it is initialized or loaded with.
fn transposes<const D: usize>(param: &Param<Tensor<D>>) -> bool {
    let mut shape = [1; D];
    shape[D - 1] = 2;
    let probe = Tensor::<D>::zeros(shape, &param.lazy_device());
    param.clone().transform_for_load(probe, param.id).lazy_shape()[D - 1] == 1
}

/// Every place of `model`. Lazy parameters stay uninitialized: they are drawn at their first use, after an adapter's
/// factors.
pub fn places<M: Module>(model: &M) -> Places {
    let mut collector = Collector::default();
    model.visit(&mut collector);
    collector.places
}

/// [`places`] for targets that come from an adapter's file.
pub(crate) fn places_for_file<M: Module>(model: &M) -> Places {
    Places {
        for_file: true,
        ..places(model)
    }
}

/// Every float parameter of `model`, in traversal order.
pub fn params<M: Module>(model: &M) -> Vec<ParamInfo> {
    places(model).params
}

/// The module path and the width of every [`crate::Hook`] of `model`, in traversal order.
pub fn hooks<M: Module>(model: &M) -> Vec<(String, usize)> {
    let hooks = places(model).hooks.into_iter();
    hooks.map(|hook| (hook.module().to_string(), hook.len())).collect()
}

impl SiteKind {
    /// The kind of weight that a parameter is; `None` if it cannot be adapted.
    pub(crate) fn of(param: &ParamInfo) -> Option<Self> {
        match (param.holder.as_str(), param.shape.len()) {
            ("Embedding", 2) => Some(Self::Embedding),
            (_, 2) => Some(Self::Matrix),
            ("Conv1d", 3) | ("Conv2d", 4) if param.path.ends_with(".weight") => Some(Self::Conv),
            _ => None,
        }
    }
}

/// What an adapter acts on: a weight, a block of its columns, a vector (a bias, the scale of a norm), a hook, or a token
/// hook.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Path of the parameter, `blocks.3.attn.proj.weight`.
    pub path: String,
    /// Input size; 1 for a vector; the width of a hook or of a virtual token.
    pub d_in: usize,
    /// Output size: of the block, if it is one; the length of a vector; the width of a hook or of a virtual token.
    pub d_out: usize,
    /// The block of a fused weight.
    pub block: Option<BlockOf>,
    /// What it is.
    pub kind: SiteKind,
    /// Shape of the whole parameter.
    pub shape: Vec<usize>,
    /// True if the layer has a bias.
    pub has_bias: bool,
    /// True if the model declares, with [`ActivationSpace`](crate::ActivationSpace), that it calls the layer with
    /// [`linear`](crate::linear).
    pub in_activation_space: bool,
    /// Paths of the same parameter elsewhere in the model that get the same edit.
    pub tied: Vec<String>,
    /// True for the weight of a linear layer, which is the transpose of PyTorch's.
    pub(crate) transposed: bool,
    /// Name on disk, if different from [`Site::module`].
    pub(crate) stored_as: Option<String>,
}

/// A block of columns of a fused weight.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockOf {
    /// Its name, `q`.
    pub name: String,
    /// Its first column.
    pub start: usize,
    /// Columns of the whole weight.
    pub whole: usize,
}

impl Site {
    /// The weight `[d_in, d_out]` of the linear layer `module`.
    pub fn linear(module: impl AsRef<str>, d_in: usize, d_out: usize) -> Self {
        Self {
            path: format!("{}.weight", module.as_ref()),
            d_in,
            d_out,
            block: None,
            kind: SiteKind::Matrix,
            shape: vec![d_in, d_out],
            has_bias: false,
            in_activation_space: false,
            tied: Vec::new(),
            transposed: true,
            stored_as: None,
        }
    }

    /// The vector of `length` at that path: a bias, the scale of a norm.
    pub fn vector(path: impl Into<String>, length: usize) -> Self {
        Self {
            path: path.into(),
            d_out: length,
            kind: SiteKind::Vector,
            shape: vec![length],
            ..Self::linear("", 1, length)
        }
    }

    /// The hook `module` of that width.
    pub fn hook(module: impl AsRef<str>, width: usize) -> Self {
        Self {
            path: format!("{}.{EDIT_POINT}", module.as_ref()),
            kind: SiteKind::Hook,
            shape: vec![width],
            ..Self::linear("", width, width)
        }
    }

    /// The place for virtual tokens `module` of that width.
    pub fn tokens(module: impl AsRef<str>, width: usize) -> Self {
        Self {
            path: format!("{}.{TOKEN_POINT}", module.as_ref()),
            kind: SiteKind::Tokens,
            shape: vec![width],
            ..Self::linear("", width, width)
        }
    }

    /// The weight `param` of that kind.
    pub(crate) fn weight(param: &ParamInfo, kind: SiteKind) -> Self {
        let (d_in, d_out) = match (kind, &param.shape[..]) {
            (SiteKind::Conv, [d_out, rest @ ..]) => (rest.iter().product(), *d_out),
            (SiteKind::Experts, [_, d_in, d_out]) => (*d_in, *d_out),
            (_, shape) => (shape[0], shape[1]),
        };
        Self {
            path: param.path.clone(),
            kind,
            shape: param.shape.clone(),
            transposed: param.transposed,
            ..Self::linear("", d_in, d_out)
        }
    }

    /// Name under which its factors are stored.
    pub(crate) fn stored_as(&self) -> String {
        self.stored_as.clone().unwrap_or_else(|| self.module())
    }

    /// Path of the bias of the same layer, `blocks.3.attn.proj.bias`.
    pub(crate) fn bias_path(&self) -> String {
        format!("{}.bias", layer(&self.path))
    }

    /// Name that targets match and files use ([`ParamInfo::name`]), `blocks.3.attn.proj`; a block's name follows it,
    /// `blocks.3.attn.qkv.q`.
    pub fn module(&self) -> String {
        let module = name_of(&self.path);
        match &self.block {
            Some(block) => format!("{module}.{}", block.name),
            None => module.to_string(),
        }
    }
}
