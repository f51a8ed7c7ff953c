//! Tokens in half precision, as on GPUs, against tokens in f32.

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Distribution, Int, Tensor};
use wegeft::{AdapterConfig, site};

use super::{Activation, Pool, Positions, Vit, VitConfig};

/// Models that have every part between them.
fn variants() -> [VitConfig; 6] {
    let plain = || VitConfig::new(16, 4, 24, 3, 3).with_num_classes(5);
    [
        plain().with_dist_token(true).with_layer_scale(true),
        plain()
            .with_registers(2)
            .with_positions(Positions::Registers)
            .with_norm_pre(true),
        plain()
            .with_rope_theta(Some(100.0))
            .with_positions(Positions::None)
            .with_qk_norm(true),
        plain().with_cls_token(false).with_pool(Pool::Attention),
        plain()
            .with_gated_mlp(true)
            .with_activation(Activation::Silu)
            .with_pool(Pool::AvgMax),
        plain()
            .with_pool(Pool::Mean)
            .with_fc_norm(true)
            .with_positions(Positions::Patches),
    ]
}

fn pixels(device: &Device) -> Tensor<4> {
    Tensor::random([2, 3, 16, 16], Distribution::Normal(0.0, 1.0), device)
}

/// Largest difference relative to the largest element of `exact`.
fn relative<const D: usize>(ours: Tensor<D>, exact: Tensor<D>) -> f32 {
    let largest: f32 = exact.clone().abs().max().into_scalar();
    let worst: f32 = (ours - exact).abs().max().into_scalar();
    worst / largest
}

const TYPES: [(DType, f32); 2] = [(DType::F16, 0.02), (DType::BF16, 0.15)];

#[test]
fn features_and_logits_are_those_of_f32() {
    let device = Device::flex();
    for (index, config) in variants().into_iter().enumerate() {
        device.seed(index as u64);
        let (model, pixels) = (config.init(&device), pixels(&device));
        let exact = model.outputs(pixels.clone());
        for (dtype, bound) in TYPES {
            let model = model.clone().with_activations(dtype);
            assert_eq!(model.tokens(pixels.clone(), 1).dtype(), dtype);
            let (features, logits) = model.outputs(pixels.clone());
            let logits = logits.unwrap();
            assert_eq!((features.dtype(), logits.dtype()), (DType::F32, DType::F32));
            let off = [
                relative(features, exact.0.clone()),
                relative(logits, exact.1.clone().unwrap()),
            ];
            assert!(off.iter().all(|off| *off < bound), "{index} {dtype:?}: {off:?}");
            // It is not f32 by another name.
            assert!(off.iter().any(|off| *off > 0.0), "{index} {dtype:?}");
        }
    }
}

/// Gives the factors the same elements in every run, none of them zero; what is frozen stays.
struct Shake;

impl ModuleMapper for Shake {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| match value.is_require_grad() {
            true => {
                // Not from the device's random numbers, which other tests draw at the same time.
                let count = value.shape().num_elements() as i64;
                let places = Tensor::<1, Int>::arange(0..count, &value.device()).float();
                let values = places.mul_scalar(1.7).sin().mul_scalar(0.3);
                values.reshape(value.shape()).require_grad()
            }
            false => value,
        })
    }
}

/// The gradients of the adapter's factors.
fn gradients(config: &AdapterConfig, model: Vit, pixels: Tensor<4>) -> Vec<Tensor<2>> {
    let adapted = config.init(model).unwrap().map(&mut Shake);
    // Unscaled, most of them underflow in f16.
    let loss = adapted.bind().forward(pixels).square().mean().mul_scalar(4096.0);
    let grads = GradientsParams::from_grads(loss.backward(), &adapted);
    let params = site::params(adapted.bank()).into_iter();
    params.map(|param| grads.get::<2>(param.id).unwrap()).collect()
}

#[test]
fn gradients_of_factors_arrive_in_f32() {
    let device = Device::flex().autodiff();
    let targets = ["qkv", "attn.proj", "fc1"];
    for config in [AdapterConfig::lora(2), AdapterConfig::wegeft(2)] {
        let config = config.with_target_modules(targets);
        for (index, variant) in variants().into_iter().enumerate() {
            device.seed(3);
            let (model, pixels) = (variant.init(&device), pixels(&device));
            let exact = gradients(&config, model.clone(), pixels.clone());
            for (dtype, bound) in TYPES {
                let found = gradients(&config, model.clone().with_activations(dtype), pixels.clone());
                assert!(found.len() == exact.len() && !found.is_empty());
                for (found, exact) in found.into_iter().zip(exact.clone()) {
                    assert_eq!(found.dtype(), DType::F32);
                    let size: f32 = exact.clone().abs().max().into_scalar();
                    let off = relative(found, exact);
                    assert!(off < 5.0 * bound, "{index}, {dtype:?}: {off} of {size}");
                }
            }
        }
    }
}
