//! Sites beyond linear layers: embeddings, convolutions, experts, token rows, tied and recurrent weights; adapters as bytes
//! and under other names.

use burn::module::{Initializer, Module, Param};
use burn::nn::conv::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Int, Tensor, Tolerance};
use serde_json::json;
use wegeft::methods::lora_init::LoraInit;
use wegeft::storage::{WEIGHTS_FILE, read_tensors};
use wegeft::{
    AdaLoraConfig, Adapted, AdapterConfig, AdapterError, AdapterFiles, Adapters, LoraConfig, RankAllocator, Side,
    SiteKind, TokenIndices, TrainableTokensConfig, VeraConfig, WegeftConfig, ZeroFactor, embedding,
};

fn close<const N: usize>(a: Tensor<N>, b: Tensor<N>, tolerance: f64) {
    a.into_data()
        .assert_approx_eq::<f32>(&b.into_data(), Tolerance::absolute(tolerance));
}

fn message<T: std::fmt::Debug>(result: Result<T, AdapterError>) -> String {
    result.unwrap_err().to_string()
}

/// Some steps of `loss` away from the start, so that no factor is zero.
fn stirred<M>(mut adapted: Adapted<M>, loss: impl Fn(&M) -> Tensor<1>) -> Adapted<M>
where
    M: Module + burn::module::ModuleDisplay,
{
    let mut optim = AdamWConfig::new().init();
    for _ in 0..3 {
        let grads = GradientsParams::from_grads(loss(&adapted.bind()).backward(), &adapted);
        assert_eq!(
            grads.len(),
            adapted.bank().specs().filter(|(_, spec)| spec.trained).count()
        );
        adapted = optim.step(0.05, adapted, grads);
    }
    adapted
}

/// Saved and loaded, and merged, the adapter is the same function; the keys on disk are `keys`.
fn survives<M>(adapted: &Adapted<M>, backbone: M, keys: &[&str], forward: impl Fn(&M) -> Tensor<2>)
where
    M: Module + burn::module::ModuleDisplay,
{
    let folder = tempfile::tempdir().unwrap();
    adapted.save(folder.path()).unwrap();
    let stored = read_tensors(&folder.path().join(WEIGHTS_FILE)).unwrap();
    let stored: Vec<&str> = stored.keys().map(String::as_str).collect();
    assert_eq!(stored, keys);
    let expected = forward(&adapted.bind());
    let loaded = Adapted::load(backbone.clone(), folder.path()).unwrap();
    close(forward(&loaded.bind()), expected.clone(), 0.0);
    close(forward(&adapted.merge().unwrap()), expected.clone(), 1e-4);
    assert!((forward(&backbone) - expected).abs().max().into_scalar::<f32>() > 1e-3);
}

const VOCAB: usize = 11;
const D: usize = 6;

#[derive(Module, Debug)]
struct Words {
    embed: Embedding,
    head: Linear,
}

impl Words {
    fn new(device: &Device) -> Self {
        Self {
            embed: EmbeddingConfig::new(VOCAB, D).init(device),
            head: LinearConfig::new(D, 3).init(device),
        }
    }

    fn forward(&self, ids: Tensor<2, Int>, ours: bool) -> Tensor<2> {
        let x = if ours {
            embedding(&self.embed, ids)
        } else {
            self.embed.forward(ids)
        };
        let [batch, tokens, d] = x.dims();
        self.head.forward(x.reshape([batch * tokens, d]))
    }
}

fn ids(device: &Device) -> Tensor<2, Int> {
    Tensor::<1, Int>::from_ints([1, 4, 4, 0, 10, 7, 1, 3], device).reshape([2, 4])
}

