//! A text classifier: an encoder or a decoder, and a head.

use std::sync::Arc;

use burn::module::{Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor};
use burn::tensor::{Device, Int, Tensor};

use super::labels::Labels;
use crate::encoder::{self, Encoder, Head, Pool, pooled};
use crate::lm::{self, Decoder, Layout};

#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // one per model and not moved about; Burn's derive takes no box
pub(super) enum Trunk {
    Encoder(Encoder),
    Decoder(Decoder),
}

/// What the layers of a text classifier need to know of a batch.
#[derive(Debug)]
pub enum ClassifierPass {
    /// Of an encoder.
    Encoder(Box<encoder::Pass>),
    /// Of a decoder.
    Decoder(Box<lm::decoder::Pass>),
}

/// A text classifier. Module paths are those of its checkpoint (`roberta.encoder.layer.0.…`, `classifier.dense`;
/// `model.layers.0.…`, `score`).
#[derive(Debug, Clone)]
pub struct SequenceClassifier {
    trunk: Trunk,
    head: Head,
    labels: Arc<Labels>,
}

impl SequenceClassifier {
    pub(super) fn new(trunk: Trunk, head: Head, labels: Labels) -> Self {
        Self {
            trunk,
            head,
            labels: Arc::new(labels),
        }
    }

    /// Its labels.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The encoder below the head, if it is one.
    pub fn encoder(&self) -> Option<&Encoder> {
        match &self.trunk {
            Trunk::Encoder(encoder) => Some(encoder),
            Trunk::Decoder(_) => None,
        }
    }

    /// The decoder below the head, if it is one.
    pub fn decoder(&self) -> Option<&Decoder> {
        match &self.trunk {
            Trunk::Encoder(_) => None,
            Trunk::Decoder(decoder) => Some(decoder),
        }
    }

    /// The head.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Rows of the word embedding.
    pub fn vocab_size(&self) -> usize {
        match &self.trunk {
            Trunk::Encoder(encoder) => encoder.config().vocab_size,
            Trunk::Decoder(decoder) => decoder.config().vocab_size,
        }
    }

    /// Tokens of the longest text that it can read; `None` if positions set no limit.
    pub fn max_tokens(&self) -> Option<usize> {
        match &self.trunk {
            Trunk::Encoder(encoder) => encoder.config().max_tokens(),
            Trunk::Decoder(decoder) => {
                let config = decoder.config();
                config.learned_positions.then_some(config.max_positions)
            }
        }
    }

    /// True if the type of each token (first or second text) matters.
    pub fn reads_types(&self) -> bool {
        self.encoder().is_some_and(|encoder| encoder.config().token_types > 1)
    }

    /// Tokens `[batch, tokens]` to hidden states `[batch, tokens, d_model]`. `types`: see [`Encoder::hidden`].
    pub fn hidden(&self, ids: Tensor<2, Int>, layout: &Layout, types: Option<Tensor<2, Int>>) -> Tensor<3> {
        match &self.trunk {
            Trunk::Encoder(encoder) => encoder.hidden(ids, layout, types),
            Trunk::Decoder(decoder) => decoder.hidden(ids, layout, None),
        }
    }

    /// Tokens `[batch, tokens]` to what the head reads, one vector per text: `[batch, d_model]`. `types`: see
    /// [`Encoder::hidden`].
    pub fn features(&self, ids: Tensor<2, Int>, layout: &Layout, types: Option<Tensor<2, Int>>) -> Tensor<2> {
        let pool = self.head.config().pool;
        match &self.trunk {
            // Every row begins with its text: of the last layer the first column is all that is needed.
            Trunk::Encoder(encoder) if pool == Pool::First && layout.is_plain() => {
                let first = encoder.first(ids, layout, types);
                pooled(first, &Layout::dense(layout.rows(), 1), pool)
            }
            _ => pooled(self.hidden(ids, layout, types), layout, pool),
        }
    }

    /// Tokens `[batch, tokens]` to logits `[batch, labels]`. `types`: see [`Encoder::hidden`].
    pub fn forward(&self, ids: Tensor<2, Int>, layout: &Layout, types: Option<Tensor<2, Int>>) -> Tensor<2> {
        self.head.logits(self.features(ids, layout, types))
    }

    /// Normed hidden states `[batch, tokens, d_model]` to logits `[batch, labels]`.
    pub fn logits_of(&self, hidden: Tensor<3>, layout: &Layout) -> Tensor<2> {
        self.head.forward(hidden, layout)
    }

    /// True if the part below the head uses dropout in training, so that its output changes from pass to pass.
    pub fn drops(&self) -> bool {
        self.encoder().is_some_and(|encoder| encoder.config().drops())
    }

    /// Layers below the head.
    pub fn depth(&self) -> usize {
        match &self.trunk {
            Trunk::Encoder(encoder) => encoder.config().depth,
            Trunk::Decoder(decoder) => decoder.config().layers.len(),
        }
    }

