//! Long texts on a GPU: tokens are chosen on the device and read several at a time, and the step of greedy decoding is
//! recorded and repeated.

use std::path::Path;

use backbones::lm::{LoadOptions, load_lm};
use burn::tensor::Device;
use experiments::cli::device::device;
use experiments::language::generation::{Generation, Generator, repeated};

use crate::program::{GPU, no_gpu};

/// What the tiny decoder `name` says on `device`, of prompts of unequal length.
fn texts(name: &str, settings: &Generation, device: &Device) -> Vec<Vec<u32>> {
    let fixtures = "../crates/backbones/tests/fixtures/lm";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(fixtures).join(name);
    let model = load_lm(&folder, &LoadOptions::default(), device).unwrap().model;
    let generator = Generator {
        model: &model,
        tokenizer: None,
        eos: &[2],
        device,
    };
    let prompts = [vec![1, 8, 9], vec![1, 20, 11, 30, 7, 15, 6], vec![1]];
    let generated = generator.generate(&prompts, settings, &mut |_, _| {}).unwrap();
    generated.into_iter().map(|one| one.tokens).collect()
}

/// One test: while a step is recorded, another thread may not be able to use the device.
#[test]
fn long_texts_are_those_of_flex_and_the_step_is_recorded() {
    if no_gpu() {
        return;
    }
    let gpu = device(GPU).unwrap();
    let greedy = Generation {
        max_new_tokens: 50,
        ..Generation::default()
    };
    // Norms of queries and keys; windows and soft-capping.
    for name in ["qwen3", "gemma2"] {
        let ours = texts(name, &greedy, &gpu);
        assert_eq!(ours, texts(name, &greedy, &Device::flex()), "{name}");
        assert_eq!(repeated::records(), Some(true), "{name}: the step was not recorded");
    }
    for (top_k, top_p) in [(0, 1.0), (20, 0.9)] {
        let sampled = Generation {
            max_new_tokens: 20,
            temperature: 1.0,
            top_k,
            top_p,
            ..Generation::default()
        };
        let flex = texts("llama3", &sampled, &Device::flex());
        assert_eq!(texts("llama3", &sampled, &gpu), flex, "{top_k} {top_p}");
    }
}
