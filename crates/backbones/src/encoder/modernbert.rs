//! ModernBERT (Warner et al. 2024, arXiv 2412.13663): pre-norm, rotary positions, a gated MLP, and attention that is local
//! in two of three layers.
#![allow(non_snake_case)] // fields are the checkpoint's names

use burn::module::Module;
use burn::nn::{Dropout, Embedding, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::{DType, Device, Int, Tensor};
use wegeft::{ActivationSpace, embedding, linear, linear_add};

use super::attention::{Mask, Pass, attend};
use super::config::EncoderConfig;
use super::family::{Family, Size};
use super::head_config::{HeadConfig, Pool};
use super::hooks::Places;
use super::layers::{add_dropped, dense, dropout, table};
use super::modern_config::ModernConfig;
use super::parts::Parts;
use crate::error::ConfigError;
use crate::layers::norm;
use crate::lm::Layout;
use crate::lm::activation::Activation;
use crate::lm::config::sliding_layers;
use crate::lm::fields::Fields;
use crate::lm::rope::{RopeConfig, RopeSource, Rotation};

pub(super) const FAMILY: Family = Family {
    model_types: &[("modernbert", "ModernBertForSequenceClassification")],
    prefix: "model",
    config,
    sizes,
};

/// Embedding, layers and last norm.
#[derive(Module, Debug)]
pub struct ModernBert {
    /// Words.
    pub embeddings: Embeddings,
    /// The layers.
    pub layers: Vec<Layer>,
    /// Norm after the layers.
    pub final_norm: LayerNorm,
    /// Its linear layers are called with [`wegeft::linear`].
    pub reads: ActivationSpace,
    norm_eps: f64,
    #[module(skip)]
    modern: ModernConfig,
}

/// Words to vectors.
#[derive(Module, Debug)]
pub struct Embeddings {
    /// `[vocab, d_model]`
    pub tok_embeddings: Embedding,
    /// Norm after it.
    pub norm: LayerNorm,
    drop: Dropout,
}

/// One layer, pre-norm.
#[derive(Module, Debug)]
pub struct Layer {
    /// Norm before attention; the first layer's input is normed already.
    pub attn_norm: Option<LayerNorm>,
    /// Self-attention.
    pub attn: Attention,
    /// Norm before the MLP.
    pub mlp_norm: LayerNorm,
    /// MLP.
    pub mlp: Mlp,
    norm_eps: f64,
}

/// Self-attention with one weight for queries, keys and values.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[d_model, 3·d_model]`
    pub Wqkv: Linear,
    /// `[d_model, d_model]`
    pub Wo: Linear,
    heads: usize,
    dropout: Dropout,
}

/// Gated MLP.
#[derive(Module, Debug)]
pub struct Mlp {
    /// What is activated, then the gate: `[d_model, 2·hidden]`
    pub Wi: Linear,
    /// `[hidden, d_model]`
    pub Wo: Linear,
    drop: Dropout,
    #[module(skip)]
    activation: Activation,
}

impl Layer {
    fn new(config: &EncoderConfig, modern: &ModernConfig, index: usize, device: &Device) -> Self {
        let (d, hidden) = (config.d_model, config.mlp_dim);
        Self {
            attn_norm: (index > 0).then(|| layer_norm(config, modern, device)),
            attn: Attention {
                Wqkv: dense(config, d, 3 * d, modern.attention_bias, device),
                Wo: dense(config, d, d, modern.attention_bias, device),
                heads: config.heads,
                dropout: dropout(config.attention_dropout),
            },
            mlp_norm: layer_norm(config, modern, device),
            mlp: Mlp {
                Wi: dense(config, d, 2 * hidden, modern.mlp_bias, device),
                Wo: dense(config, hidden, d, modern.mlp_bias, device),
                drop: dropout(modern.mlp_dropout),
                activation: config.activation,
            },
            norm_eps: config.norm_eps,
        }
    }

    fn forward(&self, x: Tensor<3>, rotation: &Rotation, mask: &Mask, places: Places) -> Tensor<3> {
        let mixed = self.mixed(x.clone(), rotation, mask, false);
        self.rest(x, mixed, places)
    }

    fn forward_first(&self, x: Tensor<3>, rotation: &Rotation, mask: &Mask, places: Places) -> Tensor<3> {
        let mixed = self.mixed(x.clone(), rotation, &mask.first(), true);
        self.rest(x.narrow(1, 0, 1), mixed, places)
    }

    fn mixed(&self, x: Tensor<3>, rotation: &Rotation, mask: &Mask, first: bool) -> Tensor<3> {
        let normed = match &self.attn_norm {
            Some(layer) => norm(layer, self.norm_eps, x),
            None => x,
        };
        self.attn.mixed(normed, rotation, mask, first)
    }