#[test]
fn an_embedding_looks_up_rows_with_every_method_that_takes_one() {
    let device = Device::flex().autodiff();
    let on = |config: AdapterConfig| config.with_target_modules(["embed"]);
    let lora = on(AdapterConfig::lora(2));
    let output = WegeftConfig::new(2).with_side(Side::Output);
    let (wegeft, vera) = (on(AdapterConfig::wegeft(2)), on(AdapterConfig::vera(2)));
    let (ia3, tokens) = (on(AdapterConfig::ia3([""; 0])), on(AdapterConfig::ia3(["embed"])));
    for config in [lora.clone(), wegeft, on(AdapterConfig::new(output)), vera, ia3, tokens] {
        let backbone = Words::new(&device);
        let fresh = config.init(backbone.clone()).unwrap();
        let ids = || ids(&device);
        close(fresh.bind().forward(ids(), true), backbone.forward(ids(), true), 1e-6);
        let adapted = stirred(fresh, |model| model.forward(ids(), true).powi_scalar(2).mean());
        let (ours, dense) = (
            adapted.bind().forward(ids(), true),
            adapted.bind().forward(ids(), false),
        );
        close(ours.clone(), dense, 1e-5);
        close(ours, adapted.merge().unwrap().forward(ids(), false), 1e-5);
    }
    let backbone = Words::new(&device);
    let run = |model: &Words| model.forward(ids(&device), true);
    let adapted = stirred(lora.init(backbone.clone()).unwrap(), |model| {
        run(model).powi_scalar(2).mean()
    });
    let keys = [
        "base_model.model.embed.lora_embedding_A",
        "base_model.model.embed.lora_embedding_B",
    ];
    survives(&adapted, backbone.clone(), &keys, run);
    assert_eq!(adapted.bank().groups()[0].sites[0].kind, SiteKind::Embedding);
    // Looked-up rows read no activations that could be dropped, as in PEFT; the elements of the table can be.
    let wegeft = || WegeftConfig::new(2);
    let output = wegeft().with_side(Side::Output);
    for (config, drops) in [
        (AdapterConfig::new(LoraConfig::new(2).with_dropout(0.5)), false),
        (AdapterConfig::new(VeraConfig::new(2).with_dropout(0.5)), false),
        (AdapterConfig::new(wegeft().with_dropout(0.5)), false),
        (AdapterConfig::new(wegeft().with_weight_dropout(0.5)), true),
        (AdapterConfig::new(output.with_dropout(0.5)), true),
    ] {
        let adapted = stirred(on(config.clone()).init(backbone.clone()).unwrap(), |model| {
            run(model).powi_scalar(2).mean()
        });
        for ours in [true, false] {
            let pass = || adapted.bind().forward(ids(&device), ours).into_data();
            let first = pass();
            assert_eq!((0..20).any(|_| pass() != first), drops, "{config:?}, {ours}");
        }
    }
    // Exported, it is the same adapter.
    let folder = tempfile::tempdir().unwrap();
    adapted.export_lora(folder.path()).unwrap();
    close(
        run(&Adapted::load(backbone, folder.path()).unwrap().bind()),
        run(&adapted.bind()),
        1e-5,
    );
}

#[test]
fn an_embedding_adapter_serves_its_rows_of_a_mixed_batch() {
    let device = Device::flex().autodiff();
    let mut adapters = Adapters::new(Words::new(&device));
    let config = AdapterConfig::lora(2).with_target_modules(["embed"]);
    let run = |model: &Words| model.forward(ids(&device), true);
    for name in ["a", "b"] {
        let fresh = config.init(adapters.backbone().clone()).unwrap();
        let adapted = stirred(fresh, |model| run(model).powi_scalar(2).mean());
        adapters.insert(name, adapted).unwrap();
    }
    let mixed = run(&adapters.bind_rows(&["b", "a"]).unwrap());
    for (row, name) in ["b", "a"].into_iter().enumerate() {
        let own = run(&adapters.get(name).unwrap().bind());
        close(mixed.clone().narrow(0, 4 * row, 4), own.narrow(0, 4 * row, 4), 1e-6);
    }
}

