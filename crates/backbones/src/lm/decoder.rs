//! A decoder of any family behind one type.

use std::sync::Arc;

use burn::module::{Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param};
use burn::nn::Linear;
use burn::tensor::{DType, Device, Int, Tensor};
use kernels::Visible;
use wegeft::{Prompts, TokenHook, linear};

use super::cache::{Cache, LayerCache, Past, before_spare};
use super::columns::Columns;
use super::config::{DecoderConfig, LayerKind};
use super::families::Model;
use super::layout::Layout;
use super::parts::Parts;
use super::rope::Rotation;
use super::spread::Spread;

/// A language model. Module paths are those of its checkpoint (`model.layers.0.self_attn.q_proj`,
/// `transformer.h.0.attn.c_attn`).
#[derive(Debug, Clone)]
pub struct Decoder {
    model: Model,
    /// Virtual tokens before the embeddings of every document.
    prompt: TokenHook,
    /// Keys and values before those of every document, for all layers.
    prefix: TokenHook,
    config: Arc<DecoderConfig>,
    /// Type of the activations; that of the embedding if absent.
    activations: Option<DType>,
}

/// Tokens of a pass whose operations are so short that waking a thread for each of them counts.
const SHORT: usize = 64;

/// What all layers of one forward pass share: attention ranges, rotations, and where prompts are.
#[derive(Debug, Clone)]
pub struct Pass {
    /// For each window among the layers.
    visible: Vec<(Option<usize>, Visible)>,
    /// One for each of the config's.
    rotations: Vec<Rotation>,
    /// Of what the layers read.
    read: Layout,
    /// Of all that is seen, the past included.
    keys: Layout,
    prompt: Option<Spread>,
    prefix: Option<Spread>,
    /// For methods that edit the first and last tokens of prompts.
    prompts: Prompts,
    /// See [`Past`].
    column: Option<(Tensor<1, Int>, usize)>,
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
        let kv = config.kv_heads * config.head_dim;
        Self {
            model,
            prompt: TokenHook::new(config.d_model, device),
            prefix: TokenHook::new(2 * config.layers.len() * kv, device),
            config: Arc::new(config),
            activations: None,
        }
    }

    /// The model with activations of that type, whatever that of its embedding, which is f32 where it is trained.
    pub fn with_activations(mut self, activations: DType) -> Self {
        self.activations = Some(activations);
        self
    }

    fn activations(&self) -> DType {
        let of_embedding = || kernels::compute_dtype(&self.parts().embedding().weight.base());
        self.activations.unwrap_or_else(of_embedding)
    }

    /// Its shape.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Tokens of the longest text that it can read, beside the virtual tokens of its adapter; `None` if positions set no
    /// limit.
    pub fn max_tokens(&self) -> Option<usize> {
        let virtual_tokens = |hook: &TokenHook| hook.tokens().map_or(0, |tokens| tokens.dims()[0]);
        let taken = virtual_tokens(&self.prompt).max(virtual_tokens(&self.prefix));
        let config = &self.config;
        config
            .learned_positions
            .then(|| config.max_positions.saturating_sub(taken))
    }

    fn parts(&self) -> &dyn Parts {
        self.model.parts()
    }

    /// Tokens `[batch, tokens]` to hidden states `[batch, tokens, d_model]` after the last norm. With a cache, `ids`
    /// are the tokens after those that it holds and `layout` is theirs alone; both end up in the cache.
    ///
    /// The output at padding is meaningless but finite.
    ///
    /// # Panics
    /// A cache whose rows end with padding: cached rows must be padded on the left.
    pub fn hidden(&self, ids: Tensor<2, Int>, layout: &Layout, cache: Option<&mut Cache>) -> Tensor<3> {
        let [batch, tokens] = ids.dims();
        let device = ids.device();
        match batch * tokens <= SHORT {
            true => kernels::with_spinning_pool(&device, || self.read(ids, layout, cache)),
            false => kernels::with_pool(&device, || self.read(ids, layout, cache)),
        }
    }

    fn read(&self, ids: Tensor<2, Int>, layout: &Layout, mut cache: Option<&mut Cache>) -> Tensor<3> {
        let pass = self.pass(layout, cache.as_deref(), &ids.device());
        let mut x = self.embed(ids, &pass);
        for index in 0..self.config.layers.len() {
            let layer_cache = cache.as_mut().map(|cache| &mut cache.layers[index]);
            x = self.layer(index, x, &pass, layer_cache);
        }
        let x = self.normed(x, &pass);
        if let Some(cache) = cache {
            let keys = pass.keys.clone();
            // It may hold the number of a column, which is changed in place.
            drop(pass);
            cache.added(keys);
        }
        x
    }

    /// Lets the device count the columns of `cache`, up to `count` of them: from then on every call of [`Decoder::hidden`]
    /// with one token for each row is the same operations on the same buffers, nothing of which depends on the number of
    /// the call or comes from the host, so that a device can record one and repeat it. False if this model cannot: its
    /// positions are looked up or its rotations depend on the length of the text.
    ///
    /// For devices other than flex. A text must have been read into `cache`, and `count` be at most its capacity.
    pub fn counts_columns(&self, cache: &mut Cache, count: usize, device: &Device) -> bool {
        let ropes = self.config.ropes.iter();
        let frequencies: Option<Vec<_>> = ropes.map(|rope| rope.fixed_frequencies(device)).collect();
        let frequencies = frequencies.filter(|_| !self.config.learned_positions);
        cache.columns = frequencies.map(|frequencies| Columns::new(&cache.past, count, frequencies, device));
        cache.columns.is_some()
    }

    /// [`Decoder::pass`] of one token for each row, its place known to the device.
    fn counted_pass(&self, layout: &Layout, columns: &Columns) -> Pass {
        let dtype = self.activations();
        let ropes = self.config.ropes.iter().zip(&columns.frequencies);
        Pass {
            visible: self.by_window(|window| columns.visible(window)),
            rotations: ropes
                .map(|(rope, frequencies)| rope.rotation_at(columns.places(), frequencies.clone(), dtype))
                .collect(),
            read: layout.clone(),
            keys: Layout::dense(0, 0),
            prompt: None,
            prefix: None,
            // What is generated belongs to no prompt.
            prompts: Prompts {
                places: vec![None; layout.rows()],
            },
            column: Some((columns.next().clone(), columns.count())),
        }
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

    /// What the layers need to know of tokens of that layout, which come after those that `cache` holds.
    ///
    /// # Panics
    /// A cache whose rows end with padding: cached rows must be padded on the left.
    pub fn pass(&self, layout: &Layout, cache: Option<&Cache>, device: &Device) -> Pass {
        if let Some(columns) = cache.and_then(|cache| cache.columns.as_ref()) {
            return self.counted_pass(layout, columns);
        }
        let queries = match cache {
            Some(cache) => {
                assert!(cache.past.ends_with_text(), "a cache is padded on the left");
                layout.clone().after(&cache.past)
            }
            None => layout.clone(),
        };
        let spread = |hook: &TokenHook| {
            let [count, _] = hook.tokens()?.dims();
            Spread::new(&queries, count, device)
        };
        let (prompt, prefix) = (spread(&self.prompt), spread(&self.prefix));
        let all = prompt
            .as_ref()
            .or(prefix.as_ref())
            .map_or(&queries, Spread::layout)
            .clone();
        let keys = match cache {
            Some(cache) => cache.past.joined(&all),
            None => all.clone(),
        };
        // A prefix has keys and values only.
        let read = prefix.as_ref().map_or(&all, Spread::own).clone();
        let spare = cache.map_or(0, |cache| cache.spare(all.tokens()));
        let visible = self.by_window(|window| {
            let seen = all.visible(&keys, window);
            let seen = match &prefix {
                Some(prefix) => prefix.of_own(seen),
                None => seen,
            };
            let seen = match spare {
                0 => seen,
                _ => before_spare(seen, read.tokens(), keys.tokens()),
            };
            seen.shared()
        });
        let dtype = self.activations();
        let rotations = self.config.ropes.iter();
        Pass {
            visible,
            rotations: rotations.map(|rope| rope.rotation(&read, dtype, device)).collect(),
            prompts: read.prompts(),
            read,
            keys,
            prompt,
            prefix,
            column: None,
        }
    }

    /// What is visible with each window among the layers.
    fn by_window(&self, visible: impl Fn(Option<usize>) -> Visible) -> Vec<(Option<usize>, Visible)> {
        let mut made: Vec<(Option<usize>, Visible)> = Vec::new();
        for LayerKind { window, .. } in &self.config.layers {
            if !made.iter().any(|(other, _)| other == window) {
                made.push((*window, visible(*window)));
            }
        }
        made
    }

    /// Tokens `[batch, tokens]` to the first layer's input, `[batch, tokens, d_model]`, including the virtual tokens of a
    /// prompt: the first step of [`Decoder::hidden`]. All later steps keep its dtype.
    pub fn embed(&self, ids: Tensor<2, Int>, pass: &Pass) -> Tensor<3> {
        let parts = self.parts();
        let positions = parts.positions(&pass.read, &ids.device());
        let placed = |x: Tensor<3>| match positions {
            Some(positions) => {
                let dtype = x.dtype();
                x + positions.cast(dtype)
            }
            None => x,
        };
        let x = parts.embed(ids);
        let Some((spread, tokens)) = pass.prompt.as_ref().zip(self.prompt.tokens()) else {
            return self.scaled(placed(x));
        };
        placed(spread.inserted(tokens, self.scaled(x)))
    }

    fn scaled(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.cast(self.activations());
        match self.config.embed_scale {
            1.0 => x,
            scale => x.mul_scalar(scale),
        }
    }

    /// One layer, `[batch, tokens, d_model]` to the same.
    pub fn layer(&self, index: usize, x: Tensor<3>, pass: &Pass, cache: Option<&mut LayerCache>) -> Tensor<3> {
        let kind = self.config.layers[index];
        let visible = pass.visible.iter().find(|(window, _)| *window == kind.window);
        let (_, visible) = visible.expect("a pass knows the window of every layer");
        let rotation = kind.rope.map(|rope| &pass.rotations[rope]);
        let width = self.config.kv_heads * self.config.head_dim;
        let prefix = pass.prefix.as_ref().zip(self.prefix.tokens());
        let past = Past {
            prefix: prefix.map(|(spread, tokens)| {
                let part = |which: usize| tokens.clone().narrow(1, (2 * index + which) * width, width);
                (spread, [part(0), part(1)])
            }),
            cache,
            column: pass.column.clone(),
        };
        self.parts().layer(index, x, rotation, visible, &pass.prompts, past)
    }

    /// The last norm, without the virtual tokens of a prompt: `[batch, tokens, d_model]` of the tokens that were read.
    pub fn normed(&self, x: Tensor<3>, pass: &Pass) -> Tensor<3> {
        let x = match &pass.prompt {
            Some(spread) => spread.removed(x),
            None => x,
        };
        self.parts().normed(x)
    }

    /// The model with a vocabulary of `rows` tokens. Surplus rows are removed; new rows are zeros until something is
    /// loaded into them, such as an adapter that was trained after its tokenizer got new tokens.
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

    /// The model with a head of its own: if the embedding serves as the head, a copy replaces it, which shares its memory
    /// until one of the two changes.
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

    fn with(self, model: impl FnOnce(Model) -> Model, hook: impl Fn(TokenHook) -> TokenHook) -> Self {
        Self {
            model: model(self.model),
            prompt: hook(self.prompt),
            prefix: hook(self.prefix),
            config: self.config,
            activations: self.activations,
        }
    }
}

