//! Every method on a small model, on each CPU backend: same numbers by every route, only the trained part moves.

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor, Tolerance};
use proptest::prelude::*;
use wegeft::methods::Factors;
use wegeft::methods::bitfit::BitfitConfig;
use wegeft::methods::bottleneck::{BottleneckConfig, NonLinearity};
use wegeft::methods::lora::LoraConfig;
use wegeft::methods::lora_init::LoraInit;
use wegeft::methods::reft::{Positions, ReftConfig};
use wegeft::methods::vera::VeraConfig;
use wegeft::methods::vpt::VptConfig;
use wegeft::methods::wegeft::WegeftConfig;
use wegeft::{Adapted, AdapterConfig, AdapterError, Adapters, Fused, Hook, Method, Sharing, ZeroFactor, linear};

#[derive(Module, Debug)]
struct Block {
    input: Hook,
    norm: LayerNorm,
    proj: Linear,
    attn_out: Hook,
    up: Linear,
    down: Linear,
    mlp_out: Hook,
    output: Hook,
}

#[derive(Module, Debug)]
struct Net {
    blocks: Vec<Block>,
    head: Linear,
}

impl Net {
    fn new(d: usize, depth: usize, device: &Device) -> Self {
        let hook = || Hook::new(d, device);
        let block = |_| Block {
            input: hook(),
            norm: LayerNormConfig::new(d).init(device),
            proj: LinearConfig::new(d, d).init(device),
            attn_out: hook(),
            up: LinearConfig::new(d, 2 * d).init(device),
            down: LinearConfig::new(2 * d, d).init(device),
            mlp_out: hook(),
            output: hook(),
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
            x = block.input.forward(x);
            let h = block.attn_out.forward(call(&block.proj, block.norm.forward(x.clone())));
            let h = block.mlp_out.forward(call(&block.down, call(&block.up, h).tanh()));
            x = block.output.forward(x + h);
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
    .into_iter()
    .chain(lora_variants())
    .chain(vectors())
    .chain(on_hooks())
    .collect()
}

fn lora_variants() -> Vec<AdapterConfig> {
    let lora = || LoraConfig::new(2).with_alpha(3.0);
    let variants = [
        lora().with_rslora(true).with_loraplus_lr_ratio(16.0),
        lora().with_freeze_a(true),
        lora().with_init(LoraInit::Gaussian),
        lora().with_init(LoraInit::Pissa),
        lora().with_init(LoraInit::PissaNiter(4)),
        lora().with_init(LoraInit::Olora),
        lora().with_dora(true),
        lora().with_dora(true).with_init(LoraInit::Pissa),
    ];
    let targets = ["proj", "up", "down"];
    let lora = variants.map(|config| AdapterConfig::new(Method::Lora(config)).with_target_modules(targets));
    let vera = VeraConfig::new(5).with_d_initial(0.5);
    let vera = [
        vera.clone(),
        vera.with_projection_prng_key(7).with_save_projection(false),
    ];
    let vera = vera.map(|config| AdapterConfig::new(Method::Vera(config)).with_target_modules(targets));
    lora.into_iter().chain(vera).collect()
}

fn vectors() -> Vec<AdapterConfig> {
    vec![
        AdapterConfig::ia3(["down"]).with_target_modules(["proj", "up", "down"]),
        AdapterConfig::ia3([""; 0])
            .with_target_modules(["up"])
            .with_fused(Fused {
                module: "up".into(),
                blocks: vec!["gate".into(), "value".into()],
                widths: Vec::new(),
                adapt: vec!["value".into()],
            }),
        AdapterConfig::bitfit().with_modules_to_save(["head"]),
        AdapterConfig::new(Method::Bitfit(BitfitConfig::new().with_layer_norm(true)))
            .with_target_modules(["norm", "proj"]),
        AdapterConfig::layer_norm(),
    ]
}

fn on_hooks() -> Vec<AdapterConfig> {
    let ends = Positions::Ends { first: 1, last: 1 };
    let loreft = ReftConfig::loreft(3).with_position(ends);
    vec![
        AdapterConfig::new(Method::Reft(loreft.clone())),
        AdapterConfig::new(Method::Reft(loreft.with_share_weights(false))),
        AdapterConfig::new(Method::Reft(ReftConfig::direft(2).with_position(Positions::All))),
        AdapterConfig::direft(2),
        AdapterConfig::vpt(2, false),
        AdapterConfig::vpt(2, true),
        AdapterConfig::new(Method::Vpt(
            VptConfig::new(1, true).with_prefix_tokens(2).with_patch_size(8),
        )),
        AdapterConfig::houlsby(3),
        AdapterConfig::pfeiffer(3).with_modules_to_save(["head"]),
        AdapterConfig::new(Method::Bottleneck(
            BottleneckConfig::houlsby(2).with_non_linearity(NonLinearity::Relu),
        )),
    ]
}

/// How far a fresh adapter's output may be from the frozen model's: none for those that start at exactly nothing.
fn start_tolerance(config: &AdapterConfig) -> Option<f64> {
    match &config.method {
        Method::Reft(_) | Method::Vpt(_) | Method::Bottleneck(_) => None,
        Method::Lora(lora) if lora.init.reads_weight() => Some(1e-5),
        _ => Some(0.0),
    }
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
            let after = config.init(net.clone()).unwrap().bind().forward(x.clone(), true);
            match start_tolerance(&config) {
                None => {}
                Some(0.0) => assert_eq!(after.into_data(), before, "{config:?}"),
                Some(tolerance) => after
                    .into_data()
                    .assert_approx_eq::<f32>(&before, Tolerance::absolute(tolerance)),
            }
        }
    }
}

