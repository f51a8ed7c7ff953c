//! DeBERTa-v2 (He et al. 2020, arXiv 2006.03654) and v3 (arXiv 2111.09543): attention of contents and of relative
//! positions, each to each.
#![allow(non_snake_case)] // fields are the checkpoint's names

use burn::module::Module;
use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::nn::{Dropout, Embedding, LayerNorm, Linear, PaddingConfig1d};
use burn::tensor::module::conv1d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use wegeft::{linear, linear_many};

use super::attention::{Mask, Pass, mix};
use super::bert;
use super::config::EncoderConfig;
use super::family::{Family, Size};
use super::head_config::{HeadConfig, Pool};
use super::hooks::Places;
use super::layers::{Embeddings, Intermediate, Output, WithOutput, dense, dropout, layer_norm, table};
use super::parts::Parts;
use super::relative::{ConvConfig, Relative, RelativeConfig};
use crate::error::ConfigError;
use crate::layers::norm;
use crate::lm::Layout;
use crate::lm::activation::Activation;
use crate::lm::attention::split;
use crate::lm::fields::Fields;

pub(super) const FAMILY: Family = Family {
    model_types: &[("deberta-v2", "DebertaV2ForSequenceClassification")],
    prefix: "deberta",
    config,
    sizes,
};

/// Embeddings and layers.
#[derive(Module, Debug)]
pub struct Deberta {
    /// Words, and positions and token types where the config has them.
    pub embeddings: Embeddings,
    /// The layers.
    pub encoder: Stack,
}

/// The layers, and what they share.
#[derive(Module, Debug)]
pub struct Stack {
    /// The layers.
    pub layer: Vec<Layer>,
    /// Embedding of distances, `[2·span, d_model]`.
    pub rel_embeddings: Option<Embedding>,
    /// Its norm.
    pub LayerNorm: Option<LayerNorm>,
    /// Convolution beside the first layer (v2).
    pub conv: Option<ConvLayer>,
    #[module(skip)]
    relative: Option<RelativeConfig>,
    norm_eps: f64,
}

/// One layer, post-norm: attention, then an MLP.
#[derive(Module, Debug)]
pub struct Layer {
    /// Attention, its projection, residual and norm.
    pub attention: WithOutput<Disentangled>,
    /// First half of the MLP.
    pub intermediate: Intermediate,
    /// Second half of the MLP, residual and norm.
    pub output: Output,
}

/// Self-attention of contents and positions.
#[derive(Module, Debug)]
pub struct Disentangled {
    /// `[d_model, d_model]`
    pub query_proj: Linear,
    /// `[d_model, d_model]`
    pub key_proj: Linear,
    /// `[d_model, d_model]`
    pub value_proj: Linear,
    /// Keys of positions, `[d_model, d_model]`, unless `key_proj` serves.
    pub pos_key_proj: Option<Linear>,
    /// Queries of positions, `[d_model, d_model]`, unless `query_proj` serves.
    pub pos_query_proj: Option<Linear>,
    heads: usize,
    pos_dropout: Dropout,
    dropout: Dropout,
    #[module(skip)]
    relative: Option<RelativeConfig>,
}

/// A convolution over the embeddings, added to the first layer's output.
#[derive(Module, Debug)]
pub struct ConvLayer {
    /// `[d_model, d_model / groups, kernel_size]`
    pub conv: Conv1d,
    /// Norm of the sum.
    pub LayerNorm: LayerNorm,
    dropout: Dropout,
    #[module(skip)]
    activation: Activation,
    norm_eps: f64,
}

impl Disentangled {
    fn new(config: &EncoderConfig, device: &Device) -> Self {
        let d = config.d_model;
        let layer = || dense(config, d, d, true, device);
        let own = attending(config).filter(|relative| !relative.share_att_key);
        Self {
            query_proj: layer(),
            key_proj: layer(),
            value_proj: layer(),
            pos_key_proj: own.filter(|relative| relative.c2p).map(|_| layer()),
            pos_query_proj: own.filter(|relative| relative.p2c).map(|_| layer()),
            heads: config.heads,
            pos_dropout: dropout(config.hidden_dropout),
            dropout: dropout(config.attention_dropout),
            relative: config.relative.clone(),
        }
    }