#[test]
fn trained_tokens_are_rows_in_full_beside_the_method() {
    let device = Device::flex().autodiff();
    let config = AdapterConfig::lora(2).with_target_modules(["head"]);
    let config = config.with_trainable_tokens(TokenIndices::All(vec![4, 0]));
    let backbone = Words::new(&device);
    let run = |model: &Words| model.forward(ids(&device), true);
    let fresh = config.init(backbone.clone()).unwrap();
    close(run(&fresh.bind()), run(&backbone), 1e-6);
    assert_eq!(fresh.summary().adapter_params, 2 * (D + 3) + 2 * D);
    let adapted = stirred(fresh, |model| run(model).powi_scalar(2).mean());
    close(adapted.bind().forward(ids(&device), false), run(&adapted.bind()), 1e-5);
    let keys = [
        "base_model.model.embed.token_adapter.trainable_tokens_delta",
        "base_model.model.head.lora_A.weight",
        "base_model.model.head.lora_B.weight",
    ];
    survives(&adapted, backbone.clone(), &keys, run);
    let changed = (adapted.merge().unwrap().embed.weight.val() - backbone.embed.weight.val()).abs();
    let rows: Vec<f32> = changed.sum_dim(1).into_data().iter::<f32>().collect();
    for (token, change) in rows.into_iter().enumerate() {
        assert_eq!(change > 0.0, token == 0 || token == 4, "token {token}");
    }
    let refused = |indices: TokenIndices| {
        let config = config.clone().with_trainable_tokens(indices);
        message(config.init(Words::new(&device)))
    };
    assert!(refused(TokenIndices::All(vec![11])).contains("no row 11"));
    assert!(refused(TokenIndices::All(vec![2, 2])).contains("token 2"));
    let by_name = TokenIndices::ByModule([("embd".to_string(), vec![1])].into());
    assert!(refused(by_name).contains("nearest names: embed"));
    let twice = config.with_target_modules(["embed"]);
    assert!(message(twice.init(backbone)).contains("is adapted twice"));
}

#[test]
fn rows_of_a_bare_table_are_those_of_the_parameter() {
    #[derive(Module, Debug)]
    struct Table {
        table: Param<Tensor<2>>,
    }
    let device = Device::flex().autodiff();
    let initializer = Initializer::Normal { mean: 0.0, std: 1.0 };
    let backbone = Table {
        table: initializer.init([10, 4], &device),
    };
    let rows =
        |tokens: Vec<usize>| AdapterConfig::new(TrainableTokensConfig::new(tokens)).with_target_modules(["table"]);
    let run = |model: &Table| model.table.val();
    let fresh = rows(vec![3, 7]).init(backbone.clone()).unwrap();
    assert_eq!(fresh.bank().factors[0].matrix("rows").dims(), [2, 4]);
    close(run(&fresh.bind()), run(&backbone), 0.0);
    let adapted = stirred(fresh, |model| run(model).powi_scalar(2).mean());
    survives(
        &adapted,
        backbone.clone(),
        &["base_model.model.table.trainable_tokens_delta"],
        run,
    );
    let changed = (run(&adapted.bind()) - run(&backbone)).abs().sum_dim(1);
    let changed: Vec<bool> = changed.into_data().iter::<f32>().map(|change| change > 0.0).collect();
    assert_eq!(
        changed,
        [3, 7].iter().fold([false; 10], |mut all, row| {
            all[*row] = true;
            all
        })
    );
    assert!(message(rows(vec![10]).init(backbone.clone())).contains("has 10 rows"));
    // Beside a method, only embeddings and heads have rows.
    let beside = AdapterConfig::lora(2).with_target_modules(["table"]);
    let beside = beside.with_trainable_tokens(TokenIndices::ByModule([("tabel".to_string(), vec![1])].into()));
    assert!(message(beside.init(backbone)).contains("neither an embedding nor a linear layer"));
}