    /// What the layers need to know of a batch of that layout.
    pub fn pass(&self, layout: &Layout, device: &Device) -> ClassifierPass {
        match &self.trunk {
            Trunk::Encoder(encoder) => {
                // Activations have the dtype of an embedded token.
                let token = encoder.embed(Tensor::zeros([1, 1], device), &Layout::dense(1, 1), None);
                ClassifierPass::Encoder(Box::new(encoder.pass(layout, token.dtype(), device)))
            }
            Trunk::Decoder(decoder) => ClassifierPass::Decoder(Box::new(decoder.pass(layout, None, device))),
        }
    }

    /// The first step of [`SequenceClassifier::hidden`]: embeddings `[batch, tokens, d_model]`.
    ///
    /// # Panics
    /// `pass` belongs to the other kind of model: an encoder's on a decoder, or the reverse.
    pub fn embed(
        &self,
        ids: Tensor<2, Int>,
        layout: &Layout,
        types: Option<Tensor<2, Int>>,
        pass: &ClassifierPass,
    ) -> Tensor<3> {
        match (&self.trunk, pass) {
            (Trunk::Encoder(encoder), ClassifierPass::Encoder(_)) => encoder.embed(ids, layout, types),
            (Trunk::Decoder(decoder), ClassifierPass::Decoder(pass)) => decoder.embed(ids, pass),
            _ => panic!("a pass of another kind of model"),
        }
    }

    /// One layer, `[batch, tokens, d_model]` to the same.
    ///
    /// # Panics
    /// `pass` belongs to the other kind of model: an encoder's on a decoder, or the reverse.
    pub fn layer(&self, index: usize, x: Tensor<3>, pass: &ClassifierPass) -> Tensor<3> {
        match (&self.trunk, pass) {
            (Trunk::Encoder(encoder), ClassifierPass::Encoder(pass)) => encoder.layer(index, x, pass),
            (Trunk::Decoder(decoder), ClassifierPass::Decoder(pass)) => decoder.layer(index, x, pass, None),
            _ => panic!("a pass of another kind of model"),
        }
    }

    /// What follows the last layer, `[batch, tokens, d_model]` of the tokens that were read.
    ///
    /// # Panics
    /// `pass` belongs to the other kind of model: an encoder's on a decoder, or the reverse.
    pub fn normed(&self, x: Tensor<3>, pass: &ClassifierPass) -> Tensor<3> {
        match (&self.trunk, pass) {
            (Trunk::Encoder(encoder), ClassifierPass::Encoder(_)) => encoder.normed(x),
            (Trunk::Decoder(decoder), ClassifierPass::Decoder(pass)) => decoder.normed(x, pass),
            _ => panic!("a pass of another kind of model"),
        }
    }

    /// Width of the hidden states.
    pub fn d_model(&self) -> usize {
        match &self.trunk {
            Trunk::Encoder(encoder) => encoder.config().d_model,
            Trunk::Decoder(decoder) => decoder.config().d_model,
        }
    }

    /// The same model, with those layers of its head initialized again that have a parameter among `fresh`, such as
    /// [`super::PretrainedClassifier::fresh`]: runs with different seeds can then start from one loaded model.
    pub fn with_fresh_head(self, fresh: &[String], device: &Device) -> Self {
        let std = match &self.trunk {
            Trunk::Encoder(encoder) => encoder.config().initializer_range,
            Trunk::Decoder(decoder) => decoder.config().initializer_range,
        };
        let from = self.head.config().init(self.d_model(), self.head.labels(), std, device);
        self.with(|trunk| trunk, |head| head.renewed(from, fresh))
    }

    fn with(self, trunk: impl FnOnce(Trunk) -> Trunk, head: impl FnOnce(Head) -> Head) -> Self {
        Self {
            trunk: trunk(self.trunk),
            head: head(self.head),
            labels: self.labels,
        }
    }
}

// Written out, not derived: neither part has a name of its own in the checkpoint.
impl Module for SequenceClassifier {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.head.collect_devices(self.trunk.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        self.with(|trunk| trunk.fork(device), |head| head.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.with(|trunk| trunk.to_device(device), |head| head.to_device(device))
    }

    fn train(self) -> Self {
        self.with(Module::train, Module::train)
    }

    fn valid(&self) -> Self {
        self.clone().with(|trunk| trunk.valid(), |head| head.valid())
    }

    fn materialize(self) -> Self {
        self.with(Module::materialize, Module::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        match &self.trunk {
            Trunk::Encoder(encoder) => encoder.visit(visitor),
            Trunk::Decoder(decoder) => decoder.visit(visitor),
        }
        self.head.visit(visitor);
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let trunk = match self.trunk {
            Trunk::Encoder(encoder) => Trunk::Encoder(encoder.map(mapper)),
            Trunk::Decoder(decoder) => Trunk::Decoder(decoder.map(mapper)),
        };
        Self {
            trunk,
            head: self.head.map(mapper),
            labels: self.labels,
        }
    }
}

impl ModuleDisplayDefault for SequenceClassifier {
    fn content(&self, content: Content) -> Option<Content> {
        let content = match &self.trunk {
            Trunk::Encoder(encoder) => content.add("encoder", encoder),
            Trunk::Decoder(decoder) => content.add("decoder", decoder),
        };
        content.add("head", &self.head).optional()
    }
}

impl ModuleDisplay for SequenceClassifier {}
