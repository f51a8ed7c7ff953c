//! The small model that tests of the methods adapt: linear layers, a norm, hooks, places for virtual tokens and a head. What
//! includes it brings `Hook`, `TokenHook` and `linear`.

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor, Tolerance};

use super::{Adapted, Hook, TokenHook, linear};

#[derive(Module, Debug)]
pub struct Block {
    input: Hook,
    norm: LayerNorm,
    pub proj: Linear,
    attn_out: Hook,
    up: Linear,
    down: Linear,
    mlp_out: Hook,
    output: Hook,
}

#[derive(Module, Debug)]
pub struct Net {
    prompt: TokenHook,
    prefix: TokenHook,
    pub blocks: Vec<Block>,
    pub head: Linear,
}

impl Net {
    pub fn new(d: usize, depth: usize, device: &Device) -> Self {
        let hook = || Hook::new(d, device);
        let block = |_| Block {
            input: hook(),
            norm: LayerNormConfig::new(d).init(device),
            proj: LinearConfig::new(d, d).init(device),
            attn_out: hook(),
            up: LinearConfig::new(d, 2 * d).init(device),
            down: LinearConfig::new(2 * d, d).init(device),
            mlp_out: hook(),
            output: hook(),
        };
        Self {
            prompt: TokenHook::new(d, device),
            prefix: TokenHook::new(2 * depth * d, device),
            blocks: (0..depth).map(block).collect(),
            head: LinearConfig::new(d, 3).init(device),
        }
    }

    /// With `ours`, in activation space; without, as a model that knows nothing of adapters.
    pub fn forward(&self, mut x: Tensor<3>, ours: bool) -> Tensor<3> {
        let call = |layer: &Linear, x: Tensor<3>| if ours { linear(layer, x) } else { layer.forward(x) };
        let [batch, _, d] = x.dims();
        if let Some(tokens) = self.prompt.tokens() {
            let [count, _] = tokens.dims();
            x = Tensor::cat(vec![tokens.unsqueeze::<3>().expand([batch, count, d]), x], 1);
        }
        let prefix = self.prefix.tokens();
        for (index, block) in self.blocks.iter().enumerate() {
            x = block.input.forward(x);
            if let Some(tokens) = &prefix {
                // No attention: the layer's keys gate its values.
                let part = |at: usize| tokens.clone().narrow(1, at * d, d);
                let gate = part(2 * index).tanh().add_scalar(1.0);
                x = x + (gate * part(2 * index + 1)).sum_dim(0).unsqueeze::<3>();
            }
            let h = block.attn_out.forward(call(&block.proj, block.norm.forward(x.clone())));
            let h = block.mlp_out.forward(call(&block.down, call(&block.up, h).tanh()));
            x = block.output.forward(x + h);
        }
        call(&self.head, x)
    }
}

pub fn input(d: usize, device: &Device) -> Tensor<3> {
    Tensor::random([2, 3, d], Distribution::Normal(0.0, 1.0), device)
}

/// Moves every trained parameter off its start, so that no factor is zero.
pub fn stir(adapted: Adapted<Net>, d: usize, steps: usize, device: &Device) -> Adapted<Net> {
    let mut optim = AdamWConfig::new().init();
    let mut adapted = adapted;
    for _ in 0..steps {
        let loss = adapted.bind().forward(input(d, device), true).powi_scalar(2).mean();
        let grads = GradientsParams::from_grads(loss.backward(), &adapted);
        adapted = optim.step(0.05, adapted, grads);
    }
    adapted
}

pub fn close<const D: usize>(a: Tensor<D>, b: Tensor<D>, tolerance: f64) {
    a.into_data()
        .assert_approx_eq::<f32>(&b.into_data(), Tolerance::absolute(tolerance));
}