/// AdaLoRA's penalty and its choice of ranks are about its own factors alone.
#[test]
fn adalora_takes_trained_tokens_beside_it() {
    let device = Device::flex().autodiff();
    let settings = AdaLoraConfig::new(3, 1, 6);
    let config = AdapterConfig::new(settings.clone()).with_target_modules(["head"]);
    let config = config.with_trainable_tokens(TokenIndices::All(vec![4, 0]));
    let backbone = Words::new(&device);
    let mut adapted = config.init(backbone.clone()).unwrap();
    let mut allocator = RankAllocator::new(&settings).unwrap();
    let mut optim = AdamWConfig::new().init();
    for step in 0..6 {
        let loss = adapted.bind().forward(ids(&device), true).powi_scalar(2).mean();
        let loss = loss + settings.penalty(&adapted).unwrap();
        let grads = GradientsParams::from_grads(loss.backward(), &adapted);
        allocator.observe(&adapted, &grads);
        adapted = allocator.allocate(step, optim.step(0.05, adapted, grads));
    }
    // One more, after which nothing is chosen anew.
    adapted = allocator.allocate(6, adapted);
    let left = adapted.bank().factors[0].matrix("e").into_data();
    assert_eq!(left.iter::<f32>().filter(|value| *value != 0.0).count(), 1, "{left:?}");
    let rows = adapted.merge().unwrap().embed.weight.val() - backbone.embed.weight.val();
    assert!(rows.abs().max().into_scalar::<f32>() > 1e-2);
}

#[derive(Module, Debug)]
struct Convolutional {
    first: Conv2d,
    second: Conv1d,
    back: ConvTranspose2d,
}

impl Convolutional {
    fn new(device: &Device) -> Self {
        let padding = PaddingConfig2d::Explicit(1, 1, 1, 1);
        Self {
            first: Conv2dConfig::new([3, 4], [3, 3]).with_padding(padding).init(device),
            second: Conv1dConfig::new(4, 5, 3).init(device),
            back: ConvTranspose2dConfig::new([5, 1], [1, 1]).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let [batch, _, height, width] = x.dims();
        let x = self.first.forward(x).tanh().reshape([batch, 4, height * width]);
        self.second.forward(x).flatten(1, 2)
    }
}

#[test]
fn convolutions_take_lora_as_in_peft() {
    let device = Device::flex().autodiff();
    let config = AdapterConfig::lora(2).with_target_modules(["first", "second"]);
    let backbone = Convolutional::new(&device);
    let x = Tensor::random([2, 3, 4, 4], Distribution::Normal(0.0, 1.0), &device);
    let run = |model: &Convolutional| model.forward(x.clone());
    let fresh = config.init(backbone.clone()).unwrap();
    close(run(&fresh.bind()), run(&backbone), 1e-6);
    assert_eq!(fresh.summary().adapter_params, 2 * (3 * 9 + 4) + 2 * (4 * 3 + 5));
    let adapted = stirred(fresh, |model| run(model).powi_scalar(2).mean());
    let keys = [
        "base_model.model.first.lora_A.weight",
        "base_model.model.first.lora_B.weight",
        "base_model.model.second.lora_A.weight",
        "base_model.model.second.lora_B.weight",
    ];
    survives(&adapted, backbone.clone(), &keys, run);
    // The change of the kernel is the composition of two convolutions: to r channels, and one of kernel 1.
    let factors = &adapted.bank().factors[0];
    let (a, b) = (factors.get::<4>("a"), factors.get::<4>("b"));
    assert_eq!((a.dims(), b.dims()), ([2, 3, 3, 3], [4, 2, 1, 1]));
    let options = || burn::tensor::ops::ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
    let code = burn::tensor::module::conv2d(x.clone(), a, None, options());
    let plain = burn::tensor::ops::ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
    let change = burn::tensor::module::conv2d(code, b, None, plain);
    close(
        adapted.bind().first.forward(x.clone()) - backbone.first.forward(x.clone()),
        change,
        1e-5,
    );
    // Unmerged, the kernels are those before.
    let merged = adapted.merge().unwrap();
    let folder = tempfile::tempdir().unwrap();
    adapted.save(folder.path()).unwrap();
    let (before, _) = config.load(merged, folder.path()).unwrap().unmerge().unwrap();
    close(before.first.weight.val(), backbone.first.weight.val(), 1e-5);
    // Dropout acts on channels.
    let config = AdapterConfig::new(LoraConfig::new(2).with_dropout(0.5)).with_target_modules(["first", "second"]);
    let dropped = stirred(config.init(backbone.clone()).unwrap(), |model| {
        run(model).powi_scalar(2).mean()
    });
    let first = run(&dropped.bind()).into_data();
    assert!((0..20).any(|_| run(&dropped.bind()).into_data() != first));
    // What is not adapted is refused by name and kind.
    let refused = message(
        AdapterConfig::lora(2)
            .with_target_modules(["back"])
            .init(backbone.clone()),
    );
    assert!(
        refused.contains("back.weight") && refused.contains("ConvTranspose2d"),
        "{refused}"
    );
    let refused = message(
        AdapterConfig::vera(2)
            .with_target_modules(["first"])
            .init(backbone.clone()),
    );
    assert!(
        refused.contains("VERA") && refused.contains("'first.weight', which is the kernel of a convolution"),
        "{refused}"
    );
    let refused = message(AdapterConfig::dora(2).with_target_modules(["first"]).init(backbone));
    assert!(refused.contains("'first' is the kernel of a convolution"), "{refused}");
}

#[derive(Module, Debug)]
struct Experts {
    gate_up: Param<Tensor<3>>,
    down: Param<Tensor<3>>,
}

#[derive(Module, Debug)]
struct Mixture {
    experts: Experts,
}

impl Mixture {
    fn new(device: &Device) -> Self {
        let weight = |shape: [usize; 3]| Initializer::Normal { mean: 0.0, std: 0.3 }.init(shape, device);
        Self {
            experts: Experts {
                gate_up: weight([3, D, 8]),
                down: weight([3, 8, D]),
            },
        }
    }

