//! WeGeFT in all its forms: sides, dropouts, generators, fused weights, patterns.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor, Tolerance};
use wegeft::methods::generator::{BlockKind, BlockNorm, ClusterActivation, GeneratorConfig};
use wegeft::methods::wegeft::WegeftConfig;
use wegeft::{Adapted, AdapterConfig, Fused, Sharing, Side, ZeroFactor, linear, linear_many};

const D: usize = 6;

#[derive(Module, Debug)]
struct Attn {
    qkv: Linear,
    proj: Linear,
}

#[derive(Module, Debug)]
struct Net {
    blocks: Vec<Attn>,
}

impl Net {
    fn new(device: &Device) -> Self {
        let block = |_| Attn {
            qkv: LinearConfig::new(D, 3 * D).init(device),
            proj: LinearConfig::new(D, D).init(device),
        };
        Self {
            blocks: (0..2).map(block).collect(),
        }
    }

    fn forward(&self, mut x: Tensor<3>, ours: bool) -> Tensor<3> {
        let call = |layer: &Linear, x: Tensor<3>| if ours { linear(layer, x) } else { layer.forward(x) };
        for block in &self.blocks {
            let qkv = call(&block.qkv, x.clone());
            let part = |i| qkv.clone().narrow(2, i * D, D);
            x = x + call(&block.proj, part(0).tanh() * part(1) + part(2));
        }
        x
    }
}

fn input(device: &Device) -> Tensor<3> {
    Tensor::random([2, 3, D], Distribution::Normal(0.0, 1.0), device)
}

fn adapter(config: WegeftConfig) -> AdapterConfig {
    AdapterConfig::new(config).with_target_modules(["qkv", "proj"])
}

fn generator(block: BlockKind) -> WegeftConfig {
    WegeftConfig::new(3).with_generator(GeneratorConfig::new(block))
}

const BLOCKS: [BlockKind; 7] = [
    BlockKind::Sigmoid,
    BlockKind::Gelu,
    BlockKind::Mlp,
    BlockKind::MlpMixer,
    BlockKind::Transformer,
    BlockKind::Paca,
    BlockKind::PacaAttention,
];

/// Every form that WeGeFT has.
fn forms() -> Vec<AdapterConfig> {
    let deep = GeneratorConfig {
        block: BlockKind::Paca,
        depth: 2,
        norm: BlockNorm::Layer,
        clusters: 4,
        cluster_activation: ClusterActivation::Softmax,
    };
    let one_for_qkv = Sharing::Groups(vec![".*qkv".into(), ".*proj".into()]);
    let mut forms = vec![
        adapter(WegeftConfig::new(2).with_side(Side::Output)),
        adapter(
            WegeftConfig::new(2)
                .with_side(Side::Output)
                .with_zero_factor(ZeroFactor::Phi)
                .with_sharing(Sharing::Site),
        ),
        adapter(WegeftConfig::new(2)).with_fused(Fused::qkv("qkv", ["q", "v"])),
        adapter(WegeftConfig::new(2).with_sharing(Sharing::All)).with_fused(Fused::qkv("qkv", ["v"])),
        adapter(generator(BlockKind::Mlp)).with_fused(Fused::qkv("qkv", ["k", "q"])),
        adapter(WegeftConfig::new(3).with_generator(deep)),
        adapter(WegeftConfig::new(2).with_sharing(one_for_qkv)).with_fused(Fused::qkv("qkv", ["q", "k", "v"])),
    ];
    forms.extend(BLOCKS.map(|block| adapter(generator(block))));
    let mut patterned = WegeftConfig::new(2);
    patterned.patterns.rank_pattern.insert("proj".into(), 4);
    patterned.patterns.alpha_pattern.insert(r"blocks\.\d\.qkv".into(), 5.0);
    forms.push(adapter(patterned));
    forms
}

fn stir(mut adapted: Adapted<Net>, steps: usize, device: &Device) -> Adapted<Net> {
    let mut optim = AdamWConfig::new().init();
    for _ in 0..steps {
        let loss = adapted.bind().forward(input(device), true).powi_scalar(2).mean();
        let grads = GradientsParams::from_grads(loss.backward(), &adapted);
        adapted = optim.step(0.05, adapted, grads);
    }
    adapted
}

fn close<const N: usize>(a: Tensor<N>, b: Tensor<N>, tolerance: f64) {
    a.into_data()
        .assert_approx_eq::<f32>(&b.into_data(), Tolerance::absolute(tolerance));
}

#[allow(deprecated)] // upstream deprecates ndarray; the project keeps it as a feature
fn devices() -> [Device; 2] {
    [Device::flex().autodiff(), Device::ndarray().autodiff()]
}