    /// What the heads mix, `[batch, tokens, d_model]` to the same; with `first`, for the first column alone.
    fn mixed(&self, x: Tensor<3>, mask: &Mask, relative: Option<&Relative>, first: bool) -> Tensor<3> {
        let parts = match first {
            true => {
                let query = linear(&self.query_proj, x.clone().narrow(1, 0, 1));
                let [key, value] = linear_many([&self.key_proj, &self.value_proj], x);
                [query, key, value]
            }
            false => linear_many([&self.query_proj, &self.key_proj, &self.value_proj], x),
        };
        let [query, key, value] = parts.map(|x| split(x, self.heads));
        let [batch, heads, queries, width] = query.dims();
        let factor = self.relative.as_ref().map_or(1, RelativeConfig::scale_factor);
        let scale = ((width * factor) as f64).powf(-0.5);
        let query = query.mul_scalar(scale);
        let mut scores = query.clone().matmul(key.clone().swap_dims(2, 3));
        if let (Some(config), Some(relative)) = (&self.relative, relative) {
            let embedding = self.pos_dropout.forward(relative.embedding.clone()).unsqueeze::<3>();
            // Scores for every distance there is, of which each pair of tokens reads its own.
            let read = |asking: Tensor<4>, projection: &Linear, rows: Tensor<4, Int>| {
                let positions = split(linear(projection, embedding.clone()), heads);
                let [_, _, own, other] = rows.dims();
                let all = asking.matmul(positions.swap_dims(2, 3));
                all.gather(3, rows.expand([batch, heads, own, other]))
            };
            if config.c2p {
                let projection = self.pos_key_proj.as_ref().unwrap_or(&self.key_proj);
                scores = scores + read(query, projection, relative.rows.clone().narrow(2, 0, queries));
            }
            if config.p2c {
                let projection = self.pos_query_proj.as_ref().unwrap_or(&self.query_proj);
                let rows = relative.rows_of_keys.clone().narrow(3, 0, queries);
                scores = scores + read(key.mul_scalar(scale), projection, rows).swap_dims(2, 3);
            }
        }
        mix(scores, value, mask, &self.dropout)
    }
}

impl Layer {
    fn new(config: &EncoderConfig, device: &Device) -> Self {
        Self {
            attention: WithOutput {
                attention: Disentangled::new(config, device),
                output: Output::new(config, config.d_model, device),
            },
            intermediate: Intermediate::new(config, device),
            output: Output::new(config, config.mlp_dim, device),
        }
    }

    fn forward(&self, x: Tensor<3>, pass: &Pass, places: Places) -> Tensor<3> {
        let attention = &self.attention.attention;
        let mixed = attention.mixed(x.clone(), &pass.full, pass.relative.as_ref(), false);
        self.rest(x, mixed, places)
    }

    fn forward_first(&self, x: Tensor<3>, pass: &Pass, places: Places) -> Tensor<3> {
        let attention = &self.attention.attention;
        let mixed = attention.mixed(x.clone(), &pass.full.first(), pass.relative.as_ref(), true);
        self.rest(x.narrow(1, 0, 1), mixed, places)
    }

    fn rest(&self, x: Tensor<3>, mixed: Tensor<3>, places: Places) -> Tensor<3> {
        let x = self.attention.output.forward(mixed, x, places.attn_out);
        self.output
            .forward(self.intermediate.forward(x.clone()), x, places.mlp_out)
    }
}

impl ConvLayer {
    fn new(config: &EncoderConfig, conv: &ConvConfig, device: &Device) -> Self {
        let (d, side) = (config.d_model, conv.kernel_size / 2);
        Self {
            conv: Conv1dConfig::new(d, d, conv.kernel_size)
                .with_padding(PaddingConfig1d::Explicit(side, side))
                .with_groups(conv.groups)
                .init(device),
            LayerNorm: layer_norm(config, d, device),
            dropout: dropout(config.hidden_dropout),
            activation: conv.activation,
            norm_eps: config.norm_eps,
        }
    }

    /// `embedded`: the first layer's input, `out`: its output, `[batch, tokens, d_model]`.
    fn forward(&self, embedded: Tensor<3>, out: Tensor<3>, real: Option<&Tensor<3>>) -> Tensor<3> {
        let (layer, dtype) = (&self.conv, embedded.dtype());
        let side = layer.kernel_size / 2;
        let options = ConvOptions::new_with_padding([1], [(side, side)], [1], layer.groups);
        // Burn's layer takes no weight of another type than its input.
        let bias = layer.bias.as_ref().map(|bias| bias.val().cast(dtype));
        let x = conv1d(embedded.swap_dims(1, 2), layer.weight.val().cast(dtype), bias, options).swap_dims(1, 2);
        let masked = |x: Tensor<3>| match real {
            Some(real) => x * real.clone(),
            None => x,
        };
        let x = self.activation.forward(self.dropout.forward(masked(x)));
        masked(norm(&self.LayerNorm, self.norm_eps, out + x))
    }
}