    /// `x`: `[n, D]` through every expert.
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = x.unsqueeze_dim::<3>(0).repeat_dim(0, 3);
        let h = x.matmul(self.experts.gate_up.val()).tanh();
        h.matmul(self.experts.down.val()).sum_dim(0).squeeze_dim::<2>(0)
    }
}

#[test]
fn experts_are_named_as_parameters() {
    let device = Device::flex().autodiff();
    let config = AdapterConfig::lora(2).with_target_parameters(["experts.gate_up", "experts.down"]);
    let backbone = Mixture::new(&device);
    let x = Tensor::random([4, D], Distribution::Normal(0.0, 1.0), &device);
    let run = |model: &Mixture| model.forward(x.clone());
    let fresh = config.init(backbone.clone()).unwrap();
    close(run(&fresh.bind()), run(&backbone), 1e-6);
    let adapted = stirred(fresh, |model| run(model).powi_scalar(2).mean());
    // PEFT's names: the module's own for the last of its parameters, a base layer further in for the one before.
    let keys = [
        "base_model.model.experts.base_layer.lora_A.weight",
        "base_model.model.experts.base_layer.lora_B.weight",
        "base_model.model.experts.lora_A.weight",
        "base_model.model.experts.lora_B.weight",
    ];
    survives(&adapted, backbone.clone(), &keys, run);
    // PEFT's formula: A is [experts·r, d_in] by experts, B [d_out, r·experts] with the experts innermost.
    let factors = &adapted.bank().factors[0];
    let (a, b) = (factors.matrix("a"), factors.matrix("b"));
    assert_eq!((a.dims(), b.dims()), ([6, D], [8, 6]));
    let change = adapted.merge().unwrap().experts.gate_up.val() - backbone.experts.gate_up.val();
    for expert in 0..3 {
        let a = a.clone().narrow(0, 2 * expert, 2);
        let b = b.clone().reshape([8, 2, 3]).narrow(2, expert, 1).reshape([8, 2]);
        let own = change.clone().narrow(0, expert, 1).reshape([D, 8]);
        close(own, b.matmul(a).transpose(), 1e-5);
    }
    let config = config.with_target_parameters(["experts.gateup"]);
    assert!(message(config.init(backbone)).contains("target_parameters: 'experts.gateup' matches nothing"));
}

