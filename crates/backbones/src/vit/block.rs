//! A transformer block, pre-norm, and its parts.

use burn::module::{Initializer, Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear};
use burn::tensor::{Device, Tensor};
use kernels::{AttentionOptions, attention, attention_qkv, residual_add};
use wegeft::{ActivationSpace, Hook, linear, linear_add};

use super::{Activation, Rope, VitConfig, dense};
use crate::drop_path::DropPath;
use crate::layers::{linear_gelu, norm};

/// LayerScale: a learned factor per channel.
#[derive(Module, Debug)]
pub struct LayerScale {
    /// `[d_model]`
    pub gamma: Param<Tensor<1>>,
}

/// One transformer block, pre-norm.
#[derive(Module, Debug)]
pub struct Block {
    /// Place before the block: its input.
    pub input: Hook,
    /// Norm before attention.
    pub norm1: LayerNorm,
    /// Self-attention.
    pub attn: Attention,
    /// Scale of the attention branch.
    pub ls1: Option<LayerScale>,
    /// Place after attention, before the residual sum.
    pub attn_out: Hook,
    /// Norm before the MLP.
    pub norm2: LayerNorm,
    /// MLP.
    pub mlp: Mlp,
    /// Scale of the MLP branch.
    pub ls2: Option<LayerScale>,
    /// Place after the MLP, before the residual sum.
    pub mlp_out: Hook,
    /// Place after the block: its output.
    pub output: Hook,
    /// Its linear layers are called with [`wegeft::linear`].
    pub reads: ActivationSpace,
    drop_path: DropPath,
    epsilon: f64,
}

impl Block {
    pub(super) fn new(config: &VitConfig, drop_path: f64, device: &Device) -> Self {
        let d = config.d_model;
        let hidden = config.mlp_dim.unwrap_or(4 * d);
        let scale = || {
            config.layer_scale.then(|| LayerScale {
                gamma: Initializer::Ones.init([d], device),
            })
        };
        let head_norm = || {
            let norm = LayerNormConfig::new(d / config.heads).with_epsilon(config.layer_norm_eps);
            config.qk_norm.then(|| norm.init(device))
        };
        let hook = || Hook::new(d, device);
        Self {
            input: hook(),
            norm1: config.norm(device),
            attn: Attention {
                qkv: dense(d, 3 * d, config.qkv_bias, device),
                q_norm: head_norm(),
                k_norm: head_norm(),
                proj: dense(d, d, config.proj_bias, device),
                heads: config.heads,
                epsilon: config.layer_norm_eps,
            },
            ls1: scale(),
            attn_out: hook(),
            norm2: config.norm(device),
            mlp: Mlp::new(d, hidden, config.activation, config.gated_mlp, config.mlp_bias, device),
            ls2: scale(),
            mlp_out: hook(),
            output: hook(),
            reads: ActivationSpace,
            drop_path: DropPath::new(drop_path),
            epsilon: config.layer_norm_eps,
        }
    }

    /// `[batch, tokens, d_model]` to the same; prompts bound to `input` add tokens.
    pub fn forward(&self, x: Tensor<3>, rope: Option<&Rope>) -> Tensor<3> {
        let x = self.input.forward(x);
        let [_, tokens, _] = x.dims();
        let mixed = self.mixed(x.clone(), tokens, rope);
        self.rest(x, mixed)
    }

    /// [`Block::forward`] for the first `count` tokens only, `[batch, count, d_model]`: the others serve as keys and values
    /// and are computed no further.
    pub(super) fn forward_first(&self, x: Tensor<3>, count: usize, rope: Option<&Rope>) -> Tensor<3> {
        // What is bound there may choose tokens by their place among all.
        if [&self.attn_out, &self.mlp_out, &self.output]
            .into_iter()
            .any(Hook::is_bound)
        {
            return self.forward(x, rope).narrow(1, 0, count);
        }
        let x = self.input.forward(x);
        let mixed = self.mixed(x.clone(), count, rope);
        self.rest(x.narrow(1, 0, count), mixed)
    }

    /// What attention makes of `x`, the edited input `[batch, tokens, d_model]`, for its first `queries` tokens, before the
    /// output projection: `[batch, queries, d_model]`.
    pub(super) fn mixed(&self, x: Tensor<3>, queries: usize, rope: Option<&Rope>) -> Tensor<3> {
        self.attn.mix(norm(&self.norm1, self.epsilon, x), queries, rope)
    }

    /// The rest of the block: output projection, residual, MLP.
    pub(super) fn rest(&self, x: Tensor<3>, mixed: Tensor<3>) -> Tensor<3> {
        let x = self.join(&self.attn.proj, mixed, &self.ls1, &self.attn_out, x);
        let hidden = self.mlp.hidden(norm(&self.norm2, self.epsilon, x.clone()));
        let x = self.join(&self.mlp.fc2, hidden, &self.ls2, &self.mlp_out, x);
        self.output.forward(x)
    }

