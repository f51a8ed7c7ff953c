//! QLoRA's recipe (Dettmers et al. 2023, arXiv 2305.14314): frozen weights in 4 bits, factors in f32. The weights are never
//! dequantized as a whole; a model calls `wegeft::linear` for that. `cargo run -p wegeft --example qlora`.

use burn::module::{Module, ParamGroup, Quantizer};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::quantization::{Calibration, QuantValue};
use burn::tensor::{Device, Distribution, Tensor};
use wegeft::{AdapterConfig, linear, site};

#[derive(Module, Debug)]
struct Mlp {
    up: Linear,
    down: Linear,
    head: Linear,
}

impl Mlp {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        linear(&self.head, linear(&self.down, linear(&self.up, x).tanh()).tanh())
    }
}

fn main() -> Result<(), wegeft::AdapterError> {
    let device = Device::flex().autodiff();
    device.seed(0);
    let model = Mlp {
        up: LinearConfig::new(64, 256).init(&device),
        down: LinearConfig::new(256, 64).init(&device),
        head: LinearConfig::new(64, 1).init(&device),
    };
    // Quantize what stays frozen: not the head, which is trained in full.
    let frozen = site::params(&model)
        .into_iter()
        .filter(|param| param.shape.len() == 2 && !param.path.starts_with("head"));
    let group = ParamGroup::from_ids(frozen.map(|param| param.id).collect());
    let scheme = device.settings().quantization.scheme.with_value(QuantValue::Q4S);
    let model = model.quantize_weights_group(&mut Quantizer::new(Calibration::MinMax, scheme), group);
    println!("frozen weights: {:?}", model.up.weight.val().dtype());

    for (name, config) in [("LoRA", AdapterConfig::lora(8)), ("WeGeFT", AdapterConfig::wegeft(8))] {
        let config = config
            .with_target_modules(["up", "down"])
            .with_modules_to_save(["head"]);
        let mut adapted = config.init(model.clone())?;
        let mut optim = AdamWConfig::new().init();
        for step in 0..=100 {
            let x = Tensor::random([64, 64], Distribution::Normal(0.0, 1.0), &device);
            let y = x.clone().narrow(1, 0, 1).mul(x.clone().narrow(1, 1, 1)).tanh();
            let loss = (adapted.bind().forward(x) - y).powi_scalar(2).mean();
            if step % 50 == 0 {
                println!("{name}, step {step}: loss {:.4}", loss.clone().into_scalar::<f32>());
            }
            let grads = GradientsParams::from_grads(loss.backward(), &adapted);
            adapted = optim.step(5e-3, adapted, grads);
        }
    }
    Ok(())
}