#[test]
fn every_form_starts_as_the_frozen_model() {
    for device in devices() {
        let net = Net::new(&device);
        let x = input(&device);
        for config in forms() {
            let adapted = config.init(net.clone()).unwrap();
            close(
                adapted.bind().forward(x.clone(), true),
                net.forward(x.clone(), true),
                1e-6,
            );
        }
    }
}

#[test]
fn every_form_agrees_with_the_weight_space_route_in_outputs_and_gradients() {
    for device in devices() {
        for config in forms() {
            let adapted = stir(config.init(Net::new(&device)).unwrap(), 2, &device);
            let x = input(&device);
            let run = |ours| {
                let out = adapted.bind().forward(x.clone(), ours);
                let grads = out.clone().powi_scalar(2).mean().backward();
                (out, GradientsParams::from_grads(grads, &adapted))
            };
            let ((ours, our_grads), (dense, dense_grads)) = (run(true), run(false));
            close(ours.clone(), dense, 1e-4);
            close(ours, adapted.merge().unwrap().forward(x.clone(), false), 1e-4);
            for param in wegeft::site::params(adapted.bank()) {
                if param.shape.len() == 2 {
                    let ours = our_grads.get::<2>(param.id).unwrap();
                    close(ours, dense_grads.get::<2>(param.id).unwrap(), 1e-4);
                }
            }
        }
    }
}

#[test]
fn every_form_survives_saving_and_exports_as_lora() {
    let device = Device::flex().autodiff();
    for config in forms() {
        let net = Net::new(&device);
        let adapted = stir(config.init(net.clone()).unwrap(), 2, &device);
        let x = input(&device);
        let expected = adapted.bind().forward(x.clone(), true);
        let folder = tempfile::tempdir().unwrap();
        adapted.save(folder.path()).unwrap();
        let read = wegeft::read_config(folder.path()).unwrap();
        assert_eq!(read, config);
        let loaded = read.init(net.clone()).unwrap().load_weights(folder.path()).unwrap();
        assert_eq!(
            loaded.bind().forward(x.clone(), true).into_data(),
            expected.clone().into_data()
        );
        adapted.export_lora(folder.path()).unwrap();
        let lora = wegeft::read_config(folder.path()).unwrap().init(net).unwrap();
        let lora = lora.load_weights(folder.path()).unwrap();
        close(lora.bind().forward(x, true), expected, 1e-5);
    }
}

#[test]
fn generators_have_the_published_parameter_counts() {
    #[derive(Module, Debug)]
    struct Proj {
        proj: Linear,
    }
    let device = Device::flex();
    let counts = [0, 0, 1_072, 100_208, 2_160, 3_248, 2_176];
    for (block, extra) in BLOCKS.into_iter().zip(counts) {
        let config = WegeftConfig::new(16).with_generator(GeneratorConfig::new(block));
        let model = Proj {
            proj: LinearConfig::new(768, 768).init(&device),
        };
        let adapted = AdapterConfig::new(config).with_target_modules(["proj"]).init(model);
        assert_eq!(adapted.unwrap().summary().adapter_params, 24_576 + extra, "{block:?}");
    }
}

#[test]
fn only_the_chosen_blocks_of_a_fused_weight_change() {
    let device = Device::flex().autodiff();
    let config = adapter(WegeftConfig::new(2)).with_fused(Fused::qkv("qkv", ["q", "v"]));
    let adapted = stir(config.init(Net::new(&device)).unwrap(), 2, &device);
    let names: Vec<_> = adapted
        .bank()
        .groups()
        .iter()
        .map(|group| group.name.as_str())
        .collect();
    assert_eq!(names, ["blocks.*.qkv.q", "blocks.*.qkv.v", "blocks.*.proj"]);
    let (before, after) = (&adapted.backbone().blocks[0], adapted.merge().unwrap());
    let change = (after.blocks[0].qkv.weight.val() - before.qkv.weight.val()).abs();
    let of = |i: usize| change.clone().narrow(1, i * D, D).max().into_scalar::<f32>();
    assert!(of(0) > 1e-3 && of(1) == 0.0 && of(2) > 1e-3);
}