/// In PEFT `target_modules` names modules, so that a file's `down` is no name of the experts' parameter.
#[test]
fn a_file_s_target_modules_leave_the_experts_alone() {
    #[derive(Module, Debug)]
    struct Layer {
        up: Linear,
        down: Linear,
        experts: Experts,
    }
    let device = Device::flex();
    let layer = Layer {
        up: LinearConfig::new(D, 8).init(&device),
        down: LinearConfig::new(8, D).init(&device),
        experts: Mixture::new(&device).experts,
    };
    // Not zero at the start, so that there is something to convert.
    let random = || AdapterConfig::new(LoraConfig::new(2).with_init(LoraInit::Random));
    let lora = |names: &[&str]| random().with_target_modules(names.to_vec());
    let adapted = lora(&["up"]).init(layer.clone()).unwrap();
    let with_down = random().with_target_regex("up|down").init(layer.clone()).unwrap();
    for (files, names, modules) in [
        (with_down.files(), json!(["up", "down"]), &["up", "down"][..]),
        (with_down.files(), json!("up|.*down"), &["up", "down"]),
        (adapted.files(), json!(["up", "experts.down"]), &["up"]),
    ] {
        let loaded = files
            .with_field("target_modules", names.clone())
            .attach(layer.clone())
            .unwrap();
        let found: Vec<&str> = loaded.bank().groups().iter().map(|group| group.name.as_str()).collect();
        assert_eq!(found, modules, "{names}");
        // What loads can be converted: the other forms have the same targets.
        let x = Tensor::<2>::random([3, D], Distribution::Normal(0.0, 1.0), &device);
        let run = |adapted: &Adapted<Layer>| {
            let layer = adapted.bind();
            layer.down.forward(layer.up.forward(x.clone()))
        };
        close(run(&loaded.to_lora().unwrap()), run(&loaded), 1e-5);
        let (nearest, report) = loaded.nearest_wegeft(&WegeftConfig::new(2)).unwrap();
        let converted = nearest.bank().groups().iter().map(|group| group.name.as_str());
        assert!(converted.eq(modules.iter().copied()), "{names}");
        assert_eq!(report.sites.len(), modules.len(), "{names}");
    }
    // Nothing else matches: the name means the experts, and they must be named as parameters.
    let only = adapted.files().with_field("target_modules", json!(["experts.down"]));
    assert!(message(only.attach(layer.clone())).contains("'experts.down'"));
    assert!(message(lora(&["up", "down"]).init(layer)).contains("'experts.down'"));
}

#[derive(Module, Debug)]
struct Tied {
    embed: Embedding,
    head: Embedding,
}

impl Tied {
    fn new(device: &Device) -> Self {
        let embed = EmbeddingConfig::new(VOCAB, D).init(device);
        Self {
            head: embed.clone(),
            embed,
        }
    }

    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<2> {
        let x = embedding(&self.embed, ids);
        let [batch, tokens, d] = x.dims();
        x.reshape([batch * tokens, d])
            .matmul(self.head.weight.val().transpose())
    }
}

