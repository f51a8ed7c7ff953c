//! Time and peak memory of one training step of WeGeFT and LoRA beside Burn's own `apply_lora`, on models that were written
//! for plain Burn: a LLaMA in activation space and, unchanged, through its weights; Burn's `TransformerEncoder` and `Lstm`,
//! which are read through their weights; and a large embedding. `cargo bench -p wegeft --bench models`; without `--bench`
//! (as under `cargo test`) tiny.

mod measured;
// The models that the tests train.
#[allow(dead_code)]
#[path = "../tests/working/models/mod.rs"]
mod models;

use burn::module::{Lora, Module, ModuleDisplay, ParamGroup};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, Lstm, LstmConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Int, Tensor};
use measured::{Measured, print, take_turns};
use models::llama::{Llama, Sizes};
use wegeft::{AdapterConfig, Hook, OftConfig};

const RANK: usize = 8;
const BASELINE: &str = "apply_lora";

/// Steps of a model that is adapted by us.
fn ours<M>(name: &str, config: AdapterConfig, model: M, loss: impl Fn(&M) -> Tensor<1> + 'static) -> Measured
where
    M: Module + ModuleDisplay + 'static,
{
    let mut adapted = Some(config.init(model).expect("the targets are the model's"));
    let mut optim = AdamWConfig::new().init();
    Measured::new(name, move || {
        if let Some(before) = adapted.take() {
            // The bound model, which holds the composed weights, ends before the backward pass.
            let loss = loss(&before.bind());
            let grads = GradientsParams::from_grads(loss.backward(), &before);
            adapted = Some(optim.step(1e-3, before, grads));
        }
    })
}

/// Steps of a model as it is: with Burn's LoRA, or trained in full.
fn plain<M: Module + 'static>(name: &str, model: M, loss: impl Fn(&M) -> Tensor<1> + 'static) -> Measured {
    let mut model = Some(model);
    let mut optim = AdamWConfig::new().init();
    Measured::new(name, move || {
        if let Some(before) = model.take() {
            let grads = GradientsParams::from_grads(loss(&before).backward(), &before);
            model = Some(optim.step(1e-3, before, grads));
        }
    })
}

