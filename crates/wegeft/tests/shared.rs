//! Several adapters on one backbone: what is frozen stays as it is, and belongs to one backbone.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::{Initializer, Module, ModuleMapper, Param, ParamGroup, Quantizer};
use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::quantization::{Calibration, QuantValue};
use burn::tensor::{DType, Device, Distribution, Int, Tensor, Tolerance};
use wegeft::{Adapted, AdapterConfig, Adapters, embedding, linear};

const D: usize = 8;

#[derive(Module, Debug)]
struct Net {
    up: Linear,
    norm: BatchNorm,
    head: Linear,
}

impl Net {
    /// Its linear layers are drawn at their first use.
    fn lazy(device: &Device) -> Self {
        Self {
            up: LinearConfig::new(D, D).init(device),
            norm: BatchNormConfig::new(D).init(device),
            head: LinearConfig::new(D, 3).init(device),
        }
    }

    fn new(device: &Device) -> Self {
        let net = Self::lazy(device);
        // What is drawn at its first use is drawn now, so that clones are equal.
        for layer in [&net.up, &net.head] {
            layer.forward(Tensor::<2>::zeros([2, D], device));
        }
        net
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        linear(&self.head, self.norm.forward(linear(&self.up, x)).tanh())
    }

    fn mean(&self) -> Vec<f32> {
        let mean = self.norm.running_mean.clone().value_sync();
        mean.into_data().iter::<f32>().collect()
    }
}

fn input(rows: usize, device: &Device) -> Tensor<2> {
    Tensor::random([rows, D], Distribution::Normal(0.0, 1.0), device)
}

fn close<const N: usize>(a: Tensor<N>, b: Tensor<N>, tolerance: f64) {
    a.into_data()
        .assert_approx_eq::<f32>(&b.into_data(), Tolerance::absolute(tolerance));
}

fn lora() -> AdapterConfig {
    AdapterConfig::lora(2).with_target_modules(["up"])
}

/// Some steps away from the start.
fn stirred(mut adapted: Adapted<Net>, device: &Device) -> Adapted<Net> {
    let mut optim = AdamWConfig::new().init();
    for _ in 0..3 {
        let loss = adapted.bind().forward(input(8, device)).powi_scalar(2).mean();
        let grads = GradientsParams::from_grads(loss.backward(), &adapted);
        adapted = optim.step(0.05, adapted, grads);
    }
    adapted
}

#[test]
fn no_forward_pass_changes_the_running_statistics_of_a_shared_backbone() {
    let device = Device::flex().autodiff();
    let mut adapters = Adapters::new(Net::new(&device));
    adapters.add("a", &lora()).unwrap();
    let before = adapters.backbone().mean();
    let x = || input(4, &device).add_scalar(3.0);
    adapters.bind_rows(&["a", "__base__", "a", "a"]).unwrap().forward(x());
    adapters.bind().forward(x());
    adapters.disable();
    adapters.bind().forward(x());
    assert_eq!(adapters.backbone().mean(), before);
    // One that trains the norm has statistics of its own, which it updates.
    adapters.add("own", &lora().with_modules_to_save(["norm"])).unwrap();
    adapters.switch("own").unwrap();
    adapters.bind().forward(x());
    assert_eq!(adapters.backbone().mean(), before);
    assert_ne!(adapters.get("own").unwrap().backbone().mean(), before);
}

#[test]
fn an_adapter_of_changed_weights_is_refused() {
    let device = Device::flex().autodiff();
    let mut adapters = Adapters::new(Net::new(&device));
    let trained = stirred(lora().init(adapters.backbone().clone()).unwrap(), &device);
    let full = AdapterConfig::full().init(adapters.backbone().clone()).unwrap();
    let full = stirred(full, &device).backbone().clone();
    for changed in [trained.merge().unwrap(), full] {
        let refused = adapters.insert("a", lora().init(changed).unwrap()).unwrap_err();
        let refused = refused.to_string();
        assert!(refused.contains("another backbone"), "{refused}");
    }
    // A clone whose parameters have the backbone's ids, but other elements.
    let moved = adapters.backbone().clone().map(&mut Shift(1.0));
    let refused = adapters
        .insert("a", lora().init(moved).unwrap())
        .unwrap_err()
        .to_string();
    assert!(refused.contains("another backbone"), "{refused}");
    adapters.insert("a", trained).unwrap();
    // NaN is no other weight.
    let odd = Adapters::new(Net::new(&device).map(&mut Shift(f64::NAN)));
    let adapted = lora().init(odd.backbone().clone()).unwrap();
    odd.clone().insert("a", adapted).unwrap();
}