#[test]
fn a_tied_pair_is_one_site_or_two() {
    let device = Device::flex().autodiff();
    let backbone = Tied::new(&device);
    let run = |model: &Tied| model.forward(ids(&device));
    let config = |names: &[&str], tied: bool| {
        let config = AdapterConfig::lora(2).with_target_modules(names.to_vec());
        config.with_weight_tying(tied)
    };
    for (names, tied, groups, both) in [
        (&["embed"][..], true, 1, true),
        (&["embed", "head"], true, 1, true),
        (&["embed"], false, 1, false),
        (&["embed", "head"], false, 2, false),
    ] {
        let fresh = config(names, tied).init(backbone.clone()).unwrap();
        assert_eq!(fresh.bank().groups().len(), groups);
        let adapted = stirred(fresh, |model| run(model).powi_scalar(2).mean());
        let merged = adapted.merge().unwrap();
        close(run(&merged), run(&adapted.bind()), 1e-4);
        let apart = (merged.embed.weight.val() - merged.head.weight.val()).abs().max();
        assert_eq!(apart.into_scalar::<f32>() < 1e-6, both, "{names:?} {tied}");
        let folder = tempfile::tempdir().unwrap();
        adapted.save(folder.path()).unwrap();
        let loaded = Adapted::load(backbone.clone(), folder.path()).unwrap();
        close(run(&loaded.bind()), run(&adapted.bind()), 0.0);
    }
    // Trained in full, only one of the two would be updated.
    let full = config(&["embed"], false).with_modules_to_save(["head"]);
    let refused = message(full.init(backbone));
    assert!(
        refused.contains("embed.weight") && refused.contains("head.weight"),
        "{refused}"
    );
}

#[test]
fn a_weight_that_is_read_often_is_composed_once() {
    let device = Device::flex().autodiff();
    let model = Words::new(&device);
    let config = AdapterConfig::new(LoraConfig::new(2).with_dropout(0.5)).with_target_modules(["head"]);
    let run = |model: &Words| model.forward(ids(&device), true);
    let adapted = stirred(config.init(model).unwrap(), |model| run(model).powi_scalar(2).mean());
    let bound = adapted.bind();
    // With one mask for a pass, two readings of it are the same, and two passes are not.
    let weight = bound.head.weight.val().into_data();
    assert_eq!(weight, bound.head.weight.val().into_data());
    assert!((0..10).any(|_| adapted.bind().head.weight.val().into_data() != weight));
    // Gradients of both readings add up.
    let sum = bound.head.weight.val().sum() + bound.head.weight.val().sum();
    let twice = GradientsParams::from_grads(sum.backward(), &adapted);
    let bound = adapted.valid().train();
    let once = GradientsParams::from_grads(bound.bind().head.weight.val().sum().backward(), &bound);
    assert_eq!((twice.len(), once.len()), (2, 2));
}

#[test]
fn a_kind_of_two_sizes_is_two_groups() {
    #[derive(Module, Debug)]
    struct Layers {
        layers: Vec<Linear>,
    }
    let device = Device::flex().autodiff();
    let sizes = [(4, 6), (4, 8), (6, 4)];
    let backbone = Layers {
        layers: sizes
            .map(|(d_in, d_out)| LinearConfig::new(d_in, d_out).init(&device))
            .to_vec(),
    };
    let config = WegeftConfig::new(2).with_zero_factor(wegeft::ZeroFactor::Phi);
    let adapted = AdapterConfig::new(config)
        .with_target_modules(["layers.0", "layers.1", "layers.2"])
        .init(backbone.clone())
        .unwrap();
    let groups: Vec<(&str, usize)> = adapted
        .bank()
        .groups()
        .iter()
        .map(|group| (group.name.as_str(), group.sites.len()))
        .collect();
    assert_eq!(groups, [("layers.* (d_in 4)", 2), ("layers.* (d_in 6)", 1)]);
    let folder = tempfile::tempdir().unwrap();
    adapted.save(folder.path()).unwrap();
    assert_eq!(Adapted::load(backbone, folder.path()).unwrap().bank().groups().len(), 2);
    let text = std::fs::read_to_string(folder.path().join(wegeft::storage::CONFIG_FILE)).unwrap();
    assert!(text.contains(r"(?:layers\\.0|layers\\.1)$"), "{text}");
}

