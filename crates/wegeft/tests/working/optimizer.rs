use burn::grad_clipping::GradientClippingConfig;
use burn::lr_scheduler::exponential::ExponentialLrSchedulerConfig;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrSchedulerConfig;
use burn::module::{ParamGroup, ParamId};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::Device;
use wegeft::methods::generator::{BlockKind, GeneratorConfig};
use wegeft::methods::lora::LoraConfig;
use wegeft::methods::wegeft::WegeftConfig;
use wegeft::{Adapted, AdapterConfig, site};

use crate::net::{Net, input, turn, wegeft};

fn path_of(adapted: &Adapted<Net>, end: &str) -> (ParamId, String) {
    let params = site::params(adapted).into_iter();
    let found = params.map(|p| (p.id, p.path)).find(|(_, path)| path.ends_with(end));
    found.unwrap_or_else(|| panic!("no parameter ends with {end}"))
}

#[test]
fn biases_and_cluster_maps_take_no_decay_and_frozen_parameters_are_in_no_group() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    let generator = GeneratorConfig::new(BlockKind::Paca);
    let config = wegeft(WegeftConfig::new(2).with_generator(generator)).with_modules_to_save(["head"]);
    let adapted = config.init(Net::new(&device)).unwrap();
    let undecayed = adapted.undecayed();
    for (end, expected) in [
        ("head.bias", true),
        ("head.weight", false),
        (".phi", false),
        (".psi", false),
    ] {
        let (id, path) = path_of(&adapted, end);
        assert_eq!(undecayed.matches(&id, Some(&path)), expected, "{path}");
        // A loaded record brings ids of its own; the path is known too.
        assert_eq!(undecayed.matches(&ParamId::new(), Some(&path)), expected, "{path}");
    }
    let clusters: Vec<_> = site::params(&adapted)
        .into_iter()
        .filter(|p| p.path.contains("mix.logits"))
        .collect();
    assert!(!clusters.is_empty() && clusters.iter().all(|p| undecayed.matches(&p.id, None)));
    let frozen = site::params(adapted.backbone()).into_iter();
    let mut frozen = frozen.map(|param| (param.id, format!("model.{}", param.path)));
    let (id, path) = frozen.find(|(_, path)| path == "model.blocks.0.proj.bias").unwrap();
    assert!(!undecayed.matches(&id, Some(&path)), "it is frozen");
}

#[test]
fn decay_and_clipping_act_on_their_groups() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    let config = AdapterConfig::lora(2)
        .with_target_modules(["proj"])
        .with_modules_to_save(["head"]);
    let step = |clip: Option<GradientClippingConfig>| {
        device.seed(3);
        let adapted = config.init(Net::new(&device)).unwrap();
        let before = adapted.backbone().head.clone();
        let x = input(2, &device);
        let loss = adapted.bind().forward(x).powi_scalar(2).sum();
        let grads = GradientsParams::from_grads(loss.backward(), &adapted);
        let bias_grad = grads.get::<1>(before.bias.as_ref().unwrap().id).unwrap();
        let mut optim = adapted.optimizer(0.0, clip, |_| SgdConfig::new().build());
        let after = optim.step(1.0, adapted, grads).backbone().head.clone();
        let moved = before.bias.unwrap().val().inner() - after.bias.unwrap().val().inner();
        (moved, bias_grad)
    };
    let (moved, grad) = step(None);
    crate::net::close(moved, grad, 1e-5);
    // The second group, that of the bias, clips as well.
    let (moved, _) = step(Some(GradientClippingConfig::Value(1e-3)));
    assert!(moved.abs().max().into_scalar::<f32>() <= 1.001e-3);
}

#[test]
fn loraplus_gives_b_its_own_rate() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    let lora = LoraConfig::new(2).with_loraplus_lr_ratio(16.0);
    let config = AdapterConfig::new(lora).with_target_modules(["proj"]);
    let adapted = config.init(Net::new(&device)).unwrap();
    let rates = adapted.learning_rates(0.01).step();
    let rate = |end: &str| {
        let (id, path) = path_of(&adapted, end);
        rates.lr_from_param(id, Some(&path))
    };
    assert_eq!((rate(".a"), rate(".b"), rates.base()), (0.01, 0.16, 0.01));
}

#[test]
fn loraplus_multiplies_the_rates_of_the_schedule_s_own_groups() {
    let _turn = turn();
    let device = Device::flex().autodiff();
    let lora = LoraConfig::new(2).with_loraplus_lr_ratio(16.0);
    let config = AdapterConfig::new(lora)
        .with_target_modules(["proj", "up"])
        .with_modules_to_save(["head"]);
    let adapted = config.init(Net::new(&device)).unwrap();
    let of = |end: &str| path_of(&adapted, end);
    let factors: Vec<ParamId> = adapted.bank().specs().map(|(id, _)| id).collect();
    // One group by id, and in it another by path, with a schedule.
    let (_, one) = of("factors.1.b");
    let schedule = || {
        ModuleLrSchedulerConfig::new(1e-2.into())
            .with_group(ParamGroup::from_ids(factors.clone()), 1e-4)
            .with_group(
                ParamGroup::from_path(one.clone()),
                ExponentialLrSchedulerConfig::new(1e-3, 0.5),
            )
            .init()
            .unwrap()
    };
    let (mut plain, mut scaled) = (schedule(), adapted.learning_rates(schedule()));
    for step in 0..3 {
        if step == 2 {
            scaled = adapted.learning_rates(schedule()).load_record(scaled.to_record());
        }
        let (plain, scaled) = (plain.step(), scaled.step());
        for (end, ratio) in [
            ("head.weight", 1.0),
            ("factors.0.a", 1.0),
            ("factors.0.b", 16.0),
            ("factors.1.a", 1.0),
            ("factors.1.b", 16.0),
        ] {
            let (id, path) = of(end);
            let [plain, scaled] = [&plain, &scaled].map(|rates| rates.lr_from_param(id, Some(&path)));
            assert!((scaled / plain - ratio).abs() < 1e-9, "{end}: {scaled} for {plain}");
        }
    }
}
