//! GPT-2 (Radford et al. 2019): learned positions, LayerNorm, biases everywhere, one weight for queries, keys and
//! values. Its files store linear weights as `[d_in, d_out]`, the other way round than everybody else's.

use burn::module::{Initializer, Module};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::{Device, Int, Tensor};
use kernels::Visible;
use wegeft::{Hook, Prompts, embedding, linear};

use super::activation::Activation;
use super::attention::{attend, split};
use super::cache::Past;
use super::config::{DecoderConfig, LayerKind};
use super::dense::dense;
use super::edited::joined;
use super::family::Family;
use super::fields::Fields;
use super::layout::Layout;
use super::parts::Parts;
use super::rope::Rotation;
use crate::error::ConfigError;
use crate::layers::norm;

/// GPT-2 with its head.
#[derive(Module, Debug)]
pub struct Gpt2 {
    /// Everything below the head.
    pub transformer: Transformer,
    /// Head `[d_model, vocab]`; the embedding serves if there is none.
    pub lm_head: Option<Linear>,
}

/// Embeddings, layers and last norm.
#[derive(Module, Debug)]
pub struct Transformer {
    /// `[vocab, d_model]`
    pub wte: Embedding,
    /// `[positions, d_model]`
    pub wpe: Embedding,
    /// The layers.
    pub h: Vec<Gpt2Layer>,
    /// Norm before the head.
    pub ln_f: LayerNorm,
    norm_eps: f64,
}

/// One layer, pre-norm.
#[derive(Module, Debug)]
pub struct Gpt2Layer {
    /// Norm before attention.
    pub ln_1: LayerNorm,
    /// Self-attention.
    pub attn: Gpt2Attention,
    /// Norm before the MLP.
    pub ln_2: LayerNorm,
    /// MLP.
    pub mlp: Gpt2Mlp,
    /// What attention adds to the residual stream.
    pub attn_out: Hook,
    /// What the MLP adds to it.
    pub mlp_out: Hook,
    /// The residual stream after the layer.
    pub output: Hook,
    norm_eps: f64,
}

/// Self-attention.
#[derive(Module, Debug)]
pub struct Gpt2Attention {
    /// Queries, keys, values: `[d_model, 3·d_model]`
    pub c_attn: Linear,
    /// `[d_model, d_model]`
    pub c_proj: Linear,
    heads: usize,
    scale: f64,
}

/// Two linear layers.
#[derive(Module, Debug)]
pub struct Gpt2Mlp {
    /// `[d_model, hidden]`
    pub c_fc: Linear,
    /// `[hidden, d_model]`
    pub c_proj: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Gpt2Layer {
    fn forward(&self, x: Tensor<3>, visible: &Visible, prompts: &Prompts, past: Past<'_>) -> Tensor<3> {
        let mixed = self
            .attn
            .mixed(norm(&self.ln_1, self.norm_eps, x.clone()), visible, past);
        let x = joined(&self.attn.c_proj, mixed, x, &self.attn_out, prompts);
        let hidden = self.mlp.hidden(norm(&self.ln_2, self.norm_eps, x.clone()));
        let x = joined(&self.mlp.c_proj, hidden, x, &self.mlp_out, prompts);
        self.output.forward_in(x, prompts)
    }
}

impl Gpt2Attention {
    /// What the heads mix, before `c_proj`.
    fn mixed(&self, x: Tensor<3>, visible: &Visible, past: Past<'_>) -> Tensor<3> {
        let parts = split(linear(&self.c_attn, x), 3 * self.heads);
        let part = |index: usize| parts.clone().narrow(1, index * self.heads, self.heads);
        let (key, value) = past.extend(part(1), part(2));
        attend(part(0), key, value, visible, self.scale, None)
    }
}

impl Gpt2Mlp {
    /// What the activation gives, before `c_proj`.
    fn hidden(&self, x: Tensor<3>) -> Tensor<3> {
        self.activation.forward(linear(&self.c_fc, x))
    }
}

impl Parts for Gpt2 {
    fn build(config: &DecoderConfig, device: &Device) -> Self {
        let (d, hidden) = (config.d_model, config.mlp_dim);
        let norm = || LayerNormConfig::new(d).with_epsilon(config.norm_eps).init(device);
        let hook = || Hook::new(d, device);
        let table = |rows: usize| {
            let std = config.initializer_range;
            EmbeddingConfig::new(rows, d)
                .with_initializer(Initializer::Normal { mean: 0.0, std })
                .init(device)
        };
        let layer = |index: usize| Gpt2Layer {
            ln_1: norm(),
            attn: Gpt2Attention {
                c_attn: dense(config, d, 3 * d, true, device),
                c_proj: dense(config, d, d, true, device),
                heads: config.heads,
                // Mistral's GPT-2s also divide by the number of the layer.
                scale: match config.scale_by_layer {
                    true => config.attention_scale() / (index + 1) as f64,
                    false => config.attention_scale(),
                },
            },
            ln_2: norm(),
            mlp: Gpt2Mlp {
                c_fc: dense(config, d, hidden, true, device),
                c_proj: dense(config, hidden, d, true, device),
                activation: config.activation,
            },
            attn_out: hook(),
            mlp_out: hook(),
            output: hook(),
            norm_eps: config.norm_eps,
        };
        Self {
            transformer: Transformer {
                wte: table(config.vocab_size),
                wpe: table(config.max_positions),
                h: (0..config.layers.len()).map(layer).collect(),
                ln_f: norm(),
                norm_eps: config.norm_eps,
            },
            lm_head: (!config.tied).then(|| dense(config, d, config.vocab_size, false, device)),
        }
    }

    fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        embedding(&self.transformer.wte, ids)
    }

    fn positions(&self, layout: &Layout, device: &Device) -> Option<Tensor<3>> {
        Some(embedding(&self.transformer.wpe, layout.places(device)))
    }

    fn layer(
        &self,
        index: usize,
        x: Tensor<3>,
        _rotation: Option<&Rotation>,
        visible: &Visible,
        prompts: &Prompts,
        past: Past<'_>,
    ) -> Tensor<3> {
        self.transformer.h[index].forward(x, visible, prompts, past)
    }

    fn normed(&self, x: Tensor<3>) -> Tensor<3> {
        norm(&self.transformer.ln_f, self.transformer.norm_eps, x)
    }

    fn head(&self) -> Option<&Linear> {
        self.lm_head.as_ref()
    }

    fn embedding(&self) -> &Embedding {
        &self.transformer.wte
    }

    fn vocabulary(&mut self) -> (&mut Embedding, &mut Option<Linear>) {
        (&mut self.transformer.wte, &mut self.lm_head)
    }
}

pub(crate) const FAMILY: Family = Family {
    name: "gpt2",
    model_types: &["gpt2"],
    base: "transformer.",
    conv1d: true,
    config,
};

/// What GPT2LMHeadModel reads; each size also under the name that other models give it, which wins where both are.
/// `reorder_and_upcast_attn` does not matter: scores are always computed in f32.
fn config(_: &str, fields: &Fields) -> Result<DecoderConfig, ConfigError> {
    let size = |own: &str, other: &str, default: usize| match fields.maybe_count(other)? {
        Some(size) => Ok(size),
        None => fields.count_or(own, default),
    };
    let d_model = size("n_embd", "hidden_size", 768)?;
    let heads = size("n_head", "num_attention_heads", 12)?;
    let max_positions = size("n_positions", "max_position_embeddings", 1024)?;
    let depth = size("n_layer", "num_hidden_layers", 12)?;
    let kind = LayerKind {
        window: None,
        rope: None,
    };
    if heads == 0 || d_model % heads != 0 {
        return Err(ConfigError::field(
            "n_head",
            format!("is {heads}, which does not divide n_embd {d_model}"),
        ));
    }
    fields.get("reorder_and_upcast_attn");
    let scaled = fields.flag_or("scale_attn_weights", true)?;
    let activation = fields.text_or("activation_function", "gelu_new")?;
    Ok(DecoderConfig::new(
        FAMILY.name.into(),
        fields.count_or("vocab_size", 50257)?,
        d_model,
        fields.count_or("n_inner", 4 * d_model)?,
        LayerKind::repeated(kind, depth)?,
        heads,
        heads,
        d_model / heads,
        max_positions,
    )
    .with_learned_positions(true)
    .with_norm_eps(fields.number_or("layer_norm_epsilon", 1e-5)?)
    .with_tied(fields.flag_or("tie_word_embeddings", true)?)
    .with_activation(Activation::parse("activation_function", activation)?)
    .with_query_scalar((!scaled).then_some(1.0))
    .with_scale_by_layer(fields.flag_or("scale_attn_by_inverse_layer_idx", false)?)
    .with_initializer_range(fields.number_or("initializer_range", 0.02)?))
}
