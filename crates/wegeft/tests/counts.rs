//! Parameter counts of every method on the papers' backbones, from their shapes alone: those that the WeGeFT
//! paper prints, and the formulas of the others.

use wegeft::methods::bitfit::BitfitConfig;
use wegeft::methods::lora::LoraConfig;
use wegeft::methods::wegeft::{Side, WegeftConfig};
use wegeft::site::Site;
use wegeft::{AdapterConfig, Sharing};

const LLAMA_2_7B: usize = 6_738_415_616;
const LLAMA_3_8B: usize = 8_030_261_248;
const VIT_B_16: usize = 85_798_656;

/// Linear layers of 32 LLaMA blocks, (name, d_in, d_out), those that `names` lists.
fn llama(kv: usize, mlp: usize, names: &[&str]) -> Vec<Site> {
    let layers = [
        ("self_attn.q_proj", 4096, 4096),
        ("self_attn.k_proj", 4096, kv),
        ("self_attn.v_proj", 4096, kv),
        ("self_attn.o_proj", 4096, 4096),
        ("mlp.gate_proj", 4096, mlp),
        ("mlp.up_proj", 4096, mlp),
        ("mlp.down_proj", mlp, 4096),
    ];
    let wanted = layers
        .into_iter()
        .filter(|(name, _, _)| names.iter().any(|wanted| name.ends_with(wanted)));
    let wanted: Vec<_> = wanted.collect();
    let site = |layer: usize, (name, d_in, d_out)| Site::linear(format!("layers.{layer}.{name}"), d_in, d_out);
    (0..32)
        .flat_map(|layer| wanted.iter().map(move |shape| site(layer, *shape)))
        .collect()
}

fn llama_2_7b(names: &[&str]) -> Vec<Site> {
    llama(4096, 11_008, names)
}

fn llama_3_8b(names: &[&str]) -> Vec<Site> {
    llama(1024, 14_336, names)
}

const QV: [&str; 2] = ["q_proj", "v_proj"];
const O: [&str; 1] = ["o_proj"];
const QKVUD: [&str; 5] = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"];
const ALL: [&str; 7] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
];

fn count(config: &AdapterConfig, sites: &[Site]) -> usize {
    config.method.params_of(sites).unwrap()
}

fn percent(count: usize, frozen: usize) -> String {
    format!("{:.4}", 100.0 * count as f64 / frozen as f64)
}

/// A token of LLaMA-2 7B, and its keys and values in all layers.
#[test]
fn virtual_tokens() {
    let prompt = Site::tokens("prompt", 4096);
    assert_eq!(count(&AdapterConfig::prompt_tuning(20), &[prompt]), 81_920);
    let prefix = Site::tokens("prefix", 32 * 2 * 4096);
    assert_eq!(count(&AdapterConfig::prefix_tuning(20), &[prefix]), 5_242_880);
}

#[test]
fn llamas() {
    let wegeft = AdapterConfig::wegeft;
    let output = |r| AdapterConfig::new(WegeftConfig::new(r).with_side(Side::Output));
    let unshared = |r| AdapterConfig::new(WegeftConfig::new(r).with_sharing(Sharing::Site));
    let lora = AdapterConfig::lora;
    // Method, targets, LLaMA-2 7B, LLaMA-3 8B.
    let rows: [(AdapterConfig, &[&str], usize, usize); 14] = [
        (wegeft(16), &QV, 262_144, 262_144),
        (wegeft(64), &QV, 1_048_576, 1_048_576),
        (wegeft(128), &QV, 2_097_152, 2_097_152),
        (wegeft(128), &O, 1_048_576, 1_048_576),
        (wegeft(64), &QKVUD, 3_506_176, 3_932_160),
        (wegeft(64), &ALL, 4_554_752, 4_980_736),
        (output(64), &QKVUD, 3_506_176, 3_145_728),
        (unshared(2), &QKVUD, 3_506_176, 3_932_160),
        (lora(16), &QKVUD, 28_049_408, 28_311_552),
        (lora(32), &QKVUD, 56_098_816, 56_623_104),
        (lora(8), &ALL, 19_988_480, 20_971_520),
        (AdapterConfig::dora(16), &QKVUD, 28_925_952, 29_097_984),
        (AdapterConfig::vera(1024), &QKVUD, 1_040_384, 950_272),
        (AdapterConfig::vera(12_288), &QKVUD, 2_842_624, 2_752_512),
    ];
    for (config, targets, seven, eight) in rows {
        let counts = [llama_2_7b(targets), llama_3_8b(targets)].map(|sites| count(&config, &sites));
        assert_eq!(counts, [seven, eight], "{config:?} {targets:?}");
    }
    assert_eq!(percent(3_506_176, LLAMA_2_7B), "0.0520");
    assert_eq!(percent(3_932_160, LLAMA_3_8B), "0.0490");
}

