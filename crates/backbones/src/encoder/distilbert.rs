//! DistilBERT (Sanh et al. 2019, arXiv 1910.01108): BERT without token types and pooler, under other names.
#![allow(non_snake_case)] // fields are the checkpoint's names

use burn::module::Module;
use burn::nn::{Dropout, LayerNorm, Linear};
use burn::tensor::{Device, Int, Tensor};
use wegeft::{linear, linear_add, linear_many};

use super::attention::{Mask, Pass, attend};
use super::config::EncoderConfig;
use super::family::{Family, Size};
use super::head_config::{HeadConfig, Pool};
use super::hooks::Places;
use super::layers::{Embeddings, activated, add_dropped, dense, dropout, layer_norm};
use super::parts::Parts;
use crate::error::ConfigError;
use crate::layers::norm;
use crate::lm::Layout;
use crate::lm::activation::Activation;
use crate::lm::attention::split;
use crate::lm::fields::Fields;

pub(super) const FAMILY: Family = Family {
    model_types: &[("distilbert", "DistilBertForSequenceClassification")],
    prefix: "distilbert",
    config,
    sizes,
};

/// Embeddings and layers.
#[derive(Module, Debug)]
pub struct DistilBert {
    /// Words and positions.
    pub embeddings: Embeddings,
    /// The layers.
    pub transformer: Stack,
}

/// The layers, under their checkpoint's name.
#[derive(Module, Debug)]
pub struct Stack {
    /// The layers.
    pub layer: Vec<Layer>,
}

/// One layer, post-norm.
#[derive(Module, Debug)]
pub struct Layer {
    /// Self-attention.
    pub attention: Attention,
    /// Norm after attention.
    pub sa_layer_norm: LayerNorm,
    /// MLP.
    pub ffn: Ffn,
    /// Norm after the MLP.
    pub output_layer_norm: LayerNorm,
    norm_eps: f64,
}

/// Self-attention.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[d_model, d_model]`
    pub q_lin: Linear,
    /// `[d_model, d_model]`
    pub k_lin: Linear,
    /// `[d_model, d_model]`
    pub v_lin: Linear,
    /// `[d_model, d_model]`
    pub out_lin: Linear,
    heads: usize,
    dropout: Dropout,
}

/// Two linear layers.
#[derive(Module, Debug)]
pub struct Ffn {
    /// `[d_model, hidden]`
    pub lin1: Linear,
    /// `[hidden, d_model]`
    pub lin2: Linear,
    dropout: Dropout,
    #[module(skip)]
    activation: Activation,
}

impl Layer {
    fn new(config: &EncoderConfig, device: &Device) -> Self {
        let d = config.d_model;
        let square = || dense(config, d, d, true, device);
        Self {
            attention: Attention {
                q_lin: square(),
                k_lin: square(),
                v_lin: square(),
                out_lin: square(),
                heads: config.heads,
                dropout: dropout(config.attention_dropout),
            },
            sa_layer_norm: layer_norm(config, d, device),
            ffn: Ffn {
                lin1: dense(config, d, config.mlp_dim, true, device),
                lin2: dense(config, config.mlp_dim, d, true, device),
                dropout: dropout(config.hidden_dropout),
                activation: config.activation,
            },
            output_layer_norm: layer_norm(config, d, device),
            norm_eps: config.norm_eps,
        }
    }

    fn forward(&self, x: Tensor<3>, mask: &Mask, places: Places) -> Tensor<3> {
        let mixed = self.attention.mixed(x.clone(), mask, false);
        self.rest(x, mixed, places)
    }

    fn forward_first(&self, x: Tensor<3>, mask: &Mask, places: Places) -> Tensor<3> {
        let mixed = self.attention.mixed(x.clone(), &mask.first(), true);
        self.rest(x.narrow(1, 0, 1), mixed, places)
    }