    /// `residual + drop_path(place(scale·layer(x)))`
    fn join(
        &self,
        layer: &Linear,
        x: Tensor<3>,
        scale: &Option<LayerScale>,
        place: &Hook,
        residual: Tensor<3>,
    ) -> Tensor<3> {
        if scale.is_none() && !place.is_bound() && !self.drop_path.drops(&x.device()) {
            return linear_add(layer, x, residual);
        }
        let branch = linear(layer, x);
        let scale = scale.as_ref().map(|scale| scale.gamma.val());
        let (branch, scale) = match (place.is_bound(), scale) {
            (true, Some(scale)) => {
                let scale = scale.cast(branch.dtype()).unsqueeze::<3>();
                (place.forward(branch * scale), None)
            }
            (_, scale) => (place.forward(branch), scale),
        };
        let [batch, ..] = branch.dims();
        let keep = self.drop_path.factors(batch, &branch.device());
        residual_add(residual, branch, scale, keep)
    }
}

/// Multi-head self-attention with a fused qkv weight.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[d_model, 3·d_model]`
    pub qkv: Linear,
    /// Norm of each head's queries.
    pub q_norm: Option<LayerNorm>,
    /// Norm of each head's keys.
    pub k_norm: Option<LayerNorm>,
    /// `[d_model, d_model]`
    pub proj: Linear,
    heads: usize,
    epsilon: f64,
}

impl Attention {
    /// `[batch, tokens, d_model]` to the same.
    pub fn forward(&self, x: Tensor<3>, rope: Option<&Rope>) -> Tensor<3> {
        let [_, tokens, _] = x.dims();
        linear(&self.proj, self.mix(x, tokens, rope))
    }

    /// The values mixed by attention for the first `queries` tokens, heads side by side: the output projection's input,
    /// `[batch, queries, d_model]`.
    fn mix(&self, x: Tensor<3>, queries: usize, rope: Option<&Rope>) -> Tensor<3> {
        let options = AttentionOptions::default();
        let [batch, tokens, d] = x.dims();
        let qkv = linear(&self.qkv, x);
        if rope.is_none() && self.q_norm.is_none() && self.k_norm.is_none() {
            return attention_qkv(qkv, self.heads, queries, &options);
        }
        let part = |i: usize| {
            let part = qkv.clone().narrow(2, i * d, d);
            part.reshape([batch, tokens, self.heads, d / self.heads])
                .swap_dims(1, 2)
        };
        let placed = |x: Tensor<4>, head_norm: &Option<LayerNorm>| {
            let x = match head_norm {
                Some(layer) => norm(layer, self.epsilon, x),
                None => x,
            };
            match rope {
                Some(rope) => rope.forward(x),
                None => x,
            }
        };
        let query = placed(part(0), &self.q_norm).narrow(2, 0, queries);
        let mixed = attention(query, placed(part(1), &self.k_norm), part(2), &options);
        mixed.swap_dims(1, 2).reshape([batch, queries, d])
    }
}

/// Two linear layers with an activation between, gated or not.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[d_model, hidden]`; gated `[d_model, 2·hidden]`, the gate first
    pub fc1: Linear,
    /// `[hidden, d_model]`
    pub fc2: Linear,
    #[module(skip)]
    activation: Activation,
    gated: bool,
}

impl Mlp {
    pub(super) fn new(
        d: usize,
        hidden: usize,
        activation: Activation,
        gated: bool,
        bias: bool,
        device: &Device,
    ) -> Self {
        Self {
            fc1: dense(d, if gated { 2 * hidden } else { hidden }, bias, device),
            fc2: dense(hidden, d, bias, device),
            activation,
            gated,
        }
    }

    /// `[batch, tokens, d_model]` to the same.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        linear(&self.fc2, self.hidden(x))
    }

    /// True if one half of `fc1`'s output gates the other.
    pub fn is_gated(&self) -> bool {
        self.gated
    }

    /// What `fc2` reads.
    fn hidden(&self, x: Tensor<3>) -> Tensor<3> {
        if self.gated {
            let mut halves = linear(&self.fc1, x).chunk(2, 2).into_iter();
            let (Some(gate), Some(up)) = (halves.next(), halves.next()) else {
                unreachable!("chunk(2, ..) of an even width gives two halves");
            };
            return self.activation.forward(gate) * up;
        }
        match self.activation {
            Activation::Gelu => linear_gelu(&self.fc1, x),
            other => other.forward(linear(&self.fc1, x)),
        }
    }
}