fn methods() -> [(&'static str, AdapterConfig); 2] {
    [
        ("WeGeFT", AdapterConfig::wegeft(RANK)),
        ("LoRA", AdapterConfig::lora(RANK)),
    ]
}

fn llama(sizes: &Sizes, batch: usize, tokens: usize, rounds: usize) {
    let device = Device::flex().autodiff();
    device.seed(0);
    let vocabulary = sizes.vocabulary;
    let model = Llama::sized(sizes, &device);
    let highest = Distribution::Uniform(0.0, (vocabulary - 1) as f64);
    let ids: Tensor<2, Int> = Tensor::<2>::random([batch, tokens], highest, &device).int();
    let loss = move |model: &Llama| {
        let logits = model.forward(ids.clone()).reshape([batch * tokens, vocabulary]);
        let loss = CrossEntropyLossConfig::new().init(&logits.device());
        loss.forward(logits, ids.clone().reshape([batch * tokens]))
    };
    // Parameters are drawn at their first use: once for all clones.
    loss(&model).into_scalar::<f32>();
    let mut all = Vec::new();
    for activation_space in [true, false] {
        for (name, config) in methods() {
            let config = config.with_target_modules(["wq", "wk", "wv", "wo", "linear_inner", "linear_outer", "w2"]);
            let mut model = model.clone();
            model.activation_space = activation_space;
            let space = if activation_space {
                "activation space"
            } else {
                "weight space"
            };
            all.push(ours(&format!("{name}, {space}"), config, model, loss.clone()));
        }
    }
    let layers = ParamGroup::from_regex("^layers").expect("a pattern");
    let lora = Lora::new(RANK, RANK as f64).set_param_group(layers);
    all.push(plain(BASELINE, model.apply_lora(lora), loss));
    take_turns(&mut all, rounds);
    let (d, depth) = (sizes.d_model, sizes.layers);
    let title = format!("LLaMA, {depth} layers of {d}, {batch} x {tokens} tokens, rank {RANK}");
    print(&title, &mut all, BASELINE);
}

fn encoder(d: usize, depth: usize, batch: usize, tokens: usize, rounds: usize) {
    let device = Device::flex().autodiff();
    device.seed(0);
    let model = TransformerEncoderConfig::new(d, 4 * d, 8, depth)
        .with_dropout(0.0)
        .init(&device);
    let x = Tensor::<3>::random([batch, tokens, d], Distribution::Normal(0.0, 1.0), &device);
    let loss = move |model: &TransformerEncoder| {
        let input = TransformerEncoderInput::new(x.clone());
        model.forward(input).powi_scalar(2).mean()
    };
    loss(&model).into_scalar::<f32>();
    let mut all = Vec::new();
    for (name, config) in methods() {
        let targets = ["query", "key", "value", "output", "linear_inner", "linear_outer"];
        let config = config.with_target_modules(targets);
        all.push(ours(
            &format!("{name}, weight space"),
            config,
            model.clone(),
            loss.clone(),
        ));
    }
    all.push(plain(BASELINE, model.apply_lora(Lora::new(RANK, RANK as f64)), loss));
    take_turns(&mut all, rounds);
    let title = format!("TransformerEncoder, {depth} layers of {d}, {batch} x {tokens} tokens, rank {RANK}");
    print(&title, &mut all, BASELINE);
}

fn lstm(d: usize, batch: usize, tokens: usize, rounds: usize) {
    let device = Device::flex().autodiff();
    device.seed(0);
    let model = LstmConfig::new(d, d, true).init(&device);
    let x = Tensor::<3>::random([batch, tokens, d], Distribution::Normal(0.0, 1.0), &device);
    let loss = move |model: &Lstm| model.forward(x.clone(), None).0.powi_scalar(2).mean();
    loss(&model).into_scalar::<f32>();
    let mut all = Vec::new();
    for (name, config) in methods() {
        let config = config.with_target_modules(["input_transform", "hidden_transform"]);
        all.push(ours(
            &format!("{name}, weight space"),
            config,
            model.clone(),
            loss.clone(),
        ));
    }
    all.push(plain("trained in full", model.clone(), loss.clone()));
    all.push(plain(BASELINE, model.apply_lora(Lora::new(RANK, RANK as f64)), loss));
    take_turns(&mut all, rounds);
    print(
        &format!("Lstm of {d}, {batch} x {tokens} tokens, rank {RANK}"),
        &mut all,
        BASELINE,
    );
}

#[derive(Module, Debug)]
struct Table {
    table: Embedding,
}

fn embedding(vocabulary: usize, d: usize, batch: usize, tokens: usize, rounds: usize) {
    let device = Device::flex().autodiff();
    device.seed(0);
    let model = Table {
        table: EmbeddingConfig::new(vocabulary, d).init(&device),
    };
    let highest = Distribution::Uniform(0.0, (vocabulary - 1) as f64);
    let ids: Tensor<2, Int> = Tensor::<2>::random([batch, tokens], highest, &device).int();
    let loss = |looked_up: fn(&Embedding, Tensor<2, Int>) -> Tensor<3>| {
        let ids = ids.clone();
        move |model: &Table| looked_up(&model.table, ids.clone()).powi_scalar(2).mean()
    };
    loss(Embedding::forward)(&model).into_scalar::<f32>();
    let mut all = Vec::new();
    for (name, config) in methods() {
        let config = config.with_target_modules(["table"]);
        let rows = loss(wegeft::embedding);
        all.push(ours(&format!("{name}, looked up"), config.clone(), model.clone(), rows));
        let through = loss(Embedding::forward);
        all.push(ours(&format!("{name}, weight space"), config, model.clone(), through));
    }
    let lora = model.apply_lora(Lora::new(RANK, RANK as f64));
    all.push(plain(BASELINE, lora, loss(Embedding::forward)));
    take_turns(&mut all, rounds);
    let title = format!("Embedding of {vocabulary} x {d}, {batch} x {tokens} tokens, rank {RANK}");
    print(&title, &mut all, BASELINE);
}

/// Time of `bind` alone on layers that a transformer of 32 layers has 7 of each.
fn binding(d: usize, rounds: usize) {
    let device = Device::flex().autodiff();
    let stack = Stack {
        layers: (0..224).map(|_| LinearConfig::new(d, d).init(&device)).collect(),
        hooks: (0..32).map(|_| Hook::new(d, &device)).collect(),
    };
    let on = |config: AdapterConfig| config.with_target_regex(r"layers\.\d+");
    let configs = [
        ("WeGeFT", on(AdapterConfig::wegeft(RANK)), 224),
        ("LoRA", on(AdapterConfig::lora(RANK)), 224),
        ("DoRA", on(AdapterConfig::dora(RANK)), 224),
        ("VeRA", on(AdapterConfig::vera(RANK)), 224),
        ("IA3", on(AdapterConfig::ia3(Vec::<String>::new())), 224),
        ("OFT", on(AdapterConfig::new(OftConfig::new(8))), 224),
        (
            "LoReFT",
            AdapterConfig::loreft(RANK).with_target_regex(r"hooks\.\d+"),
            32,
        ),
    ];
    let mut all: Vec<(&str, usize, Measured)> = Vec::new();
    for (name, config, sites) in configs {
        let adapted = config.init(stack.clone()).expect("the targets are the model's");
        all.push((name, sites, Measured::new(name, move || drop(adapted.bind()))));
    }
    for (name, sites, one) in &mut all {
        take_turns(std::slice::from_mut(one), rounds);
        println!(
            "bind, {name}, {sites} sites: {:.1} microseconds a site",
            1e6 * one.median() / *sites as f64
        );
    }
}

#[derive(Module, Debug)]
struct Stack {
    layers: Vec<Linear>,
    hooks: Vec<Hook>,
}

fn main() {
    let full = std::env::args().any(|arg| arg == "--bench");
    let (d_model, layers, batch, tokens, rounds) = if full { (256, 4, 8, 64, 20) } else { (32, 1, 2, 8, 1) };
    let sizes = Sizes {
        d_model,
        hidden: 3 * d_model,
        heads: 8,
        kv_heads: 4,
        layers,
        vocabulary: 2 * d_model,
    };
    binding(d_model, if full { 100 } else { 1 });
    llama(&sizes, batch, tokens, rounds);
    encoder(d_model, layers, batch, tokens, rounds);
    lstm(d_model, batch, if full { 100 } else { 4 }, rounds.min(5));
    embedding(
        if full { 32_000 } else { 100 },
        2 * d_model,
        batch,
        tokens,
        rounds.min(5),
    );
}