impl Parts for Deberta {
    fn pass(&self, layout: &Layout, dtype: DType, device: &Device) -> Pass {
        let tokens = layout.tokens();
        let stack = &self.encoder;
        let relative = stack.relative.as_ref().zip(stack.rel_embeddings.as_ref());
        let relative = relative.map(|(config, table)| {
            let rows = table.weight.val().cast(dtype);
            let rows = match &stack.LayerNorm {
                Some(layer) => norm(layer, stack.norm_eps, rows),
                None => rows,
            };
            Relative::new(config, rows, tokens, device)
        });
        Pass {
            relative,
            real: real(layout, dtype, device),
            ..Pass::new(layout)
        }
    }

    fn embed(&self, ids: Tensor<2, Int>, layout: &Layout, types: Option<Tensor<2, Int>>) -> Tensor<3> {
        let x = self.embeddings.forward(ids, layout, types);
        // The convolution reads its neighbours, padding among them.
        match real(layout, x.dtype(), &x.device()) {
            Some(real) => x * real,
            None => x,
        }
    }

    fn layer(&self, index: usize, x: Tensor<3>, pass: &Pass, places: Places) -> Tensor<3> {
        let out = self.encoder.layer[index].forward(x.clone(), pass, places);
        match &self.encoder.conv {
            Some(conv) if index == 0 => conv.forward(x, out, pass.real.as_ref()),
            _ => out,
        }
    }

    fn layer_first(&self, index: usize, x: Tensor<3>, pass: &Pass, places: Places) -> Tensor<3> {
        match &self.encoder.conv {
            Some(_) if index == 0 => self.layer(index, x, pass, places).narrow(1, 0, 1),
            _ => self.encoder.layer[index].forward_first(x, pass, places),
        }
    }
}

/// 1 at tokens and 0 at padding, `[batch, tokens, 1]`; `None` without padding.
fn real(layout: &Layout, dtype: DType, device: &Device) -> Option<Tensor<3>> {
    let values: Vec<f32> = layout.real().map(|real| f32::from(u8::from(real))).collect();
    let shape = [layout.rows(), layout.tokens(), 1];
    values
        .contains(&0.0)
        .then(|| Tensor::from_data(TensorData::new(values, shape), (device, dtype)))
}

/// Randomly initialized.
pub(super) fn build(config: &EncoderConfig, device: &Device) -> Deberta {
    let d = config.d_model;
    let relative = config.relative.as_ref();
    Deberta {
        embeddings: Embeddings::new(config, true, device),
        encoder: Stack {
            layer: (0..config.depth).map(|_| Layer::new(config, device)).collect(),
            rel_embeddings: attending(config).map(|relative| table(config, 2 * relative.span, d, device)),
            LayerNorm: relative
                .filter(|relative| relative.normed)
                .map(|_| layer_norm(config, d, device)),
            conv: relative
                .and_then(|relative| relative.conv.as_ref())
                .map(|conv| ConvLayer::new(config, conv, device)),
            relative: config.relative.clone(),
            norm_eps: config.norm_eps,
        },
    }
}

fn config(fields: &Fields) -> Result<EncoderConfig, ConfigError> {
    let act = fields.text_or("pooler_hidden_act", "gelu")?;
    let head = HeadConfig::new(Pool::First, "classifier".into())
        .with_dense(Some("pooler.dense".into()))
        .with_activation(Activation::parse("pooler_hidden_act", act)?)
        .with_input_dropout(fields.number_or("pooler_dropout", 0.0)?);
    let mut config = bert::shared("deberta-v2", fields, head)?;
    config.head.dropout = fields.number_or("cls_dropout", config.hidden_dropout)?;
    config.vocab_size = fields.count_or("vocab_size", 128_100)?;
    config.d_model = fields.count_or("hidden_size", 1536)?;
    config.depth = fields.count_or("num_hidden_layers", 24)?;
    config.heads = fields.count_or("num_attention_heads", 24)?;
    config.mlp_dim = fields.count_or("intermediate_size", 6144)?;
    config.norm_eps = fields.number_or("layer_norm_eps", 1e-7)?;
    config.token_types = fields.count_or("type_vocab_size", 0)?;
    config.embedding_size = fields
        .maybe_count("embedding_size")?
        .filter(|width| *width != config.d_model);
    for (field, expected) in [
        ("pooler_hidden_size", config.d_model),
        ("attention_head_size", config.d_model / config.heads.max(1)),
    ] {
        let found = fields.count_or(field, expected)?;
        if found != expected {
            return Err(ConfigError::field(
                field,
                format!("is {found}; implemented is {expected} with these sizes"),
            ));
        }
    }
    let positions = fields.count_or("max_position_embeddings", 512)?;
    // With relative positions alone a text may be longer than the embedding of distances.
    config.positions = fields.flag_or("position_biased_input", true)?.then_some(positions);
    config.relative = Some(relative(fields, positions, config.d_model)?);
    Ok(config)
}

