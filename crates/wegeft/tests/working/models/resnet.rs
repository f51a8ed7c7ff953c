//! A small ResNet: basic blocks of convolutions and batch norms in an enum, as ports of it have them.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use wegeft::AdapterConfig;

use super::{Batch, CLASSES, Model};

#[derive(Module, Debug)]
struct Downsample {
    conv: Conv2d,
    bn: BatchNorm,
}

#[derive(Module, Debug)]
struct BasicBlock {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    downsample: Option<Downsample>,
}

#[derive(Module, Debug)]
enum Residual {
    Basic(BasicBlock),
}

#[derive(Module, Debug)]
pub struct ResNet {
    conv1: Conv2d,
    bn1: BatchNorm,
    layer1: Vec<Residual>,
    layer2: Vec<Residual>,
    pool: AdaptiveAvgPool2d,
    neck: Linear,
    head: Linear,
}

fn conv(channels: [usize; 2], size: usize, stride: usize, device: &Device) -> Conv2d {
    let pad = size / 2;
    Conv2dConfig::new(channels, [size, size])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .with_bias(false)
        .init(device)
}

fn block(d_in: usize, d_out: usize, stride: usize, device: &Device) -> Residual {
    let norm = || BatchNormConfig::new(d_out).init(device);
    Residual::Basic(BasicBlock {
        conv1: conv([d_in, d_out], 3, stride, device),
        bn1: norm(),
        conv2: conv([d_out, d_out], 3, 1, device),
        bn2: norm(),
        downsample: (d_in != d_out).then(|| Downsample {
            conv: conv([d_in, d_out], 1, stride, device),
            bn: norm(),
        }),
    })
}

impl BasicBlock {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let out = relu(self.bn1.forward(self.conv1.forward(x.clone())));
        let out = self.bn2.forward(self.conv2.forward(out));
        let skipped = match &self.downsample {
            Some(down) => down.bn.forward(down.conv.forward(x)),
            None => x,
        };
        relu(out + skipped)
    }
}

impl Model for ResNet {
    const NAME: &'static str = "ResNet";
    const LINEAR: &'static [&'static str] = &["neck"];

    fn new(device: &Device) -> Self {
        Self {
            conv1: conv([3, 8], 3, 1, device),
            bn1: BatchNormConfig::new(8).init(device),
            layer1: vec![block(8, 8, 1, device), block(8, 8, 1, device)],
            layer2: vec![block(8, 16, 2, device), block(16, 16, 1, device)],
            pool: AdaptiveAvgPool2dConfig::new([2, 2]).init(),
            neck: LinearConfig::new(64, 32).init(device),
            head: LinearConfig::new(32, CLASSES).init(device),
        }
    }

    fn logits(&self, batch: &Batch) -> Tensor<2> {
        let x = relu(self.bn1.forward(self.conv1.forward(batch.images.clone())));
        let blocks = self.layer1.iter().chain(&self.layer2);
        let x = blocks.fold(x, |x, Residual::Basic(block)| block.forward(x));
        let x = self.pool.forward(x).flatten::<2>(1, 3);
        self.head.forward(relu(self.neck.forward(x)))
    }

    fn more() -> Vec<(&'static str, AdapterConfig)> {
        let conv = AdapterConfig::lora(2).with_target_modules(["conv1", "conv2", "neck"]);
        let norms = AdapterConfig::lora(2).with_target_modules(["neck"]);
        vec![
            ("lora conv", conv),
            ("batch norms", norms.with_modules_to_save(["bn1", "bn2", "head"])),
        ]
    }
}
