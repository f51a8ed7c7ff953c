//! Activation checkpointing of vision transformers.

use std::path::Path;

use backbones::classify::{ClassifierOptions, load_classifier};
use backbones::lm::Layout;
use backbones::vit::Pool;
use backbones::{Vit, VitConfig};
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Int, Tensor};
use experiments::train::step::{Objective, Part};
use experiments::vision::data::{Batch, Input};
use experiments::vision::objective::CrossEntropy;
use wegeft::{Adapted, AdapterConfig};

const DEPTH: usize = 4;

fn adapted(config: AdapterConfig, mean_pool: bool, drop_path: f64, device: &Device) -> Adapted<Vit> {
    let vit = VitConfig::new(16, 4, 24, DEPTH, 3)
        .with_num_classes(5)
        .with_pool(if mean_pool { Pool::Mean } else { Pool::Cls })
        .with_layer_scale(mean_pool)
        .with_drop_path(drop_path);
    let adapted = config.with_modules_to_save(["head"]).init(vit.init(device)).unwrap();
    // Away from where half of the factors are zero and have no gradient to speak of.
    struct Shake;
    impl burn::module::ModuleMapper for Shake {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|value| {
                let noise = value.random_like(Distribution::Normal(0.0, 0.1));
                let trained = value.is_require_grad();
                (value + noise).detach().set_require_grad(trained)
            })
        }
    }
    adapted.map(&mut Shake)
}

/// Every gradient, by the order of parameters.
fn values(adapted: &Adapted<Vit>, grads: GradientsParams) -> Vec<Option<Vec<f32>>> {
    struct Values(GradientsParams, Vec<Option<Vec<f32>>>);
    impl ModuleVisitor for Values {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let grad = self.0.remove::<D>(param.id);
            self.1.push(grad.map(|grad| grad.into_data().try_to_vec().unwrap()));
        }
    }
    let mut values = Values(grads, Vec::new());
    adapted.visit(&mut values);
    values.1
}

fn distance(ours: &[Option<Vec<f32>>], theirs: &[Option<Vec<f32>>]) -> f32 {
    assert!(ours.iter().any(Option::is_some));
    let pairs = ours.iter().zip(theirs).filter_map(|(ours, theirs)| {
        assert_eq!(ours.is_some(), theirs.is_some());
        ours.as_ref().zip(theirs.as_ref())
    });
    pairs
        .map(|(ours, theirs)| {
            let greatest = |values: &mut dyn Iterator<Item = f32>| values.map(f32::abs).fold(0.0, f32::max);
            let scale = greatest(&mut theirs.iter().copied());
            greatest(&mut ours.iter().zip(theirs).map(|(a, b)| a - b)) / scale.max(1e-6)
        })
        .fold(0.0, f32::max)
}

/// Loss and gradients of a batch, its blocks computed again or not.
fn step(adapted: &Adapted<Vit>, batch: Batch, checkpointing: bool) -> (Part, GradientsParams) {
    let objective = CrossEntropy { checkpointing };
    let terms = objective.terms(&batch) as f64;
    objective.loss_and_grads(adapted, batch, terms, 0)
}

/// One test: the random numbers of a device are one stream.
#[test]
fn blocks_computed_again_give_the_same_gradients() {
    let device = Device::flex().autodiff();
    device.seed(1);
    let pixels = Tensor::<4>::random([3, 3, 16, 16], Distribution::Normal(0.0, 1.0), &device).inner();
    let labels = Tensor::<1, Int>::from_ints([0, 3, 1], &device);
    let batch = |input: Input| Batch {
        input,
        labels: labels.clone(),
        shares: None,
        seed: 77,
    };
    let images = || batch(Input::Pixels(Tensor::from_inner(pixels.clone())));
    let wegeft = || AdapterConfig::wegeft(2).with_target_modules(["attn.proj"]);
    for config in [
        wegeft(),
        wegeft().with_layers_to_transform([2, 3]),
        wegeft().with_layers_to_transform([3]),
        AdapterConfig::lora(2).with_target_modules(["attn.proj", "mlp.fc1"]),
        AdapterConfig::vpt(2, true),
        AdapterConfig::vpt(2, false),
        AdapterConfig::houlsby(3),
        AdapterConfig::bitfit(),
        AdapterConfig::full(),
        AdapterConfig::linear_probing(),
    ] {
        for mean_pool in [false, true] {
            let name = format!("{:?}, mean pooling {mean_pool}", config.method);
            let adapted = adapted(config.clone(), mean_pool, 0.0, &device);
            let plain = step(&adapted, images(), false);
            let again = step(&adapted, images(), true);
            let worst = distance(&values(&adapted, again.1), &values(&adapted, plain.1));
            assert!(worst < 1e-4, "{name}: {worst:e}");
            let loss = |part: Part| part.loss.into_scalar::<f32>();
            assert!((loss(again.0) - loss(plain.0)).abs() < 1e-6, "{name}");
        }
    }

    // Stochastic depth drops the same branches both times; from tokens that have been through a block, too.
    let random = adapted(wegeft(), false, 0.5, &device);
    // Weights that are drawn at their first use are drawn now.
    let _ = random.bind().forward(Tensor::from_inner(pixels.clone()));
    let tokens = random.bind().tokens(Tensor::from_inner(pixels.clone()), 1).inner();
    for first in [0, 1] {
        let input = || match first {
            0 => images(),
            _ => batch(Input::Tokens(Tensor::from_inner(tokens.clone()), 1)),
        };
        let (_, again) = step(&random, input(), true);
        let bound = random.bind();
        let mut x = match input().input {
            Input::Tokens(tokens, _) => tokens,
            _ => bound.tokens(Tensor::from_inner(pixels.clone()), 0),
        };
        let seed = |block: usize| device.seed(77 + 1 + block as u64);
        for block in first..DEPTH - 1 {
            seed(block);
            x = bound.block(block, x);
        }
        seed(DEPTH - 1);
        let logits = bound.classify(bound.features_from(x, DEPTH - 1));
        let loss = burn::nn::loss::CrossEntropyLossConfig::new().init(&device);
        let grads = loss.forward(logits, labels.clone()).backward();
        let whole = GradientsParams::from_grads(grads, &random);
        let worst = distance(&values(&random, again), &values(&random, whole));
        assert!(worst < 1e-4, "from block {first}: {worst:e}");
    }
    heads_start_by_the_seed();
}

/// Another seed, another head; the same seed, the same one.
fn heads_start_by_the_seed() {
    let device = Device::flex();
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../crates/backbones/tests/fixtures/encoder/bert"
    );
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(format!("{folder}/config.json"), dir.path().join("config.json")).unwrap();
    let weights = "model.safetensors";
    let mut tensors = wegeft::storage::read_tensors(&Path::new(folder).join(weights)).unwrap();
    tensors.retain(|name, _| !name.contains("pooler") && !name.contains("classifier"));
    wegeft::storage::write_tensors(&dir.path().join(weights), &tensors).unwrap();
    let bare = dir.path().to_string_lossy();
    let pretrained = load_classifier(&bare, &ClassifierOptions::default(), &device).unwrap();
    let started = |seed: u64| {
        device.seed(seed);
        let model = pretrained.model.clone().with_fresh_head(&pretrained.fresh, &device);
        let ids = Tensor::<2, Int>::from_ints([[5, 6, 7]], &device);
        let logits = model.forward(ids, &Layout::dense(1, 3), None);
        logits.into_data().iter::<f32>().collect::<Vec<_>>()
    };
    assert_eq!(started(1), started(1));
    assert_ne!(started(1), started(2));
}
