//! The small model that tests of the methods adapt: linear layers, a norm, hooks and a head. What includes it brings
//! `Hook` and `linear`.

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor, Tolerance};

use super::{Adapted, Hook, linear};

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
            blocks: (0..depth).map(block).collect(),
            head: LinearConfig::new(d, 3).init(device),
        }
    }

    /// With `ours`, in activation space; without, as a model that knows nothing of adapters.
    pub fn forward(&self, mut x: Tensor<3>, ours: bool) -> Tensor<3> {
        let call = |layer: &Linear, x: Tensor<3>| if ours { linear(layer, x) } else { layer.forward(x) };
        for block in &self.blocks {
            x = block.input.forward(x);
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
