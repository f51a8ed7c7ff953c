//! Fine-tunes a convolutional network: convolutions and the hidden layer by LoRA, the last norm and the head in full; the
//! other norm stays frozen, running statistics included: `cargo run -p wegeft --example cnn`.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Distribution, Int, Tensor};
use wegeft::AdapterConfig;

#[derive(Module, Debug)]
struct Cnn {
    conv1: Conv2d,
    norm1: BatchNorm,
    conv2: Conv2d,
    norm2: BatchNorm,
    pool: AdaptiveAvgPool2d,
    hidden: Linear,
    head: Linear,
}

impl Cnn {
    fn new(device: &Device) -> Self {
        let conv = |from, to| {
            Conv2dConfig::new([from, to], [3, 3])
                .with_padding(PaddingConfig2d::Same)
                .init(device)
        };
        Self {
            conv1: conv(3, 8),
            norm1: BatchNormConfig::new(8).init(device),
            conv2: conv(8, 16),
            norm2: BatchNormConfig::new(16).init(device),
            pool: AdaptiveAvgPool2dConfig::new([2, 2]).init(),
            hidden: LinearConfig::new(64, 32).init(device),
            head: LinearConfig::new(32, 2).init(device),
        }
    }

    /// Images `[batch, 3, h, w]` to logits `[batch, 2]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.norm1.forward(self.conv1.forward(x)));
        let x = relu(self.norm2.forward(self.conv2.forward(x)));
        let x = self.pool.forward(x).flatten::<2>(1, 3);
        self.head.forward(relu(self.hidden.forward(x)))
    }
}

fn main() -> Result<(), wegeft::AdapterError> {
    let device = Device::flex().autodiff();
    device.seed(0);
    let mut adapted = AdapterConfig::lora(4)
        .with_target_modules(["conv1", "conv2", "hidden"])
        .with_modules_to_save(["norm2", "head"])
        .init(Cnn::new(&device))?;
    println!("{}", adapted.summary());

    let loss = CrossEntropyLossConfig::new().init(&device);
    let mut optim = AdamWConfig::new().init();
    for step in 0..=60 {
        // Noise, brighter in the upper half or not.
        let labels = Tensor::<1, Int>::arange(0..16, &device).remainder_scalar(2);
        let noise = Tensor::<4>::random([16, 3, 12, 12], Distribution::Normal(0.0, 1.0), &device);
        let brightness = Tensor::<4>::full([1, 1, 6, 1], 0.2, &device).pad((0, 0, 0, 6), 0.0);
        let x = noise + brightness * labels.clone().float().reshape([16, 1, 1, 1]);
        let loss = loss.forward(adapted.bind().forward(x), labels);
        if step % 20 == 0 {
            println!("step {step}: loss {:.4}", loss.clone().into_scalar::<f32>());
        }
        let grads = GradientsParams::from_grads(loss.backward(), &adapted);
        adapted = optim.step(0.01, adapted, grads);
    }
    let merged = adapted.merge()?; // a plain Cnn
    println!("merged: {} parameters", merged.num_params());
    Ok(())
}