/// In Burn, clones of a parameter that is not drawn yet share whether it asks for gradients.
#[test]
fn clones_of_a_model_that_is_not_drawn_yet_train_what_each_is_asked_to() {
    let device = Device::flex().autodiff();
    let model = Net::lazy(&device);
    let head = lora().with_modules_to_save(["head"]).init(model.clone()).unwrap();
    let frozen = lora().init(model.clone()).unwrap();
    assert!(!model.head.weight.is_initialized() && !head.backbone().head.weight.is_initialized());
    let x = input(4, &device);
    let backward = |net: Net| net.forward(x.clone()).powi_scalar(2).mean().backward();
    // A and B, weight and bias of the head.
    assert_eq!(GradientsParams::from_grads(backward(head.bind()), &head).len(), 4);
    assert_eq!(GradientsParams::from_grads(backward(frozen.bind()), &frozen).len(), 2);
    assert_eq!(GradientsParams::from_grads(backward(model.clone()), &model).len(), 6);
    for adapted in [head, frozen] {
        close(adapted.backbone().head.weight.val(), model.head.weight.val(), 0.0);
    }
}

#[test]
fn an_adapter_that_was_used_before_its_backbone_belongs_to_it() {
    let device = Device::flex().autodiff();
    let model = Net::lazy(&device);
    let mut adapters = Adapters::new(model.clone());
    let trained = stirred(lora().init(model).unwrap(), &device);
    assert!(!adapters.backbone().head.weight.is_initialized());
    adapters.insert("a", trained).unwrap();
    let other = stirred(lora().init(Net::lazy(&device)).unwrap(), &device);
    assert!(adapters.insert("b", other).is_err());
}

/// Adds a number to every parameter.
struct Shift(f64);

impl ModuleMapper for Shift {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.add_scalar(self.0))
    }
}

#[test]
fn what_changes_the_backbone_changes_it_for_every_adapter() {
    let device = Device::flex().autodiff();
    let mut adapters = Adapters::new(Net::new(&device));
    let config = lora().with_modules_to_save(["head"]);
    for name in ["a", "b"] {
        let adapted = stirred(config.init(adapters.backbone().clone()).unwrap(), &device);
        adapters.insert(name, adapted).unwrap();
    }
    adapters.disable();
    let other = Net::new(&device);
    let loaded = adapters.clone().try_load_record(other.clone().into_record()).unwrap();
    let x = input(4, &device);
    close(
        loaded.bind().forward(x.clone()),
        other.valid().forward(x.clone().inner()),
        1e-6,
    );
    for name in ["a", "b"] {
        let (adapted, own) = (loaded.get(name).unwrap(), adapters.get(name).unwrap());
        close(adapted.backbone().up.weight.val(), other.up.weight.val(), 0.0);
        close(
            adapted.backbone().head.weight.val(),
            own.backbone().head.weight.val(),
            0.0,
        );
    }
    let scheme = device.settings().quantization.scheme.with_value(QuantValue::Q8S);
    let up = ParamGroup::from_ids([adapters.backbone().up.weight.id].into());
    let mut quantizer = Quantizer::new(Calibration::MinMax, scheme);
    let quantized = adapters.quantize_weights_group(&mut quantizer, up);
    let kind = |weight: &Linear| matches!(weight.weight.val().dtype(), DType::QFloat(_));
    for name in ["a", "b"] {
        let own = quantized.get(name).unwrap().backbone();
        assert!(kind(&own.up) && !kind(&own.head), "{name}");
    }
    assert!(quantized.bind_rows(&["a", "b", "a", "b"]).is_ok());
}

#[derive(Module, Debug)]
struct Places {
    conv: Conv1d,
    experts: Param<Tensor<3>>,
    bare: Param<Tensor<2>>,
    embed: Embedding,
}

#[test]
fn rows_of_a_batch_differ_only_where_a_call_knows_them() {
    let device = Device::flex();
    let places = || Places {
        conv: Conv1dConfig::new(3, 4, 3).init(&device),
        experts: Initializer::Ones.init([2, D, D], &device),
        bare: Initializer::Ones.init([D, D], &device),
        embed: EmbeddingConfig::new(5, D).init(&device),
    };
    let of = |name: &str| AdapterConfig::lora(2).with_target_modules([name]);
    let mixed = |config: AdapterConfig| {
        let mut adapters = Adapters::new(places());
        adapters.add("a", &config).unwrap();
        adapters.bind_rows(&["a", "__base__"])
    };
    let experts = AdapterConfig::lora(2).with_target_parameters(["experts"]);
    for (config, path) in [(of("conv"), "conv.weight"), (experts, "experts"), (of("bare"), "bare")] {
        let said = mixed(config).unwrap_err().to_string();
        assert!(
            said.contains(&format!("'{path}'")) && said.contains("switch()"),
            "{said}"
        );
    }
    let bound = mixed(of("embed")).unwrap();
    let ids = || Tensor::<2, Int>::zeros([2, 1], &device);
    assert_eq!(embedding(&bound.embed, ids()).dims(), [2, 1, D]);
    let panicked = catch_unwind(AssertUnwindSafe(|| bound.embed.forward(ids()))).unwrap_err();
    let said = panicked.downcast_ref::<&str>().unwrap();
    assert!(
        said.contains("wegeft::embedding instead of Embedding::forward"),
        "{said}"
    );
}
