//! Models as other projects have them, written for plain Burn: what an adapter has to work on unchanged.

pub mod albert;
pub mod bert;
pub mod encoder;
pub mod llama;
pub mod lstm;
pub mod recurrent;
pub mod resnet;

use burn::module::{Module, ModuleDisplay};
use burn::tensor::{Device, Int, Tensor};
use wegeft::AdapterConfig;

/// Inputs for models of texts and of images, and their labels.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[batch, tokens]`
    pub ids: Tensor<2, Int>,
    /// `[batch, 3, 8, 8]`
    pub images: Tensor<4>,
    /// `[batch]`
    pub labels: Tensor<1, Int>,
}

pub const VOCABULARY: usize = 60;
pub const CLASSES: usize = 3;

pub trait Model: Module + ModuleDisplay + Clone + 'static {
    /// Its name in the test.
    const NAME: &'static str;
    /// The linear layers that methods on matrices adapt.
    const LINEAR: &'static [&'static str];
    /// What is trained in full.
    const HEAD: &'static str = "head";
    /// True if all of `LINEAR` have a bias.
    const BIASES: bool = true;

    fn new(device: &Device) -> Self;

    /// `[batch, CLASSES]`
    fn logits(&self, batch: &Batch) -> Tensor<2>;

    /// Adapters on what this model has beside linear layers.
    fn more() -> Vec<(&'static str, AdapterConfig)> {
        Vec::new()
    }
}
