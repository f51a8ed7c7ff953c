//! Factors in f32 over weights in less: a training step works, and the frozen weight stays as it is.

use burn::module::{Module, ModuleMapper, Param, ParamGroup, Quantizer};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::quantization::{Calibration, QuantScheme, QuantValue};
use burn::tensor::{DType, Device, FloatDType, Tensor};
use wegeft::methods::wegeft::WegeftConfig;
use wegeft::{AdapterConfig, site};

use crate::net::{Net, input, turn, wegeft};

struct Cast(FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(self.0))
    }
}

fn both() -> [AdapterConfig; 2] {
    [
        wegeft(WegeftConfig::new(2)),
        AdapterConfig::lora(2).with_target_modules(["proj", "up", "down"]),
    ]
}

/// Three steps; the loss falls, the factors stay f32 and the first weight stays of its type.
fn trains(net: Net, x: Tensor<3>) {
    let dtype = net.blocks[0].proj.weight.val().dtype();
    for config in both() {
        let mut adapted = config.init(net.clone()).unwrap();
        let mut optim = AdamWConfig::new().init();
        let mut losses = Vec::new();
        for _ in 0..4 {
            let y = adapted.bind().forward(x.clone());
            let loss = y.cast(FloatDType::F32).powi_scalar(2).mean();
            losses.push(loss.clone().into_scalar::<f32>());
            let grads = GradientsParams::from_grads(loss.backward(), &adapted);
            assert_eq!(
                grads.len(),
                site::params(adapted.bank()).len(),
                "every factor has a gradient"
            );
            adapted = optim.step(0.02, adapted, grads);
        }
        assert!(losses[3] < losses[0], "{dtype:?}: {losses:?}");
        assert_eq!(adapted.backbone().blocks[0].proj.weight.val().dtype(), dtype);
    }
}

#[test]
fn bf16_and_f16_weights() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    for dtype in [FloatDType::BF16, FloatDType::F16] {
        trains(Net::new(&device).map(&mut Cast(dtype)), input(2, &device).cast(dtype));
    }
}

#[test]
#[allow(deprecated)] // upstream deprecates ndarray; the project keeps it as a feature
fn quantized_weights() {
    let _turn = turn();
    let (flex, ndarray) = (Device::flex().autodiff(), Device::ndarray().autodiff());
    for (device, value) in [
        (&flex, QuantValue::Q8S),
        (&flex, QuantValue::Q4S),
        (&ndarray, QuantValue::Q8S),
    ] {
        let net = Net::new(device);
        let weights = site::params(&net)
            .into_iter()
            .filter(|p| p.shape.len() == 2 && !p.path.starts_with("head"));
        let scheme: QuantScheme = device.settings().quantization.scheme;
        let scheme = scheme.with_value(value);
        let group = ParamGroup::from_ids(weights.map(|p| p.id).collect());
        let quantized = net.quantize_weights_group(&mut Quantizer::new(Calibration::MinMax, scheme), group);
        assert!(matches!(
            quantized.blocks[0].proj.weight.val().dtype(),
            DType::QFloat(_)
        ));
        trains(quantized, input(2, device));
    }
}

#[test]
#[allow(deprecated)]
fn what_the_table_in_the_guide_says_no_to() {
    let scheme = Device::ndarray()
        .settings()
        .quantization
        .scheme
        .with_value(QuantValue::Q4S);
    for dtype in [DType::F16, DType::BF16, DType::QFloat(scheme)] {
        assert!(!Device::ndarray().supports_dtype(dtype), "{dtype:?}");
    }
}