/// How distances are looked at, if they are.
fn attending(config: &EncoderConfig) -> Option<&RelativeConfig> {
    config.relative.as_ref().filter(|relative| relative.attends)
}

fn relative(fields: &Fields, positions: usize, d_model: usize) -> Result<RelativeConfig, ConfigError> {
    let attends = fields.flag_or("relative_attention", false)?;
    // -1 stands for "as many as positions" and "none".
    let count = |field: &str| -> Result<Option<usize>, ConfigError> {
        let number = fields.maybe_number(field)?.filter(|number| *number >= 1.0);
        Ok(number.map(|number| number as usize))
    };
    let max_distance = count("max_relative_positions")?.unwrap_or(positions);
    let buckets = count("position_buckets")?;
    let kinds: Vec<String> = match fields.get("pos_att_type") {
        Some(serde_json::Value::String(text)) => text.split('|').map(|kind| kind.trim().to_lowercase()).collect(),
        _ => {
            let kinds = fields.maybe_texts("pos_att_type")?.unwrap_or_default();
            kinds.into_iter().map(str::to_lowercase).collect()
        }
    };
    let other = kinds.iter().find(|kind| !["c2p", "p2c"].contains(&kind.as_str()));
    if let Some(other) = other.filter(|_| attends) {
        return Err(ConfigError::field(
            "pos_att_type",
            format!("names '{other}'; implemented are c2p and p2c"),
        ));
    }
    let span = buckets.unwrap_or(max_distance);
    let bucketed = buckets.is_some();
    if attends && bucketed && (span < 4 || max_distance <= span / 2 + 1) {
        return Err(ConfigError::field(
            "position_buckets",
            format!("is {span} with {max_distance} positions; expected at least 4, and less than twice the positions"),
        ));
    }
    if attends && span > 1 << 28 {
        return Err(ConfigError::field(
            "max_relative_positions",
            format!("is {span}; no model is that large"),
        ));
    }
    let has = |kind: &str| kinds.iter().any(|found| found == kind);
    let norms = fields.text_or("norm_rel_ebd", "none")?.to_lowercase();
    let conv = fields.count_or("conv_kernel_size", 0)?;
    let conv = match conv {
        0 => None,
        even if even % 2 == 0 => {
            return Err(ConfigError::field(
                "conv_kernel_size",
                format!("is {even}; expected an odd number"),
            ));
        }
        kernel_size => {
            let groups = fields.count_or("conv_groups", 1)?;
            if groups == 0 || !d_model.is_multiple_of(groups) {
                return Err(ConfigError::field(
                    "conv_groups",
                    format!("is {groups}, which does not divide hidden_size {d_model}"),
                ));
            }
            let act = fields.text_or("conv_act", "tanh")?;
            Some(ConvConfig::new(
                kernel_size,
                groups,
                Activation::parse("conv_act", act)?,
            ))
        }
    };
    Ok(RelativeConfig::new(
        span,
        max_distance,
        bucketed,
        has("c2p"),
        has("p2c"),
        fields.flag_or("share_att_key", false)?,
        norms.split('|').any(|norm| norm.trim() == "layer_norm"),
    )
    .with_conv(conv)
    .with_attends(attends))
}

fn sizes(config: &EncoderConfig) -> Vec<Size> {
    let mut sizes = bert::sizes(config);
    sizes.extend(attending(config).map(|relative| Size {
        tensor: "encoder.rel_embeddings.weight",
        shape: [
            ("position_buckets or max_relative_positions", 2 * relative.span),
            ("hidden_size", config.d_model),
        ],
    }));
    sizes
}
