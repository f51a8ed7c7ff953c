//! An encoder of any family behind one type.

use std::sync::Arc;

use burn::module::{Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor};
use burn::tensor::{DType, Device, Int, Tensor};

use super::attention::Pass;
use super::config::EncoderConfig;
use super::families::{Body, build, family};
use super::family::Family;
use super::hooks::{LayerHooks, Place};
use super::parts::Parts;
use crate::lm::Layout;

/// A text encoder. Module paths are those of its checkpoint with a head
/// (`bert.encoder.layer.0.attention.self.query`); its hooks are beside the checkpoint's modules (`bert.hooks.0.output`).
#[derive(Debug, Clone)]
pub struct Encoder {
    body: Body,
    /// One for each layer.
    hooks: Vec<LayerHooks>,
    config: Arc<EncoderConfig>,
    family: &'static Family,
    /// Type of the activations; that of the embeddings if absent.
    activations: Option<DType>,
}

impl EncoderConfig {
    /// A randomly initialized encoder: weights normal of σ `initializer_range`, biases zero, norms neutral.
    pub fn init(&self, device: &Device) -> Encoder {
        Encoder::new(self.clone(), device)
    }
}

impl Encoder {
    fn new(config: EncoderConfig, device: &Device) -> Self {
        let family = family(&config.model_type).expect("a config names a family that is implemented");
        Self {
            body: build(&config, device),
            hooks: (0..config.depth)
                .map(|_| LayerHooks::new(config.d_model, device))
                .collect(),
            config: Arc::new(config),
            family,
            activations: None,
        }
    }

    /// The model with activations of that type, whatever that of its embeddings, which are f32 where they are trained.
    pub fn with_activations(mut self, activations: DType) -> Self {
        self.activations = Some(activations);
        self
    }

    /// Its shape.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    pub(crate) fn family(&self) -> &'static Family {
        self.family
    }

    fn parts(&self) -> &dyn Parts {
        match &self.body {
            Body::Bert(body) => body,
            Body::DistilBert(body) => body,
            Body::Deberta(body) => body,
            Body::ModernBert(body) => body,
        }
    }

    /// Tokens `[batch, tokens]` to hidden states `[batch, tokens, d_model]` after the last layer and its norm. `types`:
    /// the type of each token (0 in the first text of a pair, 1 in the second), all 0 if absent; models without token types
    /// ignore them.
    ///
    /// The output at padding is meaningless but finite.
    ///
    /// # Panics
    /// More tokens than [`EncoderConfig::max_tokens`].
    pub fn hidden(&self, ids: Tensor<2, Int>, layout: &Layout, types: Option<Tensor<2, Int>>) -> Tensor<3> {
        let device = ids.device();
        kernels::with_pool(&device, || {
            let (x, _) = self.through(self.config.depth, ids, layout, types);
            self.normed(x)
        })
    }

    /// [`Encoder::hidden`] of the first column alone, `[batch, 1, d_model]`: nothing else of the last layer is computed.
    ///
    /// # Panics
    /// As [`Encoder::hidden`].
    pub fn first(&self, ids: Tensor<2, Int>, layout: &Layout, types: Option<Tensor<2, Int>>) -> Tensor<3> {
        let device = ids.device();
        kernels::with_pool(&device, || {
            let last = self.config.depth - 1;
            let (x, pass) = self.through(last, ids, layout, types);
            let hooks = &self.hooks[last];
            // A method bound there may choose tokens by their position among all tokens.
            self.normed(match hooks.are_bound() {
                true => self.layer(last, x, &pass).narrow(1, 0, 1),
                false => self.parts().layer_first(last, x, &pass, hooks.places(&pass)),
            })
        })
    }

    /// Through the first `layers` layers.
    fn through(
        &self,
        layers: usize,
        ids: Tensor<2, Int>,
        layout: &Layout,
        types: Option<Tensor<2, Int>>,
    ) -> (Tensor<3>, Pass) {
        let x = self.embed(ids, layout, types);
        let pass = self.pass(layout, x.dtype(), &x.device());
        let x = (0..layers).fold(x, |x, index| self.layer(index, x, &pass));
        (x, pass)
    }

    /// The first step of [`Encoder::hidden`]: embeddings `[batch, tokens, d_model]`. All later steps keep their dtype.
    ///
    /// # Panics
    /// A text of more tokens than [`EncoderConfig::max_tokens`].
    pub fn embed(&self, ids: Tensor<2, Int>, layout: &Layout, types: Option<Tensor<2, Int>>) -> Tensor<3> {
        let tokens = layout.lengths().into_iter().max().unwrap_or(0);
        if let Some(most) = self.config.max_tokens() {
            assert!(tokens <= most, "{tokens} tokens, but this model reads at most {most}");
        }
        let x = self.parts().embed(ids, layout, types);
        match self.activations {
            Some(activations) => x.cast(activations),
            None => x,
        }
    }

    /// What the layers need to know of the batch.
    pub fn pass(&self, layout: &Layout, dtype: DType, device: &Device) -> Pass {
        self.parts().pass(layout, dtype, device)
    }

    /// One layer, `[batch, tokens, d_model]` to the same.
    pub fn layer(&self, index: usize, x: Tensor<3>, pass: &Pass) -> Tensor<3> {
        let hooks = &self.hooks[index];
        let x = self.parts().layer(index, x, pass, hooks.places(pass));
        Place::new(&hooks.output, pass).forward(x)
    }

    /// What follows the last layer, `[batch, tokens, d_model]` to the same.
    pub fn normed(&self, x: Tensor<3>) -> Tensor<3> {
        self.parts().normed(x)
    }

    fn with(self, body: impl FnOnce(Body) -> Body, hooks: impl FnOnce(Vec<LayerHooks>) -> Vec<LayerHooks>) -> Self {
        Self {
            body: body(self.body),
            hooks: hooks(self.hooks),
            ..self
        }
    }
}