    fn rest(&self, x: Tensor<3>, mixed: Tensor<3>, places: Places) -> Tensor<3> {
        let x = add_dropped(&self.attn.Wo, mixed, x, &self.attn.dropout, places.attn_out);
        let hidden = self.mlp.hidden(norm(&self.mlp_norm, self.norm_eps, x.clone()));
        match places.mlp_out.is_bound() {
            true => x + places.mlp_out.forward(linear(&self.mlp.Wo, hidden)),
            false => linear_add(&self.mlp.Wo, hidden, x),
        }
    }
}

impl Attention {
    /// What the heads mix, before `Wo`; with `first`, for the first column alone.
    fn mixed(&self, x: Tensor<3>, rotation: &Rotation, mask: &Mask, first: bool) -> Tensor<3> {
        let [batch, tokens, d] = x.dims();
        let width = d / self.heads;
        let qkv = linear(&self.Wqkv, x);
        let part = |index: usize| {
            let part = qkv.clone().narrow(2, index * d, d);
            part.reshape([batch, tokens, self.heads, width]).swap_dims(1, 2)
        };
        let (query, key) = (rotation.apply(part(0)), rotation.apply(part(1)));
        let query = if first { query.narrow(2, 0, 1) } else { query };
        attend(query, key, part(2), mask, (width as f64).powf(-0.5), &self.dropout)
    }
}

impl Mlp {
    /// What `Wo` reads.
    fn hidden(&self, x: Tensor<3>) -> Tensor<3> {
        let both = linear(&self.Wi, x);
        let hidden = both.dims()[2] / 2;
        let (input, gate) = (both.clone().narrow(2, 0, hidden), both.narrow(2, hidden, hidden));
        self.drop.forward(self.activation.gated(input, gate))
    }
}

impl ModernBert {
    /// The rotation and the mask of layer `index`.
    fn kind<'a>(&self, index: usize, pass: &'a Pass) -> (&'a Rotation, &'a Mask) {
        match &pass.local {
            Some(local) if self.modern.local[index] => (&pass.rotations[1], local),
            _ => (&pass.rotations[0], &pass.full),
        }
    }
}

impl Parts for ModernBert {
    fn pass(&self, layout: &Layout, dtype: DType, device: &Device) -> Pass {
        let modern = &self.modern;
        let ropes = [&modern.global_rope, &modern.local_rope];
        Pass {
            local: modern
                .local
                .contains(&true)
                .then(|| Mask::new(layout, Some(modern.reach))),
            rotations: ropes.map(|rope| rope.rotation(layout, dtype, device)).into(),
            ..Pass::new(layout)
        }
    }

    fn embed(&self, ids: Tensor<2, Int>, _layout: &Layout, _types: Option<Tensor<2, Int>>) -> Tensor<3> {
        let x = embedding(&self.embeddings.tok_embeddings, ids);
        let dtype = kernels::compute_dtype(&x);
        let x = norm(&self.embeddings.norm, self.norm_eps, x.cast(dtype));
        self.embeddings.drop.forward(x)
    }

    fn layer(&self, index: usize, x: Tensor<3>, pass: &Pass, places: Places) -> Tensor<3> {
        let (rotation, mask) = self.kind(index, pass);
        self.layers[index].forward(x, rotation, mask, places)
    }

    fn layer_first(&self, index: usize, x: Tensor<3>, pass: &Pass, places: Places) -> Tensor<3> {
        let (rotation, mask) = self.kind(index, pass);
        self.layers[index].forward_first(x, rotation, mask, places)
    }

    fn normed(&self, x: Tensor<3>) -> Tensor<3> {
        norm(&self.final_norm, self.norm_eps, x)
    }
}

fn layer_norm(config: &EncoderConfig, modern: &ModernConfig, device: &Device) -> LayerNorm {
    LayerNormConfig::new(config.d_model)
        .with_epsilon(config.norm_eps)
        .with_bias(modern.norm_bias)
        .init(device)
}

/// Randomly initialized.
pub(super) fn build(config: &EncoderConfig, device: &Device) -> ModernBert {
    let modern = config.modern.as_ref().expect("a ModernBERT has its own settings");
    let layers = 0..config.depth;
    ModernBert {
        embeddings: Embeddings {
            tok_embeddings: table(config, config.vocab_size, config.d_model, device),
            norm: layer_norm(config, modern, device),
            drop: dropout(modern.embedding_dropout),
        },
        layers: layers.map(|index| Layer::new(config, modern, index, device)).collect(),
        final_norm: layer_norm(config, modern, device),
        reads: ActivationSpace,
        norm_eps: config.norm_eps,
        modern: modern.clone(),
    }
}

