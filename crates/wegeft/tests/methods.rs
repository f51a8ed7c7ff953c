//! Every method on a small model, on each CPU backend: same numbers by every route, only the trained part moves.

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor, Tolerance};
use proptest::prelude::*;
use wegeft::methods::wegeft::WegeftConfig;
use wegeft::{Adapted, AdapterConfig, AdapterError, Method, Sharing, ZeroFactor, linear};

#[derive(Module, Debug)]
struct Block {
    norm: LayerNorm,
    proj: Linear,
    up: Linear,
    down: Linear,
}

#[derive(Module, Debug)]
struct Net {
    blocks: Vec<Block>,
    head: Linear,
}

impl Net {
    fn new(d: usize, depth: usize, device: &Device) -> Self {
        let block = |_| Block {
            norm: LayerNormConfig::new(d).init(device),
            proj: LinearConfig::new(d, d).init(device),
            up: LinearConfig::new(d, 2 * d).init(device),
            down: LinearConfig::new(2 * d, d).init(device),
        };
        Self {
            blocks: (0..depth).map(block).collect(),
            head: LinearConfig::new(d, 3).init(device),
        }
    }

    /// With `ours`, in activation space; without, as a model that knows nothing of adapters.
    fn forward(&self, mut x: Tensor<3>, ours: bool) -> Tensor<3> {
        let call = |layer: &Linear, x: Tensor<3>| if ours { linear(layer, x) } else { layer.forward(x) };
        for block in &self.blocks {
            let h = call(&block.proj, block.norm.forward(x.clone()));
            x = x + call(&block.down, call(&block.up, h).tanh());
        }
        call(&self.head, x)
    }
}

#[allow(deprecated)] // upstream deprecates ndarray; the project keeps it as a feature
fn devices() -> [Device; 2] {
    [Device::flex().autodiff(), Device::ndarray().autodiff()]
}

fn input(d: usize, device: &Device) -> Tensor<3> {
    Tensor::random([2, 3, d], Distribution::Normal(0.0, 1.0), device)
}

fn configs() -> Vec<AdapterConfig> {
    let targets = ["proj", "up", "down"];
    let wegeft = |sharing, zero| {
        AdapterConfig::new(Method::Wegeft(
            WegeftConfig::new(2)
                .with_alpha(3.0)
                .with_sharing(sharing)
                .with_zero_factor(zero),
        ))
    };
    vec![
        wegeft(Sharing::Kind, ZeroFactor::Psi).with_target_modules(targets),
        wegeft(Sharing::Site, ZeroFactor::Phi).with_target_modules(targets),
        wegeft(Sharing::All, ZeroFactor::Phi)
            .with_target_modules(["proj", "up"])
            .with_modules_to_save(["head"]),
        AdapterConfig::lora(2)
            .with_target_modules(targets)
            .with_modules_to_save(["head"]),
        AdapterConfig::new(Method::Linear).with_modules_to_save(["head"]),
        AdapterConfig::new(Method::Full),
    ]
}

/// Moves every trained value off its starting point, so that no factor is zero.
fn stir(adapted: Adapted<Net>, d: usize, steps: usize, device: &Device) -> Adapted<Net> {
    let mut optim = AdamWConfig::new().init();
    let mut adapted = adapted;
    for _ in 0..steps {
        let loss = adapted.bind().forward(input(d, device), true).powi_scalar(2).mean();
        let grads = GradientsParams::from_grads(loss.backward(), &adapted);
        adapted = optim.step(0.05, adapted, grads);
    }
    adapted
}

fn close<const D: usize>(a: Tensor<D>, b: Tensor<D>, tolerance: f64) {
    a.into_data()
        .assert_approx_eq::<f32>(&b.into_data(), Tolerance::absolute(tolerance));
}

