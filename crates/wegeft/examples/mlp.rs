//! Adapts a Burn model that knows nothing of adapters: `cargo run -p wegeft --example mlp`.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor};
use wegeft::AdapterConfig;

#[derive(Module, Debug)]
struct Mlp {
    layers: Vec<Linear>,
    head: Linear,
}

impl Mlp {
    fn forward(&self, mut x: Tensor<2>) -> Tensor<2> {
        for layer in &self.layers {
            x = layer.forward(x).tanh();
        }
        self.head.forward(x)
    }
}

fn main() -> Result<(), wegeft::AdapterError> {
    let device = Device::flex().autodiff();
    device.seed(0);
    let model = Mlp {
        layers: (0..3).map(|_| LinearConfig::new(32, 32).init(&device)).collect(),
        head: LinearConfig::new(32, 1).init(&device),
    };
    let mut adapted = AdapterConfig::wegeft(4)
        .with_target_regex(r"layers\.\d+")
        .with_modules_to_save(["head"])
        .init(model)?;
    println!("{}", adapted.summary());

    let x = Tensor::random([256, 32], Distribution::Normal(0.0, 1.0), &device);
    let y = x.clone().narrow(1, 0, 1) * x.clone().narrow(1, 1, 1);
    let mut optim = AdamWConfig::new().init();
    for step in 0..=200 {
        let loss = (adapted.bind().forward(x.clone()) - y.clone()).powi_scalar(2).mean();
        if step % 50 == 0 {
            println!("step {step}: loss {:.4}", loss.clone().into_scalar::<f32>());
        }
        let grads = GradientsParams::from_grads(loss.backward(), &adapted);
        adapted = optim.step(0.01, adapted, grads);
    }
    let merged = adapted.merge()?; // a plain Mlp again
    println!(
        "merged: loss {:.4}",
        (merged.forward(x) - y).powi_scalar(2).mean().into_scalar::<f32>()
    );
    Ok(())
}
