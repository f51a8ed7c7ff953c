//! BERT (Devlin et al. 2018, arXiv 1810.04805), post-norm; MiniLM and other small models of its architecture too. RoBERTa
//! and ELECTRA are this model with other configs.
#![allow(non_snake_case)] // fields are the checkpoint's names

use burn::module::Module;
use burn::nn::{Dropout, Linear};
use burn::tensor::{Device, Int, Tensor};
use wegeft::{linear, linear_many};

use super::attention::{Mask, Pass, attend};
use super::config::EncoderConfig;
use super::family::{Family, Size};
use super::head_config::{HeadConfig, Pool};
use super::hooks::Places;
use super::layers::{Embeddings, Intermediate, Output, WithOutput, dense, dropout};
use super::parts::Parts;
use crate::error::ConfigError;
use crate::lm::Layout;
use crate::lm::activation::Activation;
use crate::lm::attention::split;
use crate::lm::fields::Fields;

pub(super) const FAMILY: Family = Family {
    model_types: &[("bert", "BertForSequenceClassification")],
    prefix: "bert",
    config,
    sizes,
};

/// Embeddings and layers.
#[derive(Module, Debug)]
pub struct Bert {
    /// Words, positions, token types.
    pub embeddings: Embeddings,
    /// `[embedding_size, d_model]` (ELECTRA)
    pub embeddings_project: Option<Linear>,
    /// The layers.
    pub encoder: Stack,
}

/// The layers, under their checkpoint's name.
#[derive(Module, Debug)]
pub struct Stack {
    /// The layers.
    pub layer: Vec<Layer>,
}

/// One layer, post-norm: attention, then an MLP.
#[derive(Module, Debug)]
pub struct Layer {
    /// Attention, its projection, residual and norm.
    pub attention: WithOutput<SelfAttention>,
    /// First half of the MLP.
    pub intermediate: Intermediate,
    /// Second half of the MLP, residual and norm.
    pub output: Output,
}

/// Queries, keys and values.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// `[d_model, d_model]`
    pub query: Linear,
    /// `[d_model, d_model]`
    pub key: Linear,
    /// `[d_model, d_model]`
    pub value: Linear,
    heads: usize,
    dropout: Dropout,
}

impl SelfAttention {
    fn new(config: &EncoderConfig, device: &Device) -> Self {
        let d = config.d_model;
        let layer = || dense(config, d, d, true, device);
        Self {
            query: layer(),
            key: layer(),
            value: layer(),
            heads: config.heads,
            dropout: dropout(config.attention_dropout),
        }
    }

    /// What the heads mix, `[batch, tokens, d_model]` to the same; with `first`, for the first column alone.
    fn mixed(&self, x: Tensor<3>, mask: &Mask, first: bool) -> Tensor<3> {
        let parts = match first {
            true => {
                let query = linear(&self.query, x.clone().narrow(1, 0, 1));
                let [key, value] = linear_many([&self.key, &self.value], x);
                [query, key, value]
            }
            false => linear_many([&self.query, &self.key, &self.value], x),
        };
        let [query, key, value] = parts.map(|x| split(x, self.heads));
        let scale = (query.dims()[3] as f64).powf(-0.5);
        attend(query, key, value, mask, scale, &self.dropout)
    }
}

impl Layer {
    fn new(config: &EncoderConfig, device: &Device) -> Self {
        Self {
            attention: WithOutput {
                attention: SelfAttention::new(config, device),
                output: Output::new(config, config.d_model, device),
            },
            intermediate: Intermediate::new(config, device),
            output: Output::new(config, config.mlp_dim, device),
        }
    }

    fn forward(&self, x: Tensor<3>, mask: &Mask, places: Places) -> Tensor<3> {
        let mixed = self.attention.attention.mixed(x.clone(), mask, false);
        self.rest(x, mixed, places)
    }

    fn forward_first(&self, x: Tensor<3>, mask: &Mask, places: Places) -> Tensor<3> {
        let mixed = self.attention.attention.mixed(x.clone(), &mask.first(), true);
        self.rest(x.narrow(1, 0, 1), mixed, places)
    }