#[test]
fn a_fresh_adapter_is_exactly_the_frozen_model() {
    for device in devices() {
        let net = Net::new(8, 2, &device);
        let x = input(8, &device);
        let before = net.forward(x.clone(), true).into_data();
        for config in configs() {
            let adapted = config.init(net.clone()).unwrap();
            assert_eq!(
                adapted.bind().forward(x.clone(), true).into_data(),
                before,
                "{config:?}"
            );
        }
    }
}

#[test]
fn activation_space_weight_space_and_merged_agree() {
    for device in devices() {
        for config in configs() {
            let adapted = stir(config.init(Net::new(8, 2, &device)).unwrap(), 8, 3, &device);
            let x = input(8, &device);
            let ours = adapted.bind().forward(x.clone(), true);
            close(ours.clone(), adapted.bind().forward(x.clone(), false), 1e-4);
            close(ours, adapted.merge().unwrap().forward(x, false), 1e-4);
        }
    }
}

#[test]
fn gradients_agree_with_the_weight_space_route() {
    for device in devices() {
        for config in configs() {
            let adapted = stir(config.init(Net::new(8, 2, &device)).unwrap(), 8, 2, &device);
            let x = input(8, &device);
            let grads = |ours| {
                let loss = adapted.bind().forward(x.clone(), ours).powi_scalar(2).mean();
                GradientsParams::from_grads(loss.backward(), &adapted)
            };
            let (ours, dense) = (grads(true), grads(false));
            for param in wegeft::site::params(adapted.bank()) {
                let (a, b) = (ours.get::<2>(param.id).unwrap(), dense.get::<2>(param.id).unwrap());
                close(a, b, 1e-4);
            }
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    for device in devices() {
        let config = AdapterConfig::wegeft(2).with_target_modules(["proj"]);
        let adapted = stir(config.init(Net::new(4, 2, &device)).unwrap(), 4, 2, &device);
        let x = input(4, &device);
        let loss = |adapted: &Adapted<Net>| adapted.bind().forward(x.clone(), true).powi_scalar(2).mean();
        let grads = GradientsParams::from_grads(loss(&adapted).backward(), &adapted);
        for param in wegeft::site::params(adapted.bank()) {
            let grad = grads
                .get::<2>(param.id)
                .unwrap()
                .into_data()
                .iter::<f32>()
                .collect::<Vec<_>>();
            for (index, grad) in grad.iter().enumerate() {
                let nudged = |by: f32| {
                    let nudged = adapted.clone().map(&mut Nudge {
                        id: param.id,
                        index,
                        by,
                    });
                    loss(&nudged).into_scalar::<f32>()
                };
                let numeric = (nudged(1e-2) - nudged(-1e-2)) / 2e-2;
                assert!(
                    (numeric - grad).abs() < 2e-2 * (1.0 + grad.abs()),
                    "{}[{index}]: {grad} against {numeric}",
                    param.path
                );
            }
        }
    }
}

struct Nudge {
    id: burn::module::ParamId,
    index: usize,
    by: f32,
}

impl burn::module::ModuleMapper for Nudge {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if param.id != self.id {
            return param;
        }
        param.map(|tensor| {
            let (device, shape) = (tensor.device(), tensor.dims());
            let mut values: Vec<f32> = tensor.into_data().iter::<f32>().collect();
            values[self.index] += self.by;
            Tensor::<1>::from_floats(values.as_slice(), &device)
                .reshape(shape)
                .require_grad()
        })
    }
}

#[test]
fn a_step_moves_the_trained_part_only_and_shared_factors_once() {
    for device in devices() {
        for config in configs() {
            let adapted = config.init(Net::new(8, 3, &device)).unwrap();
            let trained: Vec<_> = adapted.saved_params().iter().map(|p| p.id).collect();
            let before = adapted.model().clone().into_record().into_bytes().unwrap();
            let after = stir(adapted.clone(), 8, 1, &device);
            let frozen_same = before[..] == after.model().clone().into_record().into_bytes().unwrap()[..];
            assert_eq!(frozen_same, trained.is_empty(), "{config:?}");
            if let Method::Wegeft(settings) = &config.method {
                // AdamW's first step is lr·sign(gradient): a second update of a shared factor would double it.
                let zero: Tensor<2> = match &after.bank().factors[0] {
                    wegeft::methods::Factors::Wegeft(w) if settings.zero_factor == ZeroFactor::Psi => w.psi.val(),
                    wegeft::methods::Factors::Wegeft(w) => w.phi.val(),
                    wegeft::methods::Factors::Lora(_) => unreachable!(),
                };
                let greatest = zero.abs().max().into_scalar::<f32>();
                assert!((0.01..0.0501).contains(&greatest), "{greatest}");
            }
        }
    }
}

#[test]
fn save_load_and_record_give_the_same_bits() {
    let device = Device::flex().autodiff();
    for config in configs() {
        let net = Net::new(8, 2, &device);
        let adapted = stir(config.init(net.clone()).unwrap(), 8, 2, &device);
        let x = input(8, &device);
        let expected = adapted.bind().forward(x.clone(), true).into_data();
        let folder = tempfile::tempdir().unwrap();
        adapted.save(folder.path()).unwrap();
        let read = wegeft::read_config(folder.path()).unwrap();
        assert_eq!(read, config);
        let loaded = read.init(net.clone()).unwrap().load(folder.path()).unwrap();
        assert_eq!(loaded.bind().forward(x.clone(), true).into_data(), expected);
        let from_record = config.init(net).unwrap().load_record(adapted.clone().into_record());
        assert_eq!(from_record.bind().forward(x, true).into_data(), expected);
    }
}

#[test]
fn a_wegeft_adapter_exports_as_lora() {
    let device = Device::flex().autodiff();
    let net = Net::new(8, 2, &device);
    let adapted = stir(configs()[0].init(net.clone()).unwrap(), 8, 3, &device);
    let folder = tempfile::tempdir().unwrap();
    adapted.export_lora(folder.path()).unwrap();
    let lora = wegeft::read_config(folder.path())
        .unwrap()
        .init(net)
        .unwrap()
        .load(folder.path())
        .unwrap();
    let x = input(8, &device);
    close(
        adapted.bind().forward(x.clone(), true),
        lora.bind().forward(x, true),
        1e-5,
    );
}

#[test]
fn loading_names_every_mismatch() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let config = |r| AdapterConfig::wegeft(r).with_target_modules(["proj"]);
    config(2)
        .init(Net::new(8, 2, &device))
        .unwrap()
        .save(folder.path())
        .unwrap();
    let error = config(3)
        .with_target_modules(["proj", "up"])
        .init(Net::new(8, 2, &device))
        .unwrap();
    let message = error.load(folder.path()).unwrap_err().to_string();
    for part in [
        "proj.wegeft_phi.weight' has shape [2, 8], expected [3, 8]",
        "missing",
        "up.wegeft_psi",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn truncated_and_foreign_files_are_errors() {
    let device = Device::flex();
    let net = Net::new(8, 1, &device);
    let folder = tempfile::tempdir().unwrap();
    let config = AdapterConfig::lora(2).with_target_modules(["proj"]);
    config.init(net.clone()).unwrap().save(folder.path()).unwrap();
    let weights = folder.path().join(wegeft::storage::WEIGHTS_FILE);
    let whole = std::fs::read(&weights).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(&weights, &whole[..cut]).unwrap();
        assert!(matches!(
            config.init(net.clone()).unwrap().load(folder.path()),
            Err(AdapterError::File { .. })
        ));
    }
    std::fs::write(
        folder.path().join(wegeft::storage::CONFIG_FILE),
        "{\"peft_type\": \"MAGIC\"}",
    )
    .unwrap();
    let message = wegeft::read_config(folder.path()).unwrap_err().to_string();
    assert!(
        message.contains("MAGIC") && message.contains("adapter_config.json"),
        "{message}"
    );
}

#[test]
fn bad_configs_are_named() {
    let device = Device::flex();
    let message = |config: AdapterConfig| config.init(Net::new(8, 2, &device)).unwrap_err().to_string();
    let wegeft = |r| AdapterConfig::wegeft(r);
    assert!(message(wegeft(2).with_target_modules(["proi"])).contains("'proi' matches nothing"));
    assert!(message(wegeft(2).with_target_modules(["proi"])).contains("blocks.*.proj"));
    assert!(message(wegeft(2).with_target_modules(["norm"])).contains("rank-2"));
    assert!(message(wegeft(9).with_target_modules(["proj"])).contains("choose 1 to 8"));
    assert!(message(wegeft(0).with_target_modules(["proj"])).contains("r = 0"));
    assert!(message(wegeft(2).with_target_regex("(")).contains("regular expression"));
    assert!(
        message(
            wegeft(2)
                .with_target_modules(["proj"])
                .with_modules_to_save(["classifier"])
        )
        .contains("'classifier'")
    );
    let all = AdapterConfig::new(Method::Wegeft(WegeftConfig::new(2).with_sharing(Sharing::All)));
    assert!(message(all.with_target_modules(["proj", "down"])).contains("d_in 16"));
    let groups = Sharing::Groups(vec!["proj".into()]);
    let never = AdapterConfig::new(Method::Wegeft(WegeftConfig::new(2).with_sharing(groups)));
    assert!(message(never.with_target_modules(["proj"])).contains("in none of the groups"));
}

#[test]
fn targets_follow_peft() {
    let device = Device::flex();
    let sites = |config: AdapterConfig| -> Vec<String> {
        let adapted = config.init(Net::new(8, 3, &device)).unwrap();
        adapted
            .bank()
            .groups()
            .iter()
            .flat_map(|g| g.sites.iter().map(|s| s.path.clone()))
            .collect()
    };
    let proj = || AdapterConfig::lora(1).with_target_modules(["proj"]);
    assert_eq!(sites(proj()).len(), 3);
    assert_eq!(sites(proj().with_layers_to_transform([1])), ["blocks.1.proj.weight"]);
    assert_eq!(sites(proj().with_exclude_modules(["blocks.0.proj"])).len(), 2);
    assert_eq!(
        sites(AdapterConfig::lora(1).with_target_regex(r"blocks\.[02]\.(up|down)")).len(),
        4
    );
}

#[test]
fn summary_counts() {
    let device = Device::flex();
    let summary = AdapterConfig::wegeft(2)
        .with_target_modules(["proj", "up"])
        .with_modules_to_save(["head"])
        .init(Net::new(8, 3, &device))
        .unwrap()
        .summary();
    assert_eq!(summary.adapter_params, 2 * (2 * 8 * 2));
    assert_eq!(summary.saved_params, 8 * 3 + 3);
    assert_eq!(summary.groups.len(), 2);
    assert_eq!(summary.groups[0].sites.len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_shape_rank_and_grouping(d in 1usize..12, depth in 1usize..4, r in 1usize..12, sharing in 0usize..3, lora: bool) {
        let device = Device::flex().autodiff();
        let r = r.min(d);
        let sharing = [Sharing::Kind, Sharing::All, Sharing::Site][sharing].clone();
        let config = if lora { AdapterConfig::lora(r) } else {
            AdapterConfig::new(Method::Wegeft(WegeftConfig::new(r).with_sharing(sharing)))
        };
        let config = config.with_target_modules(["proj", "up"]);
        let adapted = stir(config.init(Net::new(d, depth, &device)).unwrap(), d, 2, &device);
        let x = input(d, &device);
        close(adapted.bind().forward(x.clone(), true), adapted.merge().unwrap().forward(x, false), 1e-3);
    }
}
