//! What the families with Llama's names share: embedding, layers, last norm and head.

use burn::module::{Initializer, Module};
use burn::nn::{Embedding, EmbeddingConfig, Linear};
use burn::tensor::{Device, Int, Tensor};
use kernels::Visible;
use wegeft::{ActivationSpace, Prompts, embedding};

use super::cache::Past;
use super::config::DecoderConfig;
use super::dense::dense;
use super::norm::RmsNorm;
use super::parts::Parts;
use super::rope::Rotation;

/// One layer of a family.
pub trait Block: Module {
    /// Its norms multiply by 1 + w.
    const UNIT_OFFSET: bool;

    /// A randomly initialized layer.
    fn new(config: &DecoderConfig, device: &Device) -> Self;

    /// `[batch, tokens, d_model]` to the same.
    fn forward(
        &self,
        x: Tensor<3>,
        rotation: Option<&Rotation>,
        visible: &Visible,
        prompts: &Prompts,
        past: Past<'_>,
    ) -> Tensor<3>;
}

/// A decoder of layers `L` with transformers' names: `model.layers.0.…`, `lm_head`.
#[derive(Module, Debug)]
pub struct CausalLm<L: Module> {
    /// Everything below the head.
    pub model: Stack<L>,
    /// Head `[d_model, vocab]`; the embedding serves if there is none.
    pub lm_head: Option<Linear>,
}

/// Embedding, layers and last norm.
#[derive(Module, Debug)]
pub struct Stack<L: Module> {
    /// `[vocab, d_model]`
    pub embed_tokens: Embedding,
    /// The layers.
    pub layers: Vec<L>,
    /// Norm before the head.
    pub norm: RmsNorm,
    /// Its linear layers are called with [`wegeft::linear`].
    pub reads: ActivationSpace,
}

impl<L: Block> Parts for CausalLm<L> {
    fn build(config: &DecoderConfig, device: &Device) -> Self {
        let normal = Initializer::Normal {
            mean: 0.0,
            std: config.initializer_range,
        };
        Self {
            model: Stack {
                embed_tokens: EmbeddingConfig::new(config.vocab_size, config.d_model)
                    .with_initializer(normal)
                    .init(device),
                layers: config.layers.iter().map(|_| L::new(config, device)).collect(),
                norm: RmsNorm::new(config.d_model, config.norm_eps, L::UNIT_OFFSET, device),
                reads: ActivationSpace,
            },
            lm_head: (!config.tied).then(|| dense(config, config.d_model, config.vocab_size, false, device)),
        }
    }

    fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        embedding(&self.model.embed_tokens, ids)
    }

    fn layer(
        &self,
        index: usize,
        x: Tensor<3>,
        rotation: Option<&Rotation>,
        visible: &Visible,
        prompts: &Prompts,
        past: Past<'_>,
    ) -> Tensor<3> {
        self.model.layers[index].forward(x, rotation, visible, prompts, past)
    }

    fn normed(&self, x: Tensor<3>) -> Tensor<3> {
        self.model.norm.forward(x)
    }

    fn head(&self) -> Option<&Linear> {
        self.lm_head.as_ref()
    }

    fn embedding(&self) -> &Embedding {
        &self.model.embed_tokens
    }

    fn vocabulary(&mut self) -> (&mut Embedding, &mut Option<Linear>) {
        (&mut self.model.embed_tokens, &mut self.lm_head)
    }
}
