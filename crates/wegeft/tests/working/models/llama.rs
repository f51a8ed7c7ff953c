//! A small LLaMA: RMSNorm, rotary positions, grouped queries, SwiGLU, causal attention. Its linear layers can also be read in
//! activation space, which is the only change that a model can make for this library.

use burn::module::Module;
use burn::nn::{
    Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig, RotaryEncoding, RotaryEncodingConfig,
    SwiGlu, SwiGluConfig,
};
use burn::tensor::activation::{silu, softmax};
use burn::tensor::{Bool, Device, Int, Tensor};

use super::{Batch, CLASSES, Model, VOCABULARY};

#[derive(Module, Debug)]
struct Attention {
    wq: Linear,
    wk: Linear,
    wv: Linear,
    wo: Linear,
    heads: usize,
    kv_heads: usize,
}

#[derive(Module, Debug)]
struct FeedForward {
    swiglu: SwiGlu,
    w2: Linear,
}

#[derive(Module, Debug)]
struct Block {
    attention: Attention,
    feed_forward: FeedForward,
    attention_norm: RmsNorm,
    ffn_norm: RmsNorm,
}

#[derive(Module, Debug)]
pub struct Llama {
    tok_embeddings: Embedding,
    layers: Vec<Block>,
    norm: RmsNorm,
    output: Linear,
    rope: RotaryEncoding,
    /// True: linear layers are read by `wegeft::linear`.
    pub activation_space: bool,
}

/// Sizes of a [`Llama`].
pub struct Sizes {
    pub d_model: usize,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub layers: usize,
    pub vocabulary: usize,
}

impl Llama {
    pub fn sized(sizes: &Sizes, device: &Device) -> Self {
        let linear = |d_in, d_out| LinearConfig::new(d_in, d_out).with_bias(false).init(device);
        let (d, head) = (sizes.d_model, sizes.d_model / sizes.heads);
        let norm = || RmsNormConfig::new(d).init(device);
        let block = |_| Block {
            attention: Attention {
                wq: linear(d, d),
                wk: linear(d, sizes.kv_heads * head),
                wv: linear(d, sizes.kv_heads * head),
                wo: linear(d, d),
                heads: sizes.heads,
                kv_heads: sizes.kv_heads,
            },
            feed_forward: FeedForward {
                swiglu: SwiGluConfig::new(d, sizes.hidden).with_bias(false).init(device),
                w2: linear(sizes.hidden, d),
            },
            attention_norm: norm(),
            ffn_norm: norm(),
        };
        Self {
            tok_embeddings: EmbeddingConfig::new(sizes.vocabulary, d).init(device),
            layers: (0..sizes.layers).map(block).collect(),
            norm: norm(),
            output: linear(d, sizes.vocabulary),
            rope: RotaryEncodingConfig::new(256, head).init(device),
            activation_space: false,
        }
    }

    /// `[batch, tokens]` to `[batch, tokens, vocabulary]`.
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let mut x = self.tok_embeddings.forward(ids);
        for block in &self.layers {
            let attended = self.attend(&block.attention, block.attention_norm.forward(x.clone()));
            x = x + attended;
            let fed = self.feed(&block.feed_forward, block.ffn_norm.forward(x.clone()));
            x = x + fed;
        }
        self.output.forward(self.norm.forward(x))
    }

    fn linear(&self, layer: &Linear, x: Tensor<3>) -> Tensor<3> {
        match self.activation_space {
            true => wegeft::linear(layer, x),
            false => layer.forward(x),
        }
    }

    fn feed(&self, FeedForward { swiglu, w2 }: &FeedForward, x: Tensor<3>) -> Tensor<3> {
        let hidden = match self.activation_space {
            true => {
                let [gate, up] = wegeft::linear_many([&swiglu.linear_inner, &swiglu.linear_outer], x);
                silu(gate) * up
            }
            false => swiglu.forward(x),
        };
        self.linear(w2, hidden)
    }

    fn attend(&self, layer: &Attention, x: Tensor<3>) -> Tensor<3> {
        let [batch, tokens, d] = x.dims();
        let (head, repeats) = (d / layer.heads, layer.heads / layer.kv_heads);
        let qkv = [&layer.wq, &layer.wk, &layer.wv];
        let [q, k, v] = match self.activation_space {
            true => wegeft::linear_many(qkv, x),
            false => qkv.map(|layer| layer.forward(x.clone())),
        };
        let split = |x: Tensor<3>, heads| x.reshape([batch, tokens, heads, head]).swap_dims(1, 2);
        let repeat = |x: Tensor<4>| {
            let x = x.unsqueeze_dim::<5>(2);
            let x = x.expand([batch, layer.kv_heads, repeats, tokens, head]);
            x.reshape([batch, layer.heads, tokens, head])
        };
        let q = self.rope.forward(split(q, layer.heads));
        let k = repeat(self.rope.forward(split(k, layer.kv_heads)));
        let v = repeat(split(v, layer.kv_heads));
        let scores = q.matmul(k.swap_dims(2, 3)).div_scalar((head as f32).sqrt());
        let later = Tensor::<2, Bool>::tril_mask([tokens, tokens], 0, &scores.device());
        let scores = scores.mask_fill(later.unsqueeze::<4>(), f32::NEG_INFINITY);
        let out = softmax(scores, 3).matmul(v).swap_dims(1, 2);
        self.linear(&layer.wo, out.reshape([batch, tokens, d]))
    }
}

impl Model for Llama {
    const NAME: &'static str = "LLaMA";
    const LINEAR: &'static [&'static str] = &["wq", "wv", "linear_inner", "w2"];
    const HEAD: &'static str = "output";
    const BIASES: bool = false;

    fn new(device: &Device) -> Self {
        let sizes = Sizes {
            d_model: 32,
            hidden: 64,
            heads: 4,
            kv_heads: 2,
            layers: 2,
            vocabulary: VOCABULARY,
        };
        Self::sized(&sizes, device)
    }

    fn logits(&self, batch: &Batch) -> Tensor<2> {
        let x = self.forward(batch.ids.clone());
        let last = x.dims()[1] - 1;
        x.narrow(1, last, 1).squeeze_dim::<2>(1).narrow(1, 0, CLASSES)
    }
}
