//! The head that classifies texts: pooling, then at most one hidden layer, then one output per label.

use burn::module::{Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor};
use burn::nn::{Dropout, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::{Device, Int, Tensor, TensorData};
use wegeft::linear;

use super::head_config::{HeadConfig, Pool};
use super::layers::{dropout, normal};
use crate::layers::norm;
use crate::lm::Layout;

impl HeadConfig {
    /// A randomly initialized head: weights normal of σ `std`, biases zero.
    pub fn init(&self, d_model: usize, labels: usize, std: f64, device: &Device) -> Head {
        let layer_norm = LayerNormConfig::new(d_model)
            .with_epsilon(self.norm_eps)
            .with_bias(self.norm_bias);
        Head {
            dense: self
                .dense
                .as_ref()
                .map(|_| normal(std, d_model, d_model, self.dense_bias, device)),
            norm: self.norm.as_ref().map(|_| layer_norm.init(device)),
            out: normal(std, d_model, labels, self.out_bias, device),
            input_dropout: dropout(self.input_dropout),
            dropout: dropout(self.dropout),
            config: self.clone(),
        }
    }
}

/// A head.
#[derive(Debug, Clone)]
pub struct Head {
    /// Hidden layer `[d_model, d_model]`.
    pub dense: Option<Linear>,
    /// Norm after its activation.
    pub norm: Option<LayerNorm>,
    /// `[d_model, labels]`
    pub out: Linear,
    input_dropout: Dropout,
    dropout: Dropout,
    config: HeadConfig,
}

impl Head {
    /// Its shape.
    pub fn config(&self) -> &HeadConfig {
        &self.config
    }

    /// Number of labels.
    pub fn labels(&self) -> usize {
        self.out.weight.lazy_shape()[1]
    }

    /// Hidden states `[batch, tokens, d_model]` to logits `[batch, labels]`.
    pub fn forward(&self, hidden: Tensor<3>, layout: &Layout) -> Tensor<2> {
        self.logits(pooled(hidden, layout, self.config.pool))
    }

    /// Pooled hidden states `[batch, d_model]` to logits `[batch, labels]`.
    pub fn logits(&self, pooled: Tensor<2>) -> Tensor<2> {
        let mut x = pooled;
        if let Some(dense) = &self.dense {
            let inner = linear(dense, self.input_dropout.forward(x));
            x = self.config.activation.forward(inner);
        }
        if let Some(layer) = &self.norm {
            x = norm(layer, self.config.norm_eps, x);
        }
        linear(&self.out, self.dropout.forward(x))
    }

    /// This head with `from`'s layers in place of those that have a parameter among `fresh`, as the checkpoint names them.
    pub(crate) fn renewed(self, from: Self, fresh: &[String]) -> Self {
        let starts = |layer: &str| fresh.iter().any(|name| name.starts_with(&format!("{layer}.")));
        let named = |layer: &Option<String>| layer.as_deref().is_some_and(starts);
        Self {
            dense: if named(&self.config.dense) {
                from.dense
            } else {
                self.dense
            },
            norm: if named(&self.config.norm) { from.norm } else { self.norm },
            out: if starts(&self.config.out) { from.out } else { self.out },
            ..self
        }
    }

    fn with(
        self,
        dense: impl FnOnce(Linear) -> Linear,
        norm: impl FnOnce(LayerNorm) -> LayerNorm,
        out: impl FnOnce(Linear) -> Linear,
        dropouts: impl Fn(Dropout) -> Dropout,
    ) -> Self {
        Self {
            dense: self.dense.map(dense),
            norm: self.norm.map(norm),
            out: out(self.out),
            input_dropout: dropouts(self.input_dropout),
            dropout: dropouts(self.dropout),
            config: self.config,
        }
    }
}

/// One vector per row, `[batch, d_model]`, of hidden states `[batch, tokens, d_model]`.
pub fn pooled(hidden: Tensor<3>, layout: &Layout, pool: Pool) -> Tensor<2> {
    let [batch, tokens, d] = hidden.dims();
    let device = hidden.device();
    let real: Vec<bool> = match pool {
        Pool::Last => layout.filled().collect(),
        Pool::First | Pool::Mean => layout.real().collect(),
    };
    let rows = || real.chunks_exact(tokens);
    let chosen = match pool {
        Pool::Mean => {
            let weights = rows().flat_map(|row| {
                let count = row.iter().filter(|real| **real).count().max(1) as f32;
                row.iter().map(move |real| if *real { 1.0 / count } else { 0.0 })
            });
            let weights = TensorData::new(weights.collect::<Vec<f32>>(), [batch, tokens, 1]);
            let weights = Tensor::<3>::from_data(weights, (&device, hidden.dtype()));
            return (hidden * weights).sum_dim(1).reshape([batch, d]);
        }
        Pool::First => rows().map(|row| row.iter().position(|real| *real)).collect::<Vec<_>>(),
        Pool::Last => rows().map(|row| row.iter().rposition(|real| *real)).collect(),
    };
    let column = |row: usize| chosen[row].unwrap_or(0);
    match (1..batch).all(|row| column(row) == column(0)) {
        true => hidden.narrow(1, column(0), 1).reshape([batch, d]),
        false => {
            let places: Vec<i64> = (0..batch).map(|row| (row * tokens + column(row)) as i64).collect();
            let places = Tensor::<1, Int>::from_data(TensorData::new(places, [batch]), &device);
            hidden.reshape([batch * tokens, d]).select(0, places)
        }
    }
}

const HOLDER: &str = "Struct:Head";
const INPUT_DROPOUT: &str = "head_input_dropout";
const DROPOUT: &str = "head_dropout";

// Written by hand, not derived: the family decides where its layers lie.
impl Module for Head {
    fn collect_devices(&self, devices: Devices) -> Devices {
        let devices = self.norm.collect_devices(self.dense.collect_devices(devices));
        self.out.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.with(
            |m| m.fork(device),
            |m| m.fork(device),
            |m| m.fork(device),
            |m| m.fork(device),
        )
    }

    fn to_device(self, device: &Device) -> Self {
        self.with(
            |m| m.to_device(device),
            |m| m.to_device(device),
            |m| m.to_device(device),
            |m| m.to_device(device),
        )
    }

    fn train(self) -> Self {
        self.with(Module::train, Module::train, Module::train, Module::train)
    }

    fn valid(&self) -> Self {
        self.clone()
            .with(|m| m.valid(), |m| m.valid(), |m| m.valid(), |m| m.valid())
    }

    fn materialize(self) -> Self {
        self.with(
            Module::materialize,
            Module::materialize,
            Module::materialize,
            Module::materialize,
        )
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        let mut at = |path: Option<&String>, visit: &mut dyn FnMut(&mut V)| {
            let parts: Vec<&str> = path.into_iter().flat_map(|path| path.split('.')).collect();
            parts.iter().for_each(|part| visitor.enter_module(part, HOLDER));
            visit(visitor);
            parts.iter().rev().for_each(|part| visitor.exit_module(part, HOLDER));
        };
        let config = &self.config;
        at(config.dense.as_ref(), &mut |visitor| self.dense.visit(visitor));
        at(config.norm.as_ref(), &mut |visitor| self.norm.visit(visitor));
        at(Some(&config.out), &mut |visitor| self.out.visit(visitor));
        at(Some(&INPUT_DROPOUT.into()), &mut |visitor| {
            self.input_dropout.visit(visitor)
        });
        at(Some(&DROPOUT.into()), &mut |visitor| self.dropout.visit(visitor));
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        fn at<L: Module, M: ModuleMapper>(path: Option<&String>, layer: L, mapper: &mut M) -> L {
            let parts: Vec<&str> = path.into_iter().flat_map(|path| path.split('.')).collect();
            parts.iter().for_each(|part| mapper.enter_module(part, HOLDER));
            let layer = layer.map(mapper);
            parts.iter().rev().for_each(|part| mapper.exit_module(part, HOLDER));
            layer
        }
        let config = self.config;
        Self {
            dense: at(config.dense.as_ref(), self.dense, mapper),
            norm: at(config.norm.as_ref(), self.norm, mapper),
            out: at(Some(&config.out), self.out, mapper),
            input_dropout: at(Some(&INPUT_DROPOUT.into()), self.input_dropout, mapper),
            dropout: at(Some(&DROPOUT.into()), self.dropout, mapper),
            config,
        }
    }
}

impl ModuleDisplayDefault for Head {
    fn content(&self, content: Content) -> Option<Content> {
        content
            .add("dense", &self.dense)
            .add("norm", &self.norm)
            .add("out", &self.out)
            .optional()
    }
}

impl ModuleDisplay for Head {}