const HOLDER: &str = "Struct:Encoder";
const HOOKS: &str = "hooks";

// Written out, not derived: paths begin with the checkpoint's name of the encoder, and have no name of a family in them.
impl Module for Encoder {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.hooks.collect_devices(self.body.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        self.with(|body| body.fork(device), |hooks| hooks.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.with(|body| body.to_device(device), |hooks| hooks.to_device(device))
    }

    fn train(self) -> Self {
        self.with(Module::train, Module::train)
    }

    fn valid(&self) -> Self {
        self.clone().with(|body| body.valid(), |hooks| hooks.valid())
    }

    fn materialize(self) -> Self {
        self.with(Module::materialize, Module::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        visitor.enter_module(self.family.prefix, HOLDER);
        match &self.body {
            Body::Bert(body) => body.visit(visitor),
            Body::DistilBert(body) => body.visit(visitor),
            Body::Deberta(body) => body.visit(visitor),
            Body::ModernBert(body) => body.visit(visitor),
        }
        visitor.enter_module(HOOKS, HOLDER);
        self.hooks.visit(visitor);
        visitor.exit_module(HOOKS, HOLDER);
        visitor.exit_module(self.family.prefix, HOLDER);
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let prefix = self.family.prefix;
        mapper.enter_module(prefix, HOLDER);
        let body = match self.body {
            Body::Bert(body) => Body::Bert(body.map(mapper)),
            Body::DistilBert(body) => Body::DistilBert(body.map(mapper)),
            Body::Deberta(body) => Body::Deberta(body.map(mapper)),
            Body::ModernBert(body) => Body::ModernBert(body.map(mapper)),
        };
        mapper.enter_module(HOOKS, HOLDER);
        let hooks = self.hooks.map(mapper);
        mapper.exit_module(HOOKS, HOLDER);
        mapper.exit_module(prefix, HOLDER);
        Self { body, hooks, ..self }
    }
}

impl ModuleDisplayDefault for Encoder {
    fn content(&self, content: Content) -> Option<Content> {
        self.body.content(content)
    }
}

impl ModuleDisplay for Encoder {}
