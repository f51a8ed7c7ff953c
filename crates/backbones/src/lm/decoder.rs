//! A decoder of any family behind one type.

use std::sync::Arc;

use burn::module::{Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param};
use burn::nn::Linear;
use burn::tensor::{DType, Device, Int, Tensor};
use kernels::Visible;
use wegeft::{Prompts, linear};

use super::cache::{Cache, LayerCache};
use super::config::{DecoderConfig, LayerKind};
use super::families::Model;
use super::layout::Layout;
use super::parts::Parts;
use super::rope::Rotation;

/// A language model. Module paths are those of its checkpoint (`model.layers.0.self_attn.q_proj`,
/// `transformer.h.0.attn.c_attn`).
#[derive(Debug, Clone)]
pub struct Decoder {
    model: Model,
    config: Arc<DecoderConfig>,
}

/// Tokens of a pass whose operations are so short that waking a thread for each of them counts.
const SHORT: usize = 64;

/// What all layers of one forward pass share: who sees whom, rotations, and where prompts are.
#[derive(Debug, Clone)]
pub struct Pass {
    /// For each window among the layers.
    visible: Vec<(Option<usize>, Visible)>,
    /// One for each of the config's.
    rotations: Vec<Rotation>,
    /// For methods that edit the first and last tokens of prompts.
    prompts: Prompts,
}

impl DecoderConfig {
    /// A randomly initialized model: weights normal of σ `initializer_range`, biases zero, norms neutral.
    ///
    /// # Panics
    /// A `family` that is not in [`super::FAMILIES`].
    pub fn init(&self, device: &Device) -> Decoder {
        Decoder::new(self.clone(), device)
    }
}

impl Decoder {
    fn new(config: DecoderConfig, device: &Device) -> Self {
        let model = Model::new(&config, device);
        Self {
            model,
            config: Arc::new(config),
        }
    }