#[test]
fn dropout_acts_in_training_only() {
    let device = Device::flex().autodiff();
    for config in [
        WegeftConfig::new(2).with_weight_dropout(0.5),
        WegeftConfig::new(2).with_dropout(0.5),
        WegeftConfig::new(2).with_dropout(0.5).with_side(Side::Output),
    ] {
        let plain = WegeftConfig::new(2).with_side(config.side);
        let adapted = stir(adapter(config).init(Net::new(&device)).unwrap(), 3, &device);
        let x = input(&device);
        let twice = [0, 1].map(|_| adapted.bind().forward(x.clone(), true).into_data());
        assert_ne!(twice[0], twice[1]);
        let folder = tempfile::tempdir().unwrap();
        adapted.save(folder.path()).unwrap();
        let without = adapter(plain)
            .init(adapted.backbone().clone())
            .unwrap()
            .load_weights(folder.path())
            .unwrap();
        let evaluated = |adapted: &Adapted<Net>| adapted.valid().bind().forward(x.clone().inner(), true);
        close(evaluated(&adapted), evaluated(&without), 1e-5);
        close(
            evaluated(&adapted),
            adapted.merge().unwrap().valid().forward(x.clone().inner(), true),
            1e-5,
        );
    }
}

#[test]
fn layers_of_one_generator_share_one_edit() {
    let device = Device::flex().autodiff();
    let config = adapter(WegeftConfig::new(2).with_sharing(Sharing::All));
    let adapted = stir(config.init(Net::new(&device)).unwrap(), 2, &device);
    let bound = adapted.bind();
    let x = input(&device);
    let layers = [&bound.blocks[0].qkv, &bound.blocks[1].proj];
    let together = linear_many(layers, x.clone());
    for (layer, out) in layers.into_iter().zip(together) {
        close(out, linear(layer, x.clone()), 1e-6);
    }
    // An adapted layer beside a frozen one keeps to its own.
    let frozen = &adapted.backbone().blocks[0].qkv;
    let [a, b] = linear_many([&bound.blocks[0].qkv, frozen], x.clone());
    close(a, linear(&bound.blocks[0].qkv, x.clone()), 1e-6);
    close(b, frozen.forward(x), 1e-6);
}

#[test]
fn patterns_set_rank_and_alpha() {
    let device = Device::flex();
    let mut config = WegeftConfig::new(2);
    config.patterns.rank_pattern.insert("proj".into(), 4);
    config.patterns.alpha_pattern.insert(r"blocks\.\d\.qkv".into(), 5.0);
    let adapted = adapter(config).init(Net::new(&device)).unwrap();
    let found: Vec<_> = adapted
        .bank()
        .factors
        .iter()
        .zip(adapted.bank().groups())
        .map(|(factors, group)| (factors.matrix("phi").dims(), group.scale))
        .collect();
    assert_eq!(found, [([D, 2], 2.5), ([D, 4], 0.5)]);
}

#[test]
fn combinations_without_a_meaning_are_refused() {
    let device = Device::flex();
    let message = |config: AdapterConfig| config.init(Net::new(&device)).unwrap_err().to_string();
    let output = || WegeftConfig::new(2).with_side(Side::Output);
    let mut unknown = WegeftConfig::new(2);
    unknown.patterns.rank_pattern.insert("fc1".into(), 4);
    let mut mixed = WegeftConfig::new(2);
    mixed.patterns.rank_pattern.insert("blocks.0.proj".into(), 4);
    let fused = |blocks: &[&str], widths: &[usize], adapt: &[&str]| {
        let own = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        adapter(WegeftConfig::new(2)).with_fused(Fused {
            module: "qkv".into(),
            blocks: own(blocks),
            widths: widths.to_vec(),
            adapt: own(adapt),
        })
    };
    for (config, part) in [
        (adapter(output().with_weight_dropout(0.1)), "weight_dropout"),
        (
            adapter(output().with_generator(GeneratorConfig::new(BlockKind::Mlp))),
            "generator",
        ),
        (
            adapter(generator(BlockKind::Mlp).with_zero_factor(ZeroFactor::Phi)),
            "zero_factor",
        ),
        (adapter(WegeftConfig::new(2).with_dropout(1.0)), "dropout"),
        (adapter(WegeftConfig::new(2).with_alpha(f64::NAN)), "alpha"),
        (adapter(output().with_sharing(Sharing::All)), "d_out = 18"),
        (
            adapter(generator(BlockKind::MlpMixer).with_sharing(Sharing::All)),
            "d_out",
        ),
        (adapter(unknown), "'fc1' matches none"),
        (adapter(mixed), "r = 4"),
        (
            fused(&["q", "k", "v", "o"], &[], &["q"]),
            "18 columns cannot be split into 4 equal blocks",
        ),
        (fused(&["q", "kv"], &[6, 6], &["q"]), "widths [6, 6]"),
        (fused(&["q", "k", "v"], &[], &["x"]), "no block 'x'"),
    ] {
        let message = message(config);
        assert!(message.contains(part), "{message} has no {part}");
    }
}