    fn rest(&self, x: Tensor<3>, mixed: Tensor<3>, places: Places) -> Tensor<3> {
        let x = self.attention.output.forward(mixed, x, places.attn_out);
        self.output
            .forward(self.intermediate.forward(x.clone()), x, places.mlp_out)
    }
}

impl Parts for Bert {
    fn embed(&self, ids: Tensor<2, Int>, layout: &Layout, types: Option<Tensor<2, Int>>) -> Tensor<3> {
        let x = self.embeddings.forward(ids, layout, types);
        match &self.embeddings_project {
            Some(projection) => linear(projection, x),
            None => x,
        }
    }

    fn layer(&self, index: usize, x: Tensor<3>, pass: &Pass, places: Places) -> Tensor<3> {
        self.encoder.layer[index].forward(x, &pass.full, places)
    }

    fn layer_first(&self, index: usize, x: Tensor<3>, pass: &Pass, places: Places) -> Tensor<3> {
        self.encoder.layer[index].forward_first(x, &pass.full, places)
    }
}

/// Randomly initialized.
pub(super) fn build(config: &EncoderConfig, device: &Device) -> Bert {
    let (from, to) = (config.embedding_size(), config.d_model);
    Bert {
        embeddings: Embeddings::new(config, false, device),
        embeddings_project: (from != to).then(|| dense(config, from, to, true, device)),
        encoder: Stack {
            layer: (0..config.depth).map(|_| Layer::new(config, device)).collect(),
        },
    }
}

/// The fields that BERT, RoBERTa, ELECTRA and DeBERTa share; `default` is transformers' own of BERT's sizes.
pub(super) fn shared(kind: &str, fields: &Fields, head: HeadConfig) -> Result<EncoderConfig, ConfigError> {
    let activation = fields.text_or("hidden_act", "gelu")?;
    let hidden_dropout = fields.number_or("hidden_dropout_prob", 0.1)?;
    let head_dropout = fields.number_or("classifier_dropout", hidden_dropout)?;
    Ok(EncoderConfig::new(
        kind.to_string(),
        fields.count_or("vocab_size", 30522)?,
        fields.count_or("hidden_size", 768)?,
        fields.count_or("intermediate_size", 3072)?,
        fields.count_or("num_hidden_layers", 12)?,
        fields.count_or("num_attention_heads", 12)?,
        head.with_dropout(head_dropout),
    )
    .with_positions(Some(fields.count_or("max_position_embeddings", 512)?))
    .with_token_types(fields.count_or("type_vocab_size", 2)?)
    .with_norm_eps(fields.number_or("layer_norm_eps", 1e-12)?)
    .with_activation(Activation::parse("hidden_act", activation)?)
    .with_hidden_dropout(hidden_dropout)
    .with_attention_dropout(fields.number_or("attention_probs_dropout_prob", 0.1)?)
    .with_initializer_range(fields.number_or("initializer_range", 0.02)?))
}

fn config(fields: &Fields) -> Result<EncoderConfig, ConfigError> {
    let head = HeadConfig::new(Pool::First, "classifier".into()).with_dense(Some("bert.pooler.dense".into()));
    shared("bert", fields, head)
}

pub(super) fn sizes(config: &EncoderConfig) -> Vec<Size> {
    let width = config.embedding_size();
    let width_field = match config.embedding_size {
        Some(_) => "embedding_size",
        None => "hidden_size",
    };
    let table = |tensor, field, rows: usize| Size {
        tensor,
        shape: [(field, rows), (width_field, width)],
    };
    let mut sizes = vec![table(
        "embeddings.word_embeddings.weight",
        "vocab_size",
        config.vocab_size,
    )];
    sizes.extend(
        config
            .positions
            .map(|rows| table("embeddings.position_embeddings.weight", "max_position_embeddings", rows)),
    );
    if config.token_types > 0 {
        let rows = config.token_types;
        sizes.push(table(
            "embeddings.token_type_embeddings.weight",
            "type_vocab_size",
            rows,
        ));
    }
    sizes.push(Size {
        tensor: "encoder.layer.0.intermediate.dense.weight",
        shape: [("intermediate_size", config.mlp_dim), ("hidden_size", config.d_model)],
    });
    sizes
}
