//! What a family does by itself; [`super::Decoder`] does the rest.

use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Int, Tensor};
use kernels::Visible;
use wegeft::Prompts;

use super::cache::Past;
use super::config::DecoderConfig;
use super::layout::Layout;
use super::rope::Rotation;

/// The model of one family.
pub(crate) trait Parts {
    /// A randomly initialized model.
    fn build(config: &DecoderConfig, device: &Device) -> Self
    where
        Self: Sized;
    /// Rows of the embedding.
    fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3>;
    /// What is added to the embeddings for the place of each token, `[rows or 1, tokens, d_model]`.
    fn positions(&self, _layout: &Layout, _device: &Device) -> Option<Tensor<3>> {
        None
    }
    fn layer(
        &self,
        index: usize,
        x: Tensor<3>,
        rotation: Option<&Rotation>,
        visible: &Visible,
        prompts: &Prompts,
        past: Past<'_>,
    ) -> Tensor<3>;
    fn normed(&self, x: Tensor<3>) -> Tensor<3>;
    fn head(&self) -> Option<&Linear>;
    fn embedding(&self) -> &Embedding;
    /// The embedding and the head, for a change of the vocabulary or of their tie.
    fn vocabulary(&mut self) -> (&mut Embedding, &mut Option<Linear>);
}