#[test]
fn bottleneck_adapters_start_near_the_frozen_model() {
    let device = Device::flex();
    let net = Net::new(8, 2, &device);
    let x = input(8, &device);
    for config in [AdapterConfig::houlsby(3), AdapterConfig::pfeiffer(3)] {
        let adapted = config.init(net.clone()).unwrap();
        close(
            adapted.bind().forward(x.clone(), true),
            net.forward(x.clone(), true),
            0.05,
        );
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
            match adapted.merge() {
                Ok(merged) => close(ours, merged.forward(x, false), 1e-4),
                Err(error) => assert!(matches!(error, AdapterError::NotMergeable { .. }), "{error}"),
            }
            assert_eq!(adapted.merge().is_ok(), config.method.merges(), "{config:?}");
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
            let frozen = adapted.bank().frozen();
            for param in wegeft::site::params(adapted.bank()) {
                let (a, b) = (gradient(&ours, &param), gradient(&dense, &param));
                assert_eq!(a.is_none(), frozen.contains(&param.id), "{}", param.path);
                if let (Some(a), Some(b)) = (a, b) {
                    assert!(distance(&a, &b) < 1e-4, "{config:?}: {}", param.path);
                }
            }
        }
    }
}

fn gradient(grads: &GradientsParams, param: &wegeft::site::ParamInfo) -> Option<Vec<f32>> {
    let data = match param.shape.len() {
        1 => grads.get::<1>(param.id).map(Tensor::into_data),
        _ => grads.get::<2>(param.id).map(Tensor::into_data),
    };
    data.map(|data| data.iter::<f32>().collect())
}

/// Euclidean.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let squares = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b));
    squares.sum::<f32>().sqrt()
}

