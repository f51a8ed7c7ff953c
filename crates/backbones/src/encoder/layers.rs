//! What the families share: embeddings, the two halves of an MLP, and the pair of attention and its output.
#![allow(non_snake_case)] // fields are the checkpoint's names

use burn::module::{
    Content, Devices, Initializer, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::nn::{Dropout, DropoutConfig, Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor};
use wegeft::{embedding, linear, linear_add};

use super::attention::drops;
use super::config::EncoderConfig;
use super::hooks::Place;
use crate::layers::{linear_gelu, norm};
use crate::lm::Layout;
use crate::lm::activation::Activation;

/// A linear layer of the config's random weights, its bias zero.
pub(super) fn dense(config: &EncoderConfig, d_in: usize, d_out: usize, bias: bool, device: &Device) -> Linear {
    normal(config.initializer_range, d_in, d_out, bias, device)
}

/// A linear layer of normal weights, its bias zero.
pub(super) fn normal(std: f64, d_in: usize, d_out: usize, bias: bool, device: &Device) -> Linear {
    let initializer = Initializer::Normal { mean: 0.0, std };
    let mut layer = LinearConfig::new(d_in, d_out)
        .with_bias(false)
        .with_initializer(initializer)
        .init(device);
    layer.bias = bias.then(|| Initializer::Zeros.init([d_out], device));
    layer
}

/// An embedding of the config's random weights.
pub(super) fn table(config: &EncoderConfig, rows: usize, width: usize, device: &Device) -> Embedding {
    let initializer = Initializer::Normal {
        mean: 0.0,
        std: config.initializer_range,
    };
    EmbeddingConfig::new(rows, width)
        .with_initializer(initializer)
        .init(device)
}

/// A norm of the config's epsilon.
pub(super) fn layer_norm(config: &EncoderConfig, width: usize, device: &Device) -> LayerNorm {
    LayerNormConfig::new(width).with_epsilon(config.norm_eps).init(device)
}

pub(super) fn dropout(prob: f64) -> Dropout {
    DropoutConfig::new(prob).init()
}

/// Words, positions and token types to vectors.
#[derive(Module, Debug)]
pub struct Embeddings {
    /// `[vocab, embedding_size]`
    pub word_embeddings: Embedding,
    /// `[positions, embedding_size]`
    pub position_embeddings: Option<Embedding>,
    /// `[token types, embedding_size]`
    pub token_type_embeddings: Option<Embedding>,
    /// `[embedding_size, d_model]` (DeBERTa)
    pub embed_proj: Option<Linear>,
    /// Norm of their sum.
    pub LayerNorm: LayerNorm,
    dropout: Dropout,
    position_offset: usize,
    norm_eps: f64,
}

impl Embeddings {
    /// `projected`: a narrower embedding is projected before the norm.
    pub(super) fn new(config: &EncoderConfig, projected: bool, device: &Device) -> Self {
        let width = config.embedding_size();
        let projected = projected && width != config.d_model;
        let out = if projected { config.d_model } else { width };
        Self {
            word_embeddings: table(config, config.vocab_size, width, device),
            position_embeddings: config.positions.map(|rows| table(config, rows, width, device)),
            token_type_embeddings: (config.token_types > 0).then(|| table(config, config.token_types, width, device)),
            embed_proj: projected.then(|| dense(config, width, config.d_model, false, device)),
            LayerNorm: layer_norm(config, out, device),
            dropout: dropout(config.hidden_dropout),
            position_offset: config.position_offset,
            norm_eps: config.norm_eps,
        }
    }

    /// Tokens `[batch, tokens]`, with the type of each (all 0 if absent), to `[batch, tokens, width]`.
    pub fn forward(&self, ids: Tensor<2, Int>, layout: &Layout, types: Option<Tensor<2, Int>>) -> Tensor<3> {
        let device = ids.device();
        let [_, tokens] = ids.dims();
        let mut x = embedding(&self.word_embeddings, ids);
        // Tables that are trained are f32, whatever the others are.
        let dtype = x.dtype();
        if let Some(table) = &self.token_type_embeddings {
            // RoBERTa has one type, whatever a tokenizer says.
            let several = table.weight.lazy_shape()[0] > 1;
            let types = match types.filter(|_| several) {
                Some(types) => embedding(table, types),
                None => table.weight.val().narrow(0, 0, 1).unsqueeze::<3>(),
            };
            x = x + types.cast(dtype);
        }
        if let Some(table) = &self.position_embeddings {
            let offset = self.position_offset;
            // Only models whose positions begin after that of padding go by ids.
            let between = (offset > 0).then(|| layout.places_between_blanks(offset, &device));
            // What stands at padding does not count: rows that begin with their text have the same positions.
            let positions = match between.flatten() {
                Some(places) => embedding(table, places),
                None if layout.is_plain() && offset + tokens <= table.weight.lazy_shape()[0] => {
                    table.weight.val().narrow(0, offset, tokens).unsqueeze::<3>()
                }
                None => embedding(table, layout.places(&device).add_scalar(offset as i64)),
            };
            x = x + positions.cast(dtype);
        }
        let dtype = kernels::compute_dtype(&x);
        let mut x = x.cast(dtype);
        if let Some(projection) = &self.embed_proj {
            x = linear(projection, x);
        }
        self.dropout.forward(norm(&self.LayerNorm, self.norm_eps, x))
    }
}

/// First half of an MLP.
#[derive(Module, Debug)]
pub struct Intermediate {
    /// `[d_model, hidden]`
    pub dense: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Intermediate {
    pub(super) fn new(config: &EncoderConfig, device: &Device) -> Self {
        Self {
            dense: dense(config, config.d_model, config.mlp_dim, true, device),
            activation: config.activation,
        }
    }

    /// `[batch, tokens, d_model]` to `[batch, tokens, hidden]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        activated(&self.dense, self.activation, x)
    }
}

/// `activation(linear(layer, x))`, in one pass where there is one.
pub(super) fn activated(layer: &Linear, activation: Activation, x: Tensor<3>) -> Tensor<3> {
    match activation {
        Activation::Gelu => linear_gelu(layer, x),
        other => other.forward(linear(layer, x)),
    }
}

/// `residual + place(dropout(linear(layer, x)))`.
pub(super) fn add_dropped(
    layer: &Linear,
    x: Tensor<3>,
    residual: Tensor<3>,
    dropout: &Dropout,
    place: Place,
) -> Tensor<3> {
    match place.is_bound() || drops(dropout, &x.device()) {
        true => residual + place.forward(dropout.forward(linear(layer, x))),
        false => linear_add(layer, x, residual),
    }
}

/// The end of a sublayer: projection, residual, norm.
#[derive(Module, Debug)]
pub struct Output {
    /// `[d_in, d_model]`
    pub dense: Linear,
    /// Norm after the residual sum.
    pub LayerNorm: LayerNorm,
    dropout: Dropout,
    norm_eps: f64,
}

impl Output {
    pub(super) fn new(config: &EncoderConfig, d_in: usize, device: &Device) -> Self {
        Self {
            dense: dense(config, d_in, config.d_model, true, device),
            LayerNorm: layer_norm(config, config.d_model, device),
            dropout: dropout(config.hidden_dropout),
            norm_eps: config.norm_eps,
        }
    }

    /// `norm(residual + place(dense(x)))`. `x`: `[batch, tokens, d_in]`, `residual` and result: `[batch, tokens, d_model]`.
    pub(super) fn forward(&self, x: Tensor<3>, residual: Tensor<3>, place: Place) -> Tensor<3> {
        let sum = add_dropped(&self.dense, x, residual, &self.dropout, place);
        norm(&self.LayerNorm, self.norm_eps, sum)
    }
}

/// Self-attention, which its checkpoint calls `self`, and its output.
#[derive(Debug, Clone)]
pub struct WithOutput<A> {
    /// What the checkpoint calls `self`.
    pub attention: A,
    /// Projection, residual and norm.
    pub output: Output,
}

// Written out, not derived: no field can be called `self`.
impl<A: Module> Module for WithOutput<A> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.output.collect_devices(self.attention.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        Self {
            attention: self.attention.fork(device),
            output: self.output.fork(device),
        }
    }

    fn to_device(self, device: &Device) -> Self {
        Self {
            attention: self.attention.to_device(device),
            output: self.output.to_device(device),
        }
    }

    fn train(self) -> Self {
        Self {
            attention: self.attention.train(),
            output: self.output.train(),
        }
    }

    fn valid(&self) -> Self {
        Self {
            attention: self.attention.valid(),
            output: self.output.valid(),
        }
    }

    fn materialize(self) -> Self {
        Self {
            attention: self.attention.materialize(),
            output: self.output.materialize(),
        }
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        visitor.enter_module("self", HOLDER);
        self.attention.visit(visitor);
        visitor.exit_module("self", HOLDER);
        visitor.enter_module("output", HOLDER);
        self.output.visit(visitor);
        visitor.exit_module("output", HOLDER);
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        mapper.enter_module("self", HOLDER);
        let attention = self.attention.map(mapper);
        mapper.exit_module("self", HOLDER);
        mapper.enter_module("output", HOLDER);
        let output = self.output.map(mapper);
        mapper.exit_module("output", HOLDER);
        Self { attention, output }
    }
}

const HOLDER: &str = "Struct:WithOutput";

impl<A: Module + ModuleDisplay> ModuleDisplayDefault for WithOutput<A> {
    fn content(&self, content: Content) -> Option<Content> {
        content
            .add("self", &self.attention)
            .add("output", &self.output)
            .optional()
    }
}

impl<A: Module + ModuleDisplay> ModuleDisplay for WithOutput<A> {}