    /// Its shape.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    fn parts(&self) -> &dyn Parts {
        self.model.parts()
    }

    /// Tokens `[batch, tokens]` to hidden states `[batch, tokens, d_model]` after the last norm. With a cache, `ids`
    /// are the tokens after those that it holds and `layout` is theirs alone; both end up in the cache.
    ///
    /// What stands at padding is meaningless but finite.
    ///
    /// # Panics
    /// A cache whose rows end with padding: what is cached is padded on the left.
    pub fn hidden(&self, ids: Tensor<2, Int>, layout: &Layout, cache: Option<&mut Cache>) -> Tensor<3> {
        let [batch, tokens] = ids.dims();
        let device = ids.device();
        match batch * tokens <= SHORT {
            true => kernels::with_spinning_pool(&device, || self.read(ids, layout, cache)),
            false => kernels::with_pool(&device, || self.read(ids, layout, cache)),
        }
    }

    fn read(&self, ids: Tensor<2, Int>, layout: &Layout, mut cache: Option<&mut Cache>) -> Tensor<3> {
        let (queries, keys) = match &cache {
            Some(cache) => {
                assert!(cache.past.ends_with_text(), "a cache is padded on the left");
                let queries = layout.clone().after(&cache.past);
                let keys = cache.past.joined(&queries);
                (queries, keys)
            }
            None => (layout.clone(), layout.clone()),
        };
        let mut x = self.embed(ids, &queries);
        let pass = self.pass(&queries, &keys, x.dtype(), &x.device());
        for index in 0..self.config.layers.len() {
            let layer_cache = cache.as_mut().map(|cache| &mut cache.layers[index]);
            x = self.layer(index, x, &pass, layer_cache);
        }
        if let Some(cache) = cache {
            cache.past = keys;
        }
        self.parts().normed(x)
    }

    /// Hidden states `[batch, tokens, d_model]` to logits `[batch, tokens, vocab]`.
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        let parts = self.parts();
        let logits = match parts.head() {
            Some(head) => linear(head, hidden),
            None => {
                let [batch, tokens, d] = hidden.dims();
                let rows = hidden.reshape([batch * tokens, d]);
                kernels::linear(rows, self.head_weight(), None).reshape([batch, tokens, self.config.vocab_size])
            }
        };
        match self.config.final_softcap {
            Some(cap) => logits.div_scalar(cap).tanh().mul_scalar(cap),
            None => logits,
        }
    }

    /// Weight of the head, `[d_model, vocab]`: a view of the embedding where they are tied. Logits are
    /// `hidden · weight`, then [`DecoderConfig::final_softcap`].
    pub fn head_weight(&self) -> Tensor<2> {
        let parts = self.parts();
        match parts.head() {
            Some(head) => head.weight.val(),
            None => parts.embedding().weight.val().transpose(),
        }
    }

    /// Embeddings `[batch, tokens, d_model]` of tokens `[batch, tokens]`: the first step of [`Decoder::hidden`]. Their
    /// type is that of all that follows: the weights' own, but f32 where [`kernels::compute_dtype`] says so.
    pub fn embed(&self, ids: Tensor<2, Int>, layout: &Layout) -> Tensor<3> {
        let x = self.parts().embed(ids, layout);
        let dtype = kernels::compute_dtype(&x);
        let x = x.cast(dtype);
        match self.config.embed_scale {
            1.0 => x,
            scale => x.mul_scalar(scale),
        }
    }

    /// What the layers need to know of `queries` over `keys` (both the layout of the batch, without a cache).
    pub fn pass(&self, queries: &Layout, keys: &Layout, dtype: DType, device: &Device) -> Pass {
        let mut visible: Vec<(Option<usize>, Visible)> = Vec::new();
        for LayerKind { window, .. } in &self.config.layers {
            if !visible.iter().any(|(made, _)| made == window) {
                visible.push((*window, queries.visible(keys, *window)));
            }
        }
        let rotations = self.config.ropes.iter();
        Pass {
            visible,
            rotations: rotations.map(|rope| rope.rotation(queries, dtype, device)).collect(),
            prompts: queries.prompts(),
        }
    }

    /// One layer, `[batch, tokens, d_model]` to the same.
    pub fn layer(&self, index: usize, x: Tensor<3>, pass: &Pass, cache: Option<&mut LayerCache>) -> Tensor<3> {
        let kind = self.config.layers[index];
        let visible = pass.visible.iter().find(|(window, _)| *window == kind.window);
        let (_, visible) = visible.expect("a pass knows the window of every layer");
        let rotation = kind.rope.map(|rope| &pass.rotations[rope]);
        self.parts().layer(index, x, rotation, visible, &pass.prompts, cache)
    }

    /// The last norm, `[batch, tokens, d_model]` to the same.
    pub fn normed(&self, x: Tensor<3>) -> Tensor<3> {
        self.parts().normed(x)
    }

    /// The model with `rows` tokens: fewer are cut off, more are zeros until something is loaded into them (an adapter
    /// that was trained after its tokenizer got new tokens).
    pub fn with_vocabulary(mut self, rows: usize) -> Self {
        let sized = |weight: &Param<Tensor<2>>, dim: usize| {
            let tensor = weight.val();
            let mut shape = tensor.dims();
            let known = shape[dim];
            let tensor = match rows.checked_sub(known) {
                None => tensor.narrow(dim, 0, rows),
                Some(more) => {
                    shape[dim] = more;
                    let zeros = Tensor::zeros(shape, (&tensor.device(), tensor.dtype()));
                    Tensor::cat(vec![tensor, zeros], dim)
                }
            };
            Param::initialized(weight.id, tensor.detach())
        };
        if rows != self.config.vocab_size {
            let (embedding, head) = self.model.parts_mut().vocabulary();
            embedding.weight = sized(&embedding.weight, 0);
            if let Some(head) = head {
                head.weight = sized(&head.weight, 1);
            }
            Arc::make_mut(&mut self.config).vocab_size = rows;
        }
        self
    }

    /// The model with a head of its own: where the embedding serves as the head, a copy of it takes its place, which shares its
    /// memory until one of the two changes.
    pub fn untied(mut self) -> Self {
        if self.config.tied {
            let (embedding, head) = self.model.parts_mut().vocabulary();
            *head = Some(Linear {
                weight: Param::from_tensor(embedding.weight.val().transpose().detach()),
                bias: None,
            });
            Arc::make_mut(&mut self.config).tied = false;
        }
        self
    }

    fn with(self, change: impl FnOnce(Model) -> Model) -> Self {
        Self {
            model: change(self.model),
            config: self.config,
        }
    }
}

// Written out, not derived: a derived enum puts the family's name into every module path, which would then no longer
// be the checkpoint's and PEFT's.
impl Module for Decoder {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.model.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.with(|model| model.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.with(|model| model.to_device(device))
    }

    fn train(self) -> Self {
        self.with(Module::train)
    }

    fn valid(&self) -> Self {
        self.clone().with(|model| model.valid())
    }

    fn materialize(self) -> Self {
        self.with(Module::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.model.visit_inner(visitor);
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        self.with(|model| model.map_inner(mapper))
    }
}

impl ModuleDisplayDefault for Decoder {
    fn content(&self, content: Content) -> Option<Content> {
        self.model.content(content)
    }
}

impl ModuleDisplay for Decoder {}
