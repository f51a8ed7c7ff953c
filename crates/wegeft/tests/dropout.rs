//! Dropout acts at every kind of site in training, and at the rate that was asked for.

use burn::module::{Initializer, Module, ModuleDisplay, Param};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor};
use wegeft::methods::reft::Positions;
use wegeft::{Adapted, AdapterConfig, BoftConfig, Hook, LoraConfig, OftConfig, ReftConfig, linear};

const D: usize = 8;

fn input<const R: usize>(shape: [usize; R], device: &Device) -> Tensor<R> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

/// Some steps of `run` away from the start, so that no factor is zero.
fn stirred<M, const R: usize>(mut adapted: Adapted<M>, run: impl Fn(&M) -> Tensor<R>) -> Adapted<M>
where
    M: Module + ModuleDisplay,
{
    let mut optim = AdamWConfig::new().init();
    for _ in 0..8 {
        // blocks that are dropped in every step would learn nothing
        let loss = run(&adapted.bind()).powi_scalar(2).mean();
        let grads = GradientsParams::from_grads(loss.backward(), &adapted);
        adapted = optim.step(0.1, adapted, grads);
    }
    adapted
}

/// True if passes of `run` over `x` differ in training; otherwise they are always one function.
fn drops<M, const R: usize>(adapted: &Adapted<M>, x: &Tensor<R>, run: impl Fn(&M, Tensor<R>) -> Tensor<R>) -> bool
where
    M: Module + ModuleDisplay,
{
    let (pass, plain) = (|| run(&adapted.bind(), x.clone()).into_data(), adapted.valid());
    let still = || run(&plain.bind(), x.clone().inner()).into_data();
    let (first, exact) = (pass(), still());
    assert!((0..10).all(|_| still() == exact));
    (0..60).any(|_| pass() != first)
}

#[derive(Module, Debug)]
struct Layer {
    proj: Linear,
}

#[test]
fn blocks_of_a_rotation_are_dropped_at_the_rate_that_was_asked_for() {
    let device = Device::flex().autodiff();
    let x = input([5, D], &device);
    // One block, shares of less than a block, and ones that are no whole number of blocks.
    for (config, p) in [
        (AdapterConfig::new(OftConfig::new(8).with_dropout(0.25)), 0.25),
        (AdapterConfig::new(OftConfig::new(4).with_dropout(0.25)), 0.25),
        (AdapterConfig::new(OftConfig::new(2).with_dropout(0.4)), 0.4),
        (AdapterConfig::new(BoftConfig::new(8, 1).with_dropout(0.25)), 0.25),
        (AdapterConfig::new(BoftConfig::new(4, 1).with_dropout(0.25)), 0.25),
    ] {
        let layer = Layer {
            proj: LinearConfig::new(D, D).with_bias(false).init(&device),
        };
        let fresh = config.with_target_modules(["proj"]).init(layer).unwrap();
        let adapted = stirred(fresh, |model| linear(&model.proj, x.clone()));
        let run = |model: &Layer| linear(&model.proj, x.clone());
        assert!(drops(&adapted, &x, |model, x| model.proj.forward(x)));
        assert!(drops(&adapted, &x, |model, x| linear(&model.proj, x)));
        // With all blocks dropped, what is left is BOFT's scales of the outputs.
        let none = match adapted.bank().factors[0].contains("scales") {
            true => {
                let scales = adapted.bank().factors[0].matrix("scales");
                adapted.backbone().proj.forward(x.clone()) * scales.transpose()
            }
            false => adapted.backbone().proj.forward(x.clone()),
        };
        let from = |y: Tensor<2>| (y - none.clone()).inner();
        let merged = adapted.merge().unwrap().proj.forward(x.clone());
        let passes = (0..400).map(|_| from(run(&adapted.bind())));
        let mean = passes.reduce(|sum, pass| sum + pass).unwrap().div_scalar(400.0);
        let whole = from(merged);
        let share = (mean * whole.clone()).sum().into_scalar::<f64>() / whole.powi_scalar(2).sum().into_scalar::<f64>();
        assert!(
            (share - (1.0 - p)).abs() < 0.1,
            "{:?}: {share}",
            adapted.config().method
        );
    }
}