#[test]
fn an_adapter_travels_as_bytes_and_under_other_names() {
    let device = Device::flex().autodiff();
    let backbone = Words::new(&device);
    let run = |model: &Words| model.forward(ids(&device), true);
    let mut lora = LoraConfig::new(2);
    lora.patterns.rank_pattern.insert("embed".into(), 3);
    let config = AdapterConfig::new(lora).with_target_modules(["embed", "head"]);
    let adapted = stirred(config.init(backbone.clone()).unwrap(), |model| {
        run(model).powi_scalar(2).mean()
    });
    let (json, weights) = adapted.files().to_bytes().unwrap();
    let read = || AdapterFiles::from_bytes(&json, &weights).unwrap();
    close(
        run(&read().attach(backbone.clone()).unwrap().bind()),
        run(&adapted.bind()),
        0.0,
    );

    #[derive(Module, Debug)]
    struct Other {
        wte: Embedding,
        lm_head: Linear,
    }
    let other = Other {
        wte: backbone.embed.clone(),
        lm_head: backbone.head.clone(),
    };
    let refused = message(read().attach(other.clone()));
    assert!(refused.contains("'embed' matches nothing"), "{refused}");
    let names = |name: &str| name.replace("embed.", "wte.").replace("head", "lm_head");
    let names = |name: &str| {
        if name == "embed" {
            "wte".to_string()
        } else {
            names(name)
        }
    };
    let there = read().renamed(names).attach(other).unwrap();
    assert_eq!(
        there
            .config()
            .settings::<LoraConfig>()
            .unwrap()
            .patterns
            .rank_pattern
            .get("wte"),
        Some(&3)
    );
    close(
        there.merge().unwrap().wte.weight.val(),
        adapted.merge().unwrap().embed.weight.val(),
        0.0,
    );
    assert!(
        AdapterFiles::from_bytes(&json, &weights[..40])
            .unwrap_err()
            .to_string()
            .contains("given bytes")
    );
}

/// The fork's file of WeGeFT says which modules share a pair by patterns, which are names too.
#[test]
fn groups_travel_under_other_names() {
    #[derive(Module, Debug)]
    struct Block {
        query: Linear,
    }
    #[derive(Module, Debug)]
    struct Encoder {
        layers: Vec<Block>,
    }
    #[derive(Module, Debug)]
    struct Attention {
        q: Linear,
    }
    #[derive(Module, Debug)]
    struct Other {
        h: Vec<Attention>,
    }
    let device = Device::flex();
    let query = || LinearConfig::new(D, D).init(&device);
    let encoder = Encoder {
        layers: (0..2).map(|_| Block { query: query() }).collect(),
    };
    let other = Other {
        h: encoder
            .layers
            .iter()
            .map(|block| Attention { q: block.query.clone() })
            .collect(),
    };
    let mut ranked = WegeftConfig::new(2);
    ranked.patterns.rank_pattern.insert("query".into(), 3);
    for config in [WegeftConfig::new(2), ranked] {
        let config = AdapterConfig::new(config.with_zero_factor(ZeroFactor::Phi)).with_target_modules(["query"]);
        let adapted = config.init(encoder.clone()).unwrap();
        let files = adapted.files();
        assert!(files.fields().contains_key("tied_modules"));
        let files = files.renamed(|name| name.replace("layers.", "h.").replace("query", "q"));
        let there = files.attach(other.clone()).unwrap();
        assert!(there.warnings().is_empty(), "{:?}", there.warnings());
        assert_eq!(there.bank().groups().len(), 1);
        let psi = |bank: &wegeft::Bank| bank.factors[0].matrix("psi");
        close(psi(there.bank()), psi(adapted.bank()), 0.0);
    }
}