// Written out, not derived: a derived enum puts the family's name into every module path, which would then no longer
// be the checkpoint's and PEFT's.
impl Module for Decoder {
    fn collect_devices(&self, devices: Devices) -> Devices {
        let devices = self.model.collect_devices(devices);
        self.prefix.collect_devices(self.prompt.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        self.with(|model| model.fork(device), |hook| hook.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.with(|model| model.to_device(device), |hook| hook.to_device(device))
    }

    fn train(self) -> Self {
        self.with(Module::train, Module::train)
    }

    fn valid(&self) -> Self {
        self.clone().with(|model| model.valid(), |hook| hook.valid())
    }

    fn materialize(self) -> Self {
        self.with(Module::materialize, Module::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.model.visit_inner(visitor);
        for (name, hook) in [(PROMPT, &self.prompt), (PREFIX, &self.prefix)] {
            visitor.enter_module(name, HOOK);
            hook.visit(visitor);
            visitor.exit_module(name, HOOK);
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let model = self.model.map_inner(mapper);
        let mut hook = |name: &str, hook: TokenHook| {
            mapper.enter_module(name, HOOK);
            let hook = hook.map(mapper);
            mapper.exit_module(name, HOOK);
            hook
        };
        Self {
            model,
            prompt: hook(PROMPT, self.prompt),
            prefix: hook(PREFIX, self.prefix),
            config: self.config,
            activations: self.activations,
        }
    }
}

/// Field names and container type of the hooks, as a derived module would tell them.
const PROMPT: &str = "prompt";
const PREFIX: &str = "prefix";
const HOOK: &str = "Struct:Decoder";

impl ModuleDisplayDefault for Decoder {
    fn content(&self, content: Content) -> Option<Content> {
        self.model.content(content)
    }
}

impl ModuleDisplay for Decoder {}