fn config(fields: &Fields) -> Result<EncoderConfig, ConfigError> {
    let d_model = fields.count_or("hidden_size", 768)?;
    let heads = fields.count_or("num_attention_heads", 12)?;
    let depth = fields.count_or("num_hidden_layers", 22)?;
    let positions = fields.count_or("max_position_embeddings", 8192)?;
    let norm_eps = fields.number_or("norm_eps", 1e-5)?;
    let norm_bias = fields.flag_or("norm_bias", false)?;
    let head_dim = d_model / heads.max(1);
    let rope = |kind: &str, old: &str, default: f64| -> Result<RopeConfig, ConfigError> {
        let theta = fields.number_or(old, default)?;
        match fields.get("rope_parameters").and_then(|both| both.get(kind)) {
            Some(json) => {
                let from = RopeSource {
                    theta,
                    head_dim,
                    max_positions: positions,
                    partial: None,
                    original: None,
                };
                from.parse(fields, Some(json))
            }
            None if fields.get("rope_scaling").is_some() => Err(ConfigError::field(
                "rope_scaling",
                "is set; implemented is rope_parameters with full_attention and sliding_attention",
            )),
            None => Ok(RopeConfig::new(theta, head_dim)),
        }
    };
    // The whole window, or its half under a name that wins where both are.
    let reach = fields.count_or("local_attention", 128)? / 2;
    let reach = fields.count_or("sliding_window", reach)?;
    let modern = ModernConfig::new(
        local(fields, depth)?,
        reach,
        rope("full_attention", "global_rope_theta", 160_000.0)?,
        rope("sliding_attention", "local_rope_theta", 10_000.0)?,
        fields.flag_or("attention_bias", false)?,
        fields.flag_or("mlp_bias", false)?,
        norm_bias,
        fields.number_or("embedding_dropout", 0.0)?,
        fields.number_or("mlp_dropout", 0.0)?,
    );
    if let Some(share) = [modern.embedding_dropout, modern.mlp_dropout]
        .into_iter()
        .find(|share| !(0.0..1.0).contains(share))
    {
        return Err(ConfigError::invalid(format!(
            "a dropout is {share}; expected at least 0 and less than 1"
        )));
    }
    if head_dim == 0 || head_dim % 2 != 0 {
        return Err(ConfigError::invalid(format!(
            "heads of {head_dim} channels; rotary positions need an even number"
        )));
    }
    let pool = match fields.text_or("classifier_pooling", "cls")? {
        "cls" => Pool::First,
        "mean" => Pool::Mean,
        other => {
            return Err(ConfigError::field(
                "classifier_pooling",
                format!("is '{other}'; implemented are cls and mean"),
            ));
        }
    };
    let act = fields.text_or("classifier_activation", "gelu")?;
    let head = HeadConfig::new(pool, "classifier".into())
        .with_dense(Some("head.dense".into()))
        .with_dense_bias(fields.flag_or("classifier_bias", false)?)
        .with_activation(Activation::parse("classifier_activation", act)?)
        .with_norm(Some("head.norm".into()))
        .with_norm_bias(norm_bias)
        .with_norm_eps(norm_eps)
        .with_dropout(fields.number_or("classifier_dropout", 0.0)?);
    let activation = fields.text_or("hidden_activation", "gelu")?;
    Ok(EncoderConfig::new(
        "modernbert".into(),
        fields.count_or("vocab_size", 50368)?,
        d_model,
        fields.count_or("intermediate_size", 1152)?,
        depth,
        heads,
        head,
    )
    .with_norm_eps(norm_eps)
    .with_activation(Activation::parse("hidden_activation", activation)?)
    .with_attention_dropout(fields.number_or("attention_dropout", 0.0)?)
    .with_initializer_range(fields.number_or("initializer_range", 0.02)?)
    .with_modern(Some(modern)))
}

/// Which layers are local: `layer_types`, or by the older `global_attn_every_n_layers`.
fn local(fields: &Fields, depth: usize) -> Result<Vec<bool>, ConfigError> {
    let every = fields.count_or("global_attn_every_n_layers", 3)?;
    match sliding_layers(fields, depth)? {
        Some(local) => Ok(local),
        None if every == 0 => Err(ConfigError::field(
            "global_attn_every_n_layers",
            "is 0; it must be at least 1",
        )),
        // Bounded: the layers of the file are counted later.
        None => Ok((0..depth.min(1 << 16)).map(|layer| layer % every != 0).collect()),
    }
}

fn sizes(config: &EncoderConfig) -> Vec<Size> {
    let d = ("hidden_size", config.d_model);
    vec![
        Size {
            tensor: "embeddings.tok_embeddings.weight",
            shape: [("vocab_size", config.vocab_size), d],
        },
        Size {
            tensor: "layers.0.mlp.Wi.weight",
            shape: [("intermediate_size, twice", 2 * config.mlp_dim), d],
        },
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// As ModernBertConfig of transformers 5.24 has them.
    #[test]
    fn the_reach_of_local_layers_has_two_names() {
        let reach = |mut json: Value| {
            json["model_type"] = json!("modernbert");
            let config = EncoderConfig::from_hf(&json).unwrap();
            config.modern.unwrap().reach
        };
        assert_eq!(reach(json!({})), 64);
        assert_eq!(reach(json!({"local_attention": 10})), 5);
        assert_eq!(reach(json!({"sliding_window": 3})), 3);
        assert_eq!(reach(json!({"local_attention": 10, "sliding_window": 3})), 3);
    }
}