#[test]
fn a_matrix_that_all_blocks_share_takes_no_dropout() {
    let device = Device::flex().autodiff();
    let layer = || Layer {
        proj: LinearConfig::new(D, D).init(&device),
    };
    let shared = |p: f64| {
        let oft = OftConfig::new(2).with_block_share(true).with_dropout(p);
        AdapterConfig::new(oft).with_target_modules(["proj"])
    };
    let refused = shared(0.5).init(layer()).unwrap_err().to_string();
    assert!(
        refused.contains("module_dropout") && refused.contains("block_share"),
        "{refused}"
    );
    // PEFT's files may have both.
    let files = shared(0.0).init(layer()).unwrap().files();
    let loaded = files.with_field("module_dropout", 0.5.into()).attach(layer()).unwrap();
    let x = Tensor::<2>::random([3, D], Distribution::Normal(0.0, 1.0), &device);
    let loaded = stirred(loaded, |model| linear(&model.proj, x.clone()));
    assert!(!drops(&loaded, &x, |model, x| linear(&model.proj, x)));
}

#[derive(Module, Debug)]
struct Mixture {
    experts: Param<Tensor<3>>,
}

#[test]
fn dropout_acts_on_the_inputs_of_experts() {
    let device = Device::flex().autodiff();
    let model = Mixture {
        experts: Initializer::Normal { mean: 0.0, std: 0.3 }.init([2, D, D], &device),
    };
    let x = input([2, 5, D], &device);
    let run = |model: &Mixture, x: Tensor<3>| x.matmul(model.experts.val());
    for (p, expected) in [(0.5, true), (0.0, false)] {
        let lora = LoraConfig::new(2).with_dropout(p);
        let config = AdapterConfig::new(lora).with_target_parameters(["experts"]);
        let adapted = stirred(config.init(model.clone()).unwrap(), |model| run(model, x.clone()));
        assert_eq!(drops(&adapted, &x, run), expected, "{p}");
    }
}

#[derive(Module, Debug)]
struct Hooked {
    output: Hook,
}

#[test]
fn dropout_acts_on_the_edits_of_hooks() {
    let device = Device::flex().autodiff();
    let model = Hooked {
        output: Hook::new(D, &device),
    };
    let x = input([2, 5, D], &device);
    let ends = Positions::Ends { first: 1, last: 1 };
    for reft in [ReftConfig::loreft(2), ReftConfig::direft(2).with_position(ends)] {
        for (p, expected) in [(0.5, true), (0.0, false)] {
            let config = AdapterConfig::new(reft.clone().with_dropout(p));
            let adapted = config.init(model.clone()).unwrap();
            assert_eq!(drops(&adapted, &x, |model, x| model.output.forward(x)), expected, "{p}");
        }
    }
}

#[derive(Module, Debug)]
struct Tied {
    embed: Embedding,
    head: Embedding,
}

#[test]
fn the_places_of_a_tied_weight_have_one_mask() {
    let device = Device::flex().autodiff();
    let embed = EmbeddingConfig::new(5, D).init(&device);
    let model = Tied {
        head: embed.clone(),
        embed,
    };
    let output = wegeft::WegeftConfig::new(2)
        .with_side(wegeft::Side::Output)
        .with_dropout(0.5);
    let config = AdapterConfig::new(output).with_target_modules(["embed"]);
    let run = |model: &Tied| model.embed.weight.val() + model.head.weight.val();
    let adapted = stirred(config.with_weight_tying(true).init(model).unwrap(), run);
    assert!((0..10).any(|_| run(&adapted.bind()).into_data() != run(&adapted.bind()).into_data()));
    for _ in 0..10 {
        let bound = adapted.bind();
        assert_eq!(
            bound.embed.weight.val().into_data(),
            bound.head.weight.val().into_data()
        );
    }
}
