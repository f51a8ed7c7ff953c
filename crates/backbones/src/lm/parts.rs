//! What a family does by itself; [`super::Decoder`] does the rest.

use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Int, Tensor};
use kernels::Visible;
use wegeft::Prompts;

use super::cache::LayerCache;
use super::config::DecoderConfig;
use super::layout::Layout;
use super::rope::Rotation;

/// The model of one family.
pub(crate) trait Parts {
    /// A randomly initialized model.
    fn build(config: &DecoderConfig, device: &Device) -> Self
    where
        Self: Sized;
    fn embed(&self, ids: Tensor<2, Int>, layout: &Layout) -> Tensor<3>;
    fn layer(
        &self,
        index: usize,
        x: Tensor<3>,
        rotation: Option<&Rotation>,
        visible: &Visible,
        prompts: &Prompts,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3>;
    fn normed(&self, x: Tensor<3>) -> Tensor<3>;
    fn head(&self) -> Option<&Linear>;
    fn embedding(&self) -> &Embedding;
    /// The embedding and the head, for a change of the vocabulary or of their tie.
    fn vocabulary(&mut self) -> (&mut Embedding, &mut Option<Linear>);
}