#[test]
fn lora_fa_trains_b_alone_and_ia3_one_vector_a_layer() {
    let fa = AdapterConfig::new(LoraConfig::new(16).with_freeze_a(true));
    assert_eq!(count(&fa, &llama_2_7b(&QV)), 32 * 2 * 16 * 4096);
    let ia3 = AdapterConfig::ia3(["down_proj"]);
    let sites = llama_2_7b(&["k_proj", "v_proj", "down_proj"]);
    assert_eq!(count(&ia3, &sites), 32 * (4096 + 4096 + 11_008));
}

#[test]
fn reft_on_llama_2_7b() {
    let hooks: Vec<Site> = (0..32)
        .map(|layer| Site::hook(format!("layers.{layer}.output"), 4096))
        .collect();
    for config in [AdapterConfig::loreft(8), AdapterConfig::direft(8)] {
        assert_eq!(percent(count(&config, &hooks), LLAMA_2_7B), "0.0311"); // the papers' 0.031
    }
}

#[test]
fn vit_b_16() {
    let blocks = |name: &'static str, d_in, d_out| {
        (0..12).map(move |block| Site::linear(format!("blocks.{block}.{name}"), d_in, d_out))
    };
    let proj: Vec<Site> = blocks("attn.proj", 768, 768).collect();
    assert_eq!(count(&AdapterConfig::wegeft(16), &proj), 24_576);
    assert_eq!(count(&AdapterConfig::lora(8), &proj), 147_456);
    let vectors = |lengths: &[(&'static str, usize)]| -> Vec<Site> {
        let of = |block: usize| {
            lengths
                .iter()
                .map(move |(name, length)| Site::vector(format!("blocks.{block}.{name}"), *length))
        };
        (0..12).flat_map(of).collect()
    };
    let biases = [
        ("attn.qkv.bias", 2304),
        ("attn.proj.bias", 768),
        ("mlp.fc1.bias", 3072),
        ("mlp.fc2.bias", 768),
    ];
    let bitfit = AdapterConfig::new(BitfitConfig::new());
    let bitfit = count(&bitfit, &vectors(&biases));
    assert_eq!((bitfit, percent(bitfit, VIT_B_16)), (82_944, "0.0967".to_string()));
    let norms = [
        ("norm1.gamma", 768),
        ("norm1.beta", 768),
        ("norm2.gamma", 768),
        ("norm2.beta", 768),
    ];
    assert_eq!(count(&AdapterConfig::layer_norm(), &vectors(&norms)), 12 * 4 * 768);
    let hooks = |names: &[&'static str]| -> Vec<Site> {
        let of = |block: usize| {
            names
                .iter()
                .map(move |name| Site::hook(format!("blocks.{block}.{name}"), 768))
        };
        (0..12).flat_map(of).collect()
    };
    let deep = count(&AdapterConfig::vpt(5, true), &hooks(&["input"]));
    assert_eq!((deep, percent(deep, VIT_B_16)), (46_080, "0.0537".to_string()));
    assert_eq!(count(&AdapterConfig::vpt(5, false), &hooks(&["input"])), 5 * 768);
    let adapter = 2 * 768 * 64 + 64 + 768;
    assert_eq!(
        count(&AdapterConfig::houlsby(64), &hooks(&["attn_out", "mlp_out"])),
        24 * adapter
    );
    assert_eq!(count(&AdapterConfig::pfeiffer(64), &hooks(&["mlp_out"])), 12 * adapter);
}