#[test]
fn gradients_agree_with_finite_differences() {
    for device in devices() {
        for mut config in configs() {
            if let Method::Bottleneck(adapter) = &mut config.method {
                // A nudge may cross ReLU's kink, where no difference is the gradient.
                adapter.non_linearity = NonLinearity::Gelu;
            }
            let adapted = stir(config.init(Net::new(4, 2, &device)).unwrap(), 4, 2, &device);
            let x = input(4, &device);
            let loss = |adapted: &Adapted<Net>| adapted.bind().forward(x.clone(), true).powi_scalar(2).mean();
            let grads = GradientsParams::from_grads(loss(&adapted).backward(), &adapted);
            let dora = matches!(&config.method, Method::Lora(lora) if lora.use_dora);
            for param in wegeft::site::params(adapted.bank()) {
                // DoRA's norm is a constant to the backward pass, by design: only the magnitudes are compared.
                let Some(grad) = gradient(&grads, &param).filter(|_| !dora || param.shape.len() == 1) else {
                    continue;
                };
                let nudged = |index, by| {
                    let id = param.id;
                    loss(&adapted.clone().map(&mut Nudge { id, index, by })).into_scalar::<f32>()
                };
                let slope = |index, by: f32| (nudged(index, by) - nudged(index, -by)) / (2.0 * by);
                // Two steps, so that what bends like a cube cancels (Richardson).
                let numeric = |index| (4.0 * slope(index, 2.5e-3) - slope(index, 5e-3)) / 3.0;
                let numeric: Vec<f32> = (0..grad.len()).map(numeric).collect();
                let length = distance(&grad, &vec![0.0; grad.len()]);
                let apart = distance(&grad, &numeric);
                assert!(
                    apart < 1e-2 * length + 1e-4 * (grad.len() as f32).sqrt(),
                    "{config:?}, {}: {grad:?} against {numeric:?}",
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
                    Factors::Wegeft(w) if settings.zero_factor == ZeroFactor::Psi => w.psi.val(),
                    Factors::Wegeft(w) => w.phi.val(),
                    other => unreachable!("{other:?}"),
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
fn what_has_a_lora_form_exports_as_lora() {
    let device = Device::flex().autodiff();
    let net = Net::new(8, 2, &device);
    let x = input(8, &device);
    for config in configs() {
        let adapted = stir(config.init(net.clone()).unwrap(), 8, 3, &device);
        let folder = tempfile::tempdir().unwrap();
        let exported = adapted.export_lora(folder.path());
        assert_eq!(exported.is_ok(), config.method.has_lora_form(), "{config:?}");
        if exported.is_ok() {
            let lora = wegeft::read_config(folder.path()).unwrap();
            let lora = lora.init(net.clone()).unwrap().load(folder.path()).unwrap();
            let ours = adapted.bind().forward(x.clone(), true);
            close(ours, lora.bind().forward(x.clone(), true), 1e-4);
        }
    }
}

#[test]
fn lora_fa_saves_the_a_it_does_not_train() {
    let device = Device::flex().autodiff();
    let config = AdapterConfig::new(Method::Lora(LoraConfig::new(2).with_freeze_a(true))).with_target_modules(["proj"]);
    let fresh = config.init(Net::new(8, 1, &device)).unwrap();
    let a = |adapted: &Adapted<Net>| match &adapted.bank().factors[0] {
        Factors::Lora(lora) => lora.a.val().into_data(),
        other => unreachable!("{other:?}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let stirred = stir(fresh.clone(), 8, 2, &device);
    assert_eq!(a(&fresh), a(&stirred));
    assert_eq!(stirred.summary().adapter_params, 8 * 2);
    stirred.save(folder.path()).unwrap();
    let other = config.init(Net::new(8, 1, &device)).unwrap();
    assert_ne!(a(&other), a(&fresh));
    assert_eq!(a(&other.load(folder.path()).unwrap()), a(&fresh));
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
fn bad_settings_of_the_methods_are_named() {
    let device = Device::flex();
    let message = |config: AdapterConfig| config.init(Net::new(8, 2, &device)).unwrap_err().to_string();
    let lora = |config| message(AdapterConfig::new(Method::Lora(config)).with_target_modules(["proj"]));
    assert!(lora(LoraConfig::new(2).with_dropout(1.0)).contains("lora_dropout"));
    assert!(lora(LoraConfig::new(2).with_loraplus_lr_ratio(0.0)).contains("loraplus_lr_ratio"));
    assert!(lora(LoraConfig::new(2).with_alpha(0.0).with_init(LoraInit::Olora)).contains("lora_alpha"));
    assert!(message(AdapterConfig::lora(2)).contains("target_modules"));
    assert!(message(AdapterConfig::vera(0).with_target_modules(["proj"])).contains("'r'"));
    assert!(message(AdapterConfig::ia3(["down"]).with_target_modules(["proj"])).contains("feedforward_modules"));
    assert!(message(AdapterConfig::loreft(9)).contains("choose 1 to 8"));
    let none = ReftConfig::loreft(2).with_position(Positions::Ends { first: 0, last: 0 });
    assert!(message(AdapterConfig::new(Method::Reft(none))).contains("position"));
    assert!(message(AdapterConfig::vpt(0, true)).contains("num_virtual_tokens"));
    assert!(message(AdapterConfig::houlsby(0)).contains("bottleneck_size"));
    assert!(message(AdapterConfig::vpt(1, true).with_target_modules(["inputs"])).contains("blocks.*.input"));
    let broken = Net::new(8, 2, &device).map(&mut Break);
    let pissa = LoraConfig::new(2).with_init(LoraInit::Pissa);
    let pissa = AdapterConfig::new(Method::Lora(pissa)).with_target_modules(["proj"]);
    assert!(
        pissa
            .init(broken)
            .unwrap_err()
            .to_string()
            .contains("blocks.0.proj.weight")
    );
}

struct Break;

impl burn::module::ModuleMapper for Break {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.mul_scalar(f32::NAN))
    }
}

#[test]
fn methods_of_adapter_config_json() {
    let parsed = |text: &str| serde_json::from_str::<AdapterConfig>(text);
    let lora = parsed(r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "init_lora_weights": "pissa_niter_16"}"#);
    let Method::Lora(lora) = lora.unwrap().method else {
        panic!("not LoRA")
    };
    assert_eq!(lora.init, LoraInit::PissaNiter(16));
    let error = parsed(r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "init_lora_weights": "eva"}"#).unwrap_err();
    assert!(error.to_string().contains("init_lora_weights"), "{error}");
    let reft = |position: &str| {
        parsed(&format!(
            r#"{{"peft_type": "REFT", "r": 4, "intervention": "loreft", "position": "{position}", "share_weights": true}}"#
        ))
    };
    let Method::Reft(f5) = reft("f5").unwrap().method else {
        panic!("not ReFT")
    };
    assert_eq!(f5.position, Positions::Ends { first: 5, last: 0 });
    assert!(reft("middle").unwrap_err().to_string().contains("position"));
}

#[test]
fn summary_counts_what_the_formulas_say() {
    let device = Device::flex();
    for config in configs() {
        let adapted = config.init(Net::new(8, 2, &device)).unwrap();
        let groups = adapted.bank().groups().iter();
        let sites: Vec<_> = groups.flat_map(|group| group.sites.clone()).collect();
        let counted = adapted.summary().adapter_params;
        if config.method != Method::Full {
            assert_eq!(counted, config.method.params_of(&sites).unwrap(), "{config:?}");
        }
    }
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

#[test]
fn a_mixed_batch_takes_the_methods_that_say_so() {
    let device = Device::flex().autodiff();
    for config in configs() {
        let mut adapters = Adapters::new(Net::new(8, 2, &device));
        adapters.add("own", &config).unwrap();
        let taken = adapters.bind_rows(&["own", "own"]).is_ok();
        assert_eq!(taken, config.method.mixes(), "{config:?}");
    }
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
