//! Prints the parameter counts of the table in docs/methods.md: every method on ViT-B/16 and LLaMA-2 7B, from their shapes alone.
//! `cargo run -p wegeft --example methods`

use wegeft::site::Site;
use wegeft::{AdapterConfig, AdapterError};

/// What a method acts on in one of the two models, and the settings that its own paper or WeGeFT's uses there.
type Use = Option<(AdapterConfig, Vec<Site>)>;

const BLOCKS_VIT: usize = 12;
const D_VIT: usize = 768;
const BLOCKS_LLAMA: usize = 32;
const D_LLAMA: usize = 4096;
const MLP_LLAMA: usize = 11_008;

fn vit_proj() -> Vec<Site> {
    let site = |i| Site::linear(format!("blocks.{i}.attn.proj"), D_VIT, D_VIT);
    (0..BLOCKS_VIT).map(site).collect()
}

fn vit_vectors(parts: &[(&str, usize)]) -> Vec<Site> {
    let of = |i: usize| {
        parts
            .iter()
            .map(move |(name, length)| Site::vector(format!("blocks.{i}.{name}"), *length))
    };
    (0..BLOCKS_VIT).flat_map(of).collect()
}

fn vit_hooks(places: &[&str]) -> Vec<Site> {
    let of = |i: usize| {
        places
            .iter()
            .map(move |name| Site::hook(format!("blocks.{i}.{name}"), D_VIT))
    };
    (0..BLOCKS_VIT).flat_map(of).collect()
}

fn llama(names: &[&str]) -> Vec<Site> {
    let shape = |name: &str| match name {
        "up_proj" => (D_LLAMA, MLP_LLAMA),
        "down_proj" => (MLP_LLAMA, D_LLAMA),
        _ => (D_LLAMA, D_LLAMA),
    };
    let of = |i: usize| {
        names.iter().map(move |name| {
            let (d_in, d_out) = shape(name);
            Site::linear(format!("layers.{i}.{name}"), d_in, d_out)
        })
    };
    (0..BLOCKS_LLAMA).flat_map(of).collect()
}

fn llama_outputs() -> Vec<Site> {
    let site = |i| Site::hook(format!("layers.{i}.output"), D_LLAMA);
    (0..BLOCKS_LLAMA).map(site).collect()
}

fn main() -> Result<(), AdapterError> {
    let qkvud = || llama(&["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]);
    let biases = [
        ("attn.qkv.bias", 3 * D_VIT),
        ("attn.proj.bias", D_VIT),
        ("mlp.fc1.bias", 4 * D_VIT),
        ("mlp.fc2.bias", D_VIT),
    ];
    let norms = [
        ("norm1.gamma", D_VIT),
        ("norm1.beta", D_VIT),
        ("norm2.gamma", D_VIT),
        ("norm2.beta", D_VIT),
    ];
    let on_vit = |config: AdapterConfig, sites| Some((config, sites));
    let rows: [(&str, &str, Use, Use); 14] = [
        (
            "WeGeFT, r 16; r 64",
            "2312.00700",
            on_vit(AdapterConfig::wegeft(16), vit_proj()),
            Some((AdapterConfig::wegeft(64), qkvud())),
        ),
        (
            "LoRA (rsLoRA, LoRA+, PiSSA, OLoRA), r 8; r 32",
            "2106.09685",
            on_vit(AdapterConfig::lora(8), vit_proj()),
            Some((AdapterConfig::lora(32), qkvud())),
        ),
        (
            "DoRA, r 8; r 16",
            "2402.09353",
            on_vit(AdapterConfig::dora(8), vit_proj()),
            Some((AdapterConfig::dora(16), qkvud())),
        ),
        (
            "VeRA, r 256; r 1024",
            "2310.11454",
            on_vit(AdapterConfig::vera(256), vit_proj()),
            Some((AdapterConfig::vera(1024), qkvud())),
        ),
        (
            "IA3",
            "2205.05638",
            None,
            Some((
                AdapterConfig::ia3(["down_proj"]),
                llama(&["k_proj", "v_proj", "down_proj"]),
            )),
        ),
        (
            "LoReFT, r 8",
            "2404.03592",
            on_vit(AdapterConfig::loreft(8), vit_hooks(&["output"])),
            Some((AdapterConfig::loreft(8), llama_outputs())),
        ),
        (
            "DiReFT, r 8",
            "2404.03592",
            on_vit(AdapterConfig::direft(8), vit_hooks(&["output"])),
            Some((AdapterConfig::direft(8), llama_outputs())),
        ),
        (
            "BitFit",
            "2106.10199",
            on_vit(AdapterConfig::bitfit(), vit_vectors(&biases)),
            None,
        ),
        (
            "LayerNorm tuning",
            "2312.11420",
            on_vit(AdapterConfig::layer_norm(), vit_vectors(&norms)),
            None,
        ),
        (
            "VPT deep, 5 tokens",
            "2203.12119",
            on_vit(AdapterConfig::vpt(5, true), vit_hooks(&["input"])),
            None,
        ),
        (
            "Prompt tuning, 20 tokens",
            "2104.08691",
            None,
            Some((AdapterConfig::prompt_tuning(20), vec![Site::tokens("prompt", D_LLAMA)])),
        ),
        (
            "Prefix tuning, 20 tokens",
            "2101.00190",
            None,
            Some((
                AdapterConfig::prefix_tuning(20),
                vec![Site::tokens("prefix", 2 * BLOCKS_LLAMA * D_LLAMA)],
            )),
        ),
        (
            "Houlsby, width 64",
            "1902.00751",
            on_vit(AdapterConfig::houlsby(64), vit_hooks(&["attn_out", "mlp_out"])),
            None,
        ),
        (
            "Pfeiffer, width 48",
            "2005.00247",
            on_vit(AdapterConfig::pfeiffer(48), vit_hooks(&["mlp_out"])),
            None,
        ),
    ];
    println!("| method | paper (arXiv) | ViT-B/16 | LLaMA-2 7B | merges | exports as LoRA | mixed batches |");
    println!("|---|---|---|---|---|---|---|");
    for (name, paper, vit, llama) in &rows {
        let count = |used: &Use| match used {
            Some((config, sites)) => config.method.params_of(sites).map(grouped),
            None => Ok(String::new()),
        };
        let method = vit.as_ref().or(llama.as_ref()).map(|(config, _)| &config.method);
        let yes = |holds: Option<bool>| if holds == Some(true) { "yes" } else { "no" };
        println!(
            "| {name} | {paper} | {} | {} | {} | {} | {} |",
            count(vit)?,
            count(llama)?,
            yes(method.map(|method| method.merges())),
            yes(method.map(|method| method.has_lora_form())),
            yes(method.map(|method| method.mixes())),
        );
    }
    Ok(())
}

/// 24576 as 24,576.
fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join(",")
}
