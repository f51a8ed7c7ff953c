//! The small model that these tests adapt.

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Distribution, Tensor, Tolerance};
use wegeft::methods::generator::{BlockKind, GeneratorConfig};
use wegeft::methods::wegeft::WegeftConfig;
use wegeft::{Adapted, AdapterConfig, Sharing, Side, ZeroFactor, linear};

#[derive(Module, Debug)]
pub struct Block {
    pub proj: Linear,
    pub up: Linear,
    pub down: Linear,
}

#[derive(Module, Debug)]
pub struct Net {
    pub blocks: Vec<Block>,
    pub head: Linear,
}

pub const D: usize = 8;

/// Random numbers from their start, for as long as what is returned lives: a process has one generator, so that tests that
/// draw take turns.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Device::flex().seed(5);
    turn
}

impl Net {
    pub fn new(device: &Device) -> Self {
        let block = |_| Block {
            proj: LinearConfig::new(D, D).init(device),
            up: LinearConfig::new(D, 2 * D).init(device),
            down: LinearConfig::new(2 * D, D).init(device),
        };
        Self {
            blocks: (0..2).map(block).collect(),
            head: LinearConfig::new(D, 3).init(device),
        }
    }

    /// `[batch, tokens, D]` to `[batch, tokens, 3]`, in activation space.
    pub fn forward(&self, mut x: Tensor<3>) -> Tensor<3> {
        for block in &self.blocks {
            let h = linear(&block.up, linear(&block.proj, x.clone())).tanh();
            x = x + linear(&block.down, h);
        }
        linear(&self.head, x)
    }
}

pub fn input(batch: usize, device: &Device) -> Tensor<3> {
    Tensor::random([batch, 3, D], Distribution::Normal(0.0, 1.0), device)
}

pub fn wegeft(config: WegeftConfig) -> AdapterConfig {
    AdapterConfig::new(config).with_target_modules(["proj", "up", "down"])
}

/// Adapters with low-rank residuals, and whether their merge determines the weight before it.
pub fn configs() -> Vec<(AdapterConfig, bool)> {
    let base = || WegeftConfig::new(2).with_alpha(3.0);
    vec![
        (wegeft(base()), true),
        (
            wegeft(base().with_sharing(Sharing::Site).with_zero_factor(ZeroFactor::Phi)),
            true,
        ),
        (wegeft(base().with_side(Side::Output)), true),
        (AdapterConfig::lora(2).with_target_modules(["proj", "up"]), true),
        (
            wegeft(base().with_generator(GeneratorConfig::new(BlockKind::Sigmoid))),
            false,
        ),
    ]
}

/// An adapter on `net` after some steps, so that no factor is zero.
pub fn stirred(config: &AdapterConfig, net: &Net, device: &Device) -> Adapted<Net> {
    let mut adapted = config.init(net.clone()).unwrap();
    let mut optim = SgdConfig::new().init();
    for _ in 0..3 {
        let loss = adapted.bind().forward(input(4, device)).powi_scalar(2).sum();
        let grads = GradientsParams::from_grads(loss.backward(), &adapted);
        adapted = optim.step(0.02, adapted, grads);
    }
    adapted
}

pub fn close<const N: usize>(a: Tensor<N>, b: Tensor<N>, tolerance: f64) {
    a.into_data()
        .assert_approx_eq::<f32>(&b.into_data(), Tolerance::absolute(tolerance));
}

/// Greatest absolute difference.
pub fn distance<const N: usize>(a: Tensor<N>, b: Tensor<N>) -> f32 {
    (a - b).abs().max().into_scalar::<f32>()
}
