//! LayerScale with something bound between it and the residual sum.

use backbones::{Vit, VitConfig};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Distribution, Tensor};
use wegeft::AdapterConfig;

/// Makes no half of an adapter zero; what is frozen stays.
struct Shake;

impl ModuleMapper for Shake {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| match value.is_require_grad() {
            true => {
                let noise = value.random_like(Distribution::Normal(0.0, 0.1));
                (value + noise).detach()
            }
            false => value,
        })
    }
}

/// One test: both models draw the same random numbers.
#[test]
fn what_is_bound_reads_the_scaled_branch() {
    let device = Device::flex().autodiff();
    device.seed(2);
    let mut scaled = VitConfig::new(16, 4, 24, 2, 3).with_layer_scale(true).init(&device);
    // The same function without LayerScale: the factors are in the layers before it.
    let mut plain: Vit = scaled.clone();
    for (block, plain) in scaled.blocks.iter_mut().zip(&mut plain.blocks) {
        let layers = [
            (&mut block.ls1, &mut plain.attn.proj),
            (&mut block.ls2, &mut plain.mlp.fc2),
        ];
        for (scale, layer) in layers {
            let gamma = Tensor::<1>::random([24], Distribution::Normal(0.0, 1.0), &device);
            scale.as_mut().unwrap().gamma = Param::from_tensor(gamma.clone());
            layer.weight = layer
                .weight
                .clone()
                .map(|weight| weight * gamma.clone().unsqueeze::<2>());
            layer.bias = layer.bias.take().map(|bias| bias.map(|bias| bias * gamma));
        }
        (plain.ls1, plain.ls2) = (None, None);
    }
    let pixels = Tensor::<4>::random([2, 3, 16, 16], Distribution::Normal(0.0, 1.0), &device);
    let difference = |scaled: Tensor<2>, plain: Tensor<2>| (scaled - plain).abs().max().into_scalar::<f32>();
    // Parameters are drawn when they are first read: here.
    let without = difference(scaled.features(pixels.clone()), plain.features(pixels.clone()));
    assert!(without < 1e-4, "{without:e}");
    let [scaled, plain] = [scaled, plain].map(|model| {
        device.seed(9);
        let adapted = AdapterConfig::houlsby(3).init(model).unwrap().map(&mut Shake);
        adapted.bind().features(pixels.clone())
    });
    let with = difference(scaled, plain);
    assert!(with < 1e-4, "{with:e}");
}
