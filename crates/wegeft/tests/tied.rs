//! A tied weight is one site with one name, and no two tensors of an adapter have one key.

use burn::module::{Initializer, Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor, Tolerance};
use wegeft::{Adapted, AdapterConfig, AdapterError, Fused, TokenIndices, WegeftConfig, embedding};

const VOCAB: usize = 7;
const D: usize = 6;

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

    fn forward(&self) -> Tensor<2> {
        let ids = Tensor::<1, Int>::arange(0..VOCAB as i64, &self.head.weight.val().device());
        let x = embedding(&self.embed, ids.unsqueeze::<2>());
        x.reshape([VOCAB, D]).tanh().matmul(self.head.weight.val().transpose())
    }
}

fn stirred(mut adapted: Adapted<Tied>) -> Adapted<Tied> {
    let mut optim = AdamWConfig::new().init();
    for _ in 0..3 {
        let loss = adapted.bind().forward().powi_scalar(2).mean();
        let grads = GradientsParams::from_grads(loss.backward(), &adapted);
        adapted = optim.step(0.05, adapted, grads);
    }
    adapted
}

fn close(a: Tensor<2>, b: Tensor<2>) {
    a.into_data()
        .assert_approx_eq::<f32>(&b.into_data(), Tolerance::absolute(1e-5));
}

fn message<T: std::fmt::Debug>(result: Result<T, AdapterError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_tied_weight_is_exported_once() {
    let device = Device::flex().autodiff();
    let backbone = Tied::new(&device);
    let config = AdapterConfig::new(WegeftConfig::new(2)).with_target_modules(["embed"]);
    let adapted = stirred(config.with_weight_tying(true).init(backbone.clone()).unwrap());
    let low = adapted.low_rank().unwrap();
    assert_eq!(low.keys().collect::<Vec<_>>(), ["embed"]);
    let folder = tempfile::tempdir().unwrap();
    adapted.export_lora(folder.path()).unwrap();
    let loaded = Adapted::load(backbone, folder.path()).unwrap();
    assert_eq!(loaded.bank().groups()[0].sites[0].tied, ["head.weight"]);
    close(loaded.bind().forward(), adapted.bind().forward());
    let (nearest, _) = adapted.nearest_wegeft(&WegeftConfig::new(2)).unwrap();
    close(nearest.bind().forward(), adapted.bind().forward());
}

#[test]
fn trained_tokens_of_a_tied_weight_change_both_places() {
    let device = Device::flex().autodiff();
    let backbone = Tied::new(&device);
    let names = |names: &[&str]| {
        let tokens = names.iter().map(|name| (name.to_string(), vec![2, 5]));
        AdapterConfig::linear_probing().with_trainable_tokens(TokenIndices::ByModule(tokens.collect()))
    };
    for (config, both, groups) in [
        (names(&["embed"]), false, 1),
        (names(&["embed", "head"]), false, 2),
        (names(&["embed"]).with_weight_tying(true), true, 1),
        (names(&["embed", "head"]).with_weight_tying(true), true, 1),
    ] {
        let adapted = stirred(config.init(backbone.clone()).unwrap());
        assert_eq!(adapted.bank().groups().len(), groups);
        let merged = adapted.merge().unwrap();
        close(merged.forward(), adapted.bind().forward());
        let apart = (merged.embed.weight.val() - merged.head.weight.val()).abs().max();
        assert_eq!(apart.into_scalar::<f32>() < 1e-6, both, "{config:?}");
        let loaded = adapted.files().attach(backbone.clone()).unwrap();
        close(loaded.bind().forward(), adapted.bind().forward());
    }
}

/// An optimizer that saw two weights under one id would update one of them.
#[test]
fn merged_weights_have_ids_of_their_own() {
    let device = Device::flex().autodiff();
    let backbone = Tied::new(&device);
    let ids = |model: &Tied| (model.embed.weight.id, model.head.weight.id);
    let (own, _) = ids(&backbone);
    for (tied, one) in [(true, true), (false, false)] {
        let config = AdapterConfig::lora(2)
            .with_target_modules(["embed"])
            .with_weight_tying(tied);
        let adapted = stirred(config.init(backbone.clone()).unwrap());
        let merged = adapted.merge().unwrap();
        let (embed, head) = ids(&merged);
        assert_eq!((embed == head, embed == own, head == own), (one, false, !tied));
        // The one that is no longer tied can be trained.
        assert_eq!(AdapterConfig::full().init(merged.clone()).is_ok(), !tied);
        let again = adapted.files().attach(merged).unwrap().unmerge().unwrap().0;
        let (embed, head) = ids(&again);
        assert_eq!((embed == head, embed == own), (one, false));
    }
}

#[test]
fn two_edits_of_one_place_are_refused() {
    let device = Device::flex().autodiff();
    let rows = TokenIndices::ByModule([("head".to_string(), vec![1])].into());
    let config = AdapterConfig::lora(2)
        .with_target_modules(["embed"])
        .with_trainable_tokens(rows);
    config.init(Tied::new(&device)).unwrap();
    // Tied, LoRA's edit of the embedding is one of the head, too.
    let said = message(config.with_weight_tying(true).init(Tied::new(&device)));
    assert!(said.contains("is adapted twice"), "{said}");
    let layer = || Layer {
        qkv: LinearConfig::new(D, 3 * D).init(&device),
    };
    let blocks = AdapterConfig::lora(2)
        .with_target_modules(["qkv"])
        .with_fused(Fused::qkv("qkv", ["q"]));
    let said = message(blocks.with_target_parameters(["qkv.weight"]).init(layer()));
    assert!(said.contains("'qkv.weight' is adapted twice"), "{said}");
}

#[derive(Module, Debug)]
struct Layer {
    qkv: Linear,
}

#[derive(Module, Debug)]
struct Scaled {
    gamma: Param<Tensor<1>>,
    weight: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct Net {
    up: Linear,
    scaled: Scaled,
}

/// PyTorch calls both of them `weight`.
#[test]
fn two_parameters_of_one_key_are_refused() {
    let device = Device::flex();
    let net = Net {
        up: LinearConfig::new(D, D).init(&device),
        scaled: Scaled {
            gamma: Initializer::Ones.init([D], &device),
            weight: Initializer::Zeros.init([D], &device),
        },
    };
    let config = AdapterConfig::lora(2).with_target_modules(["up"]);
    let said = message(config.with_modules_to_save(["scaled"]).init(net));
    assert!(
        said.contains("scaled.gamma") && said.contains("scaled.weight") && said.contains("scaled.weight'"),
        "{said}"
    );
}
