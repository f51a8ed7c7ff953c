//! How a model declares that it calls its linear layers with [`linear`](crate::linear).

use burn::module::{Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor};
use burn::tensor::Device;

/// Container type that visitors see.
pub(crate) const CONTAINER: &str = "wegeft::ActivationSpace";

/// A field that declares that a module calls all its linear layers, and those of the modules in it, with
/// [`linear`](crate::linear), [`linear_add`](crate::linear_add) or [`linear_many`](crate::linear_many). It has no parameters and
/// is in no record.
///
/// Most adapters do not need it: what they change is in the weight and the bias, wherever these are read. A `lora_bias` on a layer
/// without a bias is added to the layer's output, which only [`linear`](crate::linear) does, so it is refused for layers that a
/// model does not declare.
///
/// # Panics
/// A declaration is a promise about the model's own code, which nothing can check before that code runs. If a layer with such a
/// `lora_bias` is called with `Linear::forward` all the same, that call panics with the layer's name.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use wegeft::{ActivationSpace, AdapterConfig, LoraConfig, linear};
///
/// #[derive(Module, Debug)]
/// struct Model {
///     proj: Linear,
///     reads: ActivationSpace,
/// }
///
/// impl Model {
///     fn forward(&self, x: Tensor<2>) -> Tensor<2> {
///         linear(&self.proj, x)
///     }
/// }
///
/// let device = Device::flex();
/// let model = Model {
///     proj: LinearConfig::new(8, 4).with_bias(false).init(&device),
///     reads: ActivationSpace,
/// };
/// let config = AdapterConfig::new(LoraConfig::new(2).with_lora_bias(true)).with_target_modules(["proj"]);
/// let adapted = config.init(model)?;
/// assert_eq!(adapted.summary().adapter_params, 2 * (8 + 4) + 4);
/// # Ok::<(), wegeft::AdapterError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct ActivationSpace;

// Written by hand, not derived, so that a visitor can tell it from other fields.
impl Module for ActivationSpace {
    fn collect_devices(&self, devices: Devices) -> Devices {
        devices
    }

    fn fork(self, _device: &Device) -> Self {
        self
    }

    fn to_device(self, _device: &Device) -> Self {
        self
    }

    fn train(self) -> Self {
        self
    }

    fn valid(&self) -> Self {
        *self
    }

    fn materialize(self) -> Self {
        self
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        visitor.enter_module("", CONTAINER);
        visitor.exit_module("", CONTAINER);
    }

    fn map<M: ModuleMapper>(self, _mapper: &mut M) -> Self {
        self
    }
}

impl ModuleDisplayDefault for ActivationSpace {
    fn content(&self, content: Content) -> Option<Content> {
        content.optional()
    }
}

impl ModuleDisplay for ActivationSpace {}
