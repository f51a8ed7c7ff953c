//! Two adapters on one frozen model, switched, and side by side in one batch:
//! `cargo run -p wegeft --example serving`.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor};
use wegeft::{AdapterConfig, AdapterError, Adapters, Combination, linear};

#[derive(Module, Debug)]
struct Model {
    up: Linear,
    down: Linear,
}

impl Model {
    /// `x`: `[batch, 16]`; one number a row. A mixed batch needs `linear` in place of `Linear::forward`.
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        linear(&self.down, linear(&self.up, x).tanh())
    }
}

fn main() -> Result<(), AdapterError> {
    let device = Device::flex().autodiff();
    device.seed(0);
    let model = Model {
        up: LinearConfig::new(16, 64).init(&device),
        down: LinearConfig::new(64, 1).init(&device),
    };
    let mut adapters = Adapters::new(model);
    adapters.add("sum", &AdapterConfig::wegeft(4).with_target_modules(["up"]))?;
    adapters.add("difference", &AdapterConfig::lora(4).with_target_modules(["up"]))?;
    for (name, sign) in [("sum", 1.0), ("difference", -1.0)] {
        adapters.switch(name)?;
        let mut optim = AdamWConfig::new().init(); // trains the active adapter
        for _ in 0..200 {
            let x = Tensor::random([64, 16], Distribution::Normal(0.0, 1.0), &device);
            let y = x.clone().narrow(1, 0, 1) + x.clone().narrow(1, 1, 1).mul_scalar(sign);
            let loss = (adapters.bind().forward(x) - y).powi_scalar(2).mean();
            let grads = GradientsParams::from_grads(loss.backward(), &adapters);
            adapters = optim.step(0.01, adapters, grads);
        }
    }

    let adapters = adapters.valid();
    let device = device.inner();
    let mut row = [[0.0; 16]];
    row[0][..2].copy_from_slice(&[1.0, 0.5]);
    let row = Tensor::<2>::from_floats(row, &device);
    let names = ["sum", "difference", "__base__"];
    let x = row.expand([names.len(), 16]);
    let mixed = adapters.bind_rows(&names)?.forward(x); // one pass, each row its own adapter
    for (name, y) in names.iter().zip(mixed.into_data().iter::<f32>()) {
        println!("{name}: {y:.3}");
    }
    let mut adapters = adapters;
    adapters.add_weighted(
        "both",
        &[("sum", 0.5), ("difference", 0.5)],
        Combination::Svd { rank: None },
    )?;
    adapters.switch("both")?;
    println!(
        "{}",
        adapters
            .active()
            .map_or(String::new(), |(name, both)| format!("{name}: {}", both.summary()))
    );
    Ok(())
}