    fn rest(&self, x: Tensor<3>, mixed: Tensor<3>, places: Places) -> Tensor<3> {
        let sum = match places.attn_out.is_bound() {
            true => x + places.attn_out.forward(linear(&self.attention.out_lin, mixed)),
            false => linear_add(&self.attention.out_lin, mixed, x),
        };
        let x = norm(&self.sa_layer_norm, self.norm_eps, sum);
        let ffn = &self.ffn;
        let hidden = activated(&ffn.lin1, ffn.activation, x.clone());
        let sum = add_dropped(&ffn.lin2, hidden, x, &ffn.dropout, places.mlp_out);
        norm(&self.output_layer_norm, self.norm_eps, sum)
    }
}

impl Attention {
    /// What the heads mix, before `out_lin`; with `first`, for the first column alone.
    fn mixed(&self, x: Tensor<3>, mask: &Mask, first: bool) -> Tensor<3> {
        let parts = match first {
            true => {
                let query = linear(&self.q_lin, x.clone().narrow(1, 0, 1));
                let [key, value] = linear_many([&self.k_lin, &self.v_lin], x);
                [query, key, value]
            }
            false => linear_many([&self.q_lin, &self.k_lin, &self.v_lin], x),
        };
        let [query, key, value] = parts.map(|x| split(x, self.heads));
        let scale = (query.dims()[3] as f64).powf(-0.5);
        attend(query, key, value, mask, scale, &self.dropout)
    }
}

impl Parts for DistilBert {
    fn embed(&self, ids: Tensor<2, Int>, layout: &Layout, _types: Option<Tensor<2, Int>>) -> Tensor<3> {
        self.embeddings.forward(ids, layout, None)
    }

    fn layer(&self, index: usize, x: Tensor<3>, pass: &Pass, places: Places) -> Tensor<3> {
        self.transformer.layer[index].forward(x, &pass.full, places)
    }

    fn layer_first(&self, index: usize, x: Tensor<3>, pass: &Pass, places: Places) -> Tensor<3> {
        self.transformer.layer[index].forward_first(x, &pass.full, places)
    }
}

/// Randomly initialized.
pub(super) fn build(config: &EncoderConfig, device: &Device) -> DistilBert {
    DistilBert {
        embeddings: Embeddings::new(config, false, device),
        transformer: Stack {
            layer: (0..config.depth).map(|_| Layer::new(config, device)).collect(),
        },
    }
}

fn config(fields: &Fields) -> Result<EncoderConfig, ConfigError> {
    let head = HeadConfig::new(Pool::First, "classifier".into())
        .with_dense(Some("pre_classifier".into()))
        .with_activation(Activation::Relu)
        .with_dropout(fields.number_or("seq_classif_dropout", 0.2)?);
    let activation = fields.text_or("activation", "gelu")?;
    // The epsilon of its norms is not a field of config.json.
    Ok(EncoderConfig::new(
        "distilbert".into(),
        fields.count_or("vocab_size", 30522)?,
        fields.count_or("dim", 768)?,
        fields.count_or("hidden_dim", 3072)?,
        fields.count_or("n_layers", 6)?,
        fields.count_or("n_heads", 12)?,
        head,
    )
    .with_positions(Some(fields.count_or("max_position_embeddings", 512)?))
    .with_activation(Activation::parse("activation", activation)?)
    .with_hidden_dropout(fields.number_or("dropout", 0.1)?)
    .with_attention_dropout(fields.number_or("attention_dropout", 0.1)?)
    .with_initializer_range(fields.number_or("initializer_range", 0.02)?))
}

fn sizes(config: &EncoderConfig) -> Vec<Size> {
    let d = ("dim", config.d_model);
    let mut sizes = vec![Size {
        tensor: "embeddings.word_embeddings.weight",
        shape: [("vocab_size", config.vocab_size), d],
    }];
    sizes.extend(config.positions.map(|rows| Size {
        tensor: "embeddings.position_embeddings.weight",
        shape: [("max_position_embeddings", rows), d],
    }));
    sizes.push(Size {
        tensor: "transformer.layer.0.ffn.lin1.weight",
        shape: [("hidden_dim", config.mlp_dim), d],
    });
    sizes
}
