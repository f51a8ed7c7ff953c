//! Prompt tuning and prefix tuning of language models against HF PEFT (fixtures/make_prompts.py): logits, and the adapter
//! after one gradient step. Virtual tokens stand in front of every document: padding, packing and a cache change nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use backbones::lm::{Cache, Decoder, Layout, LoadOptions, Side, load_lm};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Int, Tensor, Tolerance};
use serde_json::Value;
use wegeft::storage::{CONFIG_FILE, Stored, Tensors, WEIGHTS_FILE, read_tensors, write_tensors};
use wegeft::{Adapted, AdapterConfig, Adapters};

/// Cases of make_prompts.py, and the model of each.
const CASES: [(&str, &str); 4] = [
    ("prompt", "llama"),
    ("prompt_gpt2", "gpt2"),
    ("prefix", "llama"),
    ("prefix_gpt2", "gpt2"),
];
const IDS: [[i32; 7]; 2] = [[1, 6, 25, 7, 16, 2, 30], [1, 15, 25, 6, 16, 9, 12]];
const VOCABULARY: usize = 32;

static EXPECTED: LazyLock<Tensors> =
    LazyLock::new(|| read_tensors(&fixtures().join("prompts/expected.safetensors")).unwrap());

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn model(name: &str, device: &Device) -> Decoder {
    let folder = fixtures().join("policy/models").join(name);
    load_lm(&folder, &LoadOptions::default(), device).unwrap().model
}

/// The adapter of that case as PEFT has it on disk.
fn adapted(case: &str, name: &str, when: &str, device: &Device) -> Adapted<Decoder> {
    let folder = tempfile::tempdir().unwrap();
    let configs = fs::read_to_string(fixtures().join("prompts/configs.json")).unwrap();
    let configs: Value = serde_json::from_str(&configs).unwrap();
    fs::write(folder.path().join(CONFIG_FILE), configs[case]["config"].to_string()).unwrap();
    let key = "prompt_embeddings".to_string();
    let tensors = [(key.clone(), EXPECTED[&format!("{case}/{when}/{key}")].clone())];
    write_tensors(&folder.path().join(WEIGHTS_FILE), &tensors.into()).unwrap();
    Adapted::load(model(name, device), folder.path()).unwrap()
}

fn ids(device: &Device) -> Tensor<2, Int> {
    Tensor::from_ints(IDS, device)
}

fn logits(bound: &Decoder, device: &Device) -> Tensor<3> {
    bound.logits(bound.hidden(ids(device), &Layout::dense(2, 7), None))
}

fn close(ours: Tensor<3>, theirs: &Stored, what: &str) {
    let ours: Vec<f32> = ours.into_data().iter::<f32>().collect();
    assert_eq!(ours.len(), theirs.values.len(), "{what}");
    for (index, (a, b)) in ours.iter().zip(&theirs.values).enumerate() {
        assert!((a - b).abs() < 5e-5, "{what}[{index}]: {a} against PEFT's {b}");
    }
}

#[test]
fn every_case_agrees_with_peft() {
    let device = Device::flex().autodiff();
    for (case, name) in CASES {
        let adapted = adapted(case, name, "before", &device);
        let before = logits(&adapted.bind(), &device);
        close(before.clone(), &EXPECTED[&format!("{case}/logits_before")], case);
        let targets = ids(&device).narrow(1, 1, 6).reshape([12]);
        let loss = CrossEntropyLossConfig::new()
            .init(&device)
            .forward(before.narrow(1, 0, 6).reshape([12, VOCABULARY]), targets);
        let grads = GradientsParams::from_grads(loss.backward(), &adapted);
        let adapted = SgdConfig::new().init().step(0.1, adapted, grads);
        close(
            logits(&adapted.bind(), &device),
            &EXPECTED[&format!("{case}/logits_after")],
            case,
        );
        let folder = tempfile::tempdir().unwrap();
        adapted.save(folder.path()).unwrap();
        let ours = read_tensors(&folder.path().join(WEIGHTS_FILE)).unwrap();
        assert_eq!(ours.len(), 1, "{case}");
        let (ours, theirs) = (
            &ours["prompt_embeddings"],
            &EXPECTED[&format!("{case}/after/prompt_embeddings")],
        );
        assert_eq!(ours.shape, theirs.shape, "{case}");
        for (a, b) in ours.values.iter().zip(&theirs.values) {
            assert!((a - b).abs() < 2e-6, "{case}: {a} against PEFT's {b}");
        }
    }
}

#[test]
fn padding_packing_and_a_cache_change_nothing() {
    let device = Device::flex();
    for (case, name) in CASES {
        let bound = adapted(case, name, "after", &device).bind();
        let whole = bound.hidden(ids(&device), &Layout::dense(2, 7), None);
        let same = |ours: Tensor<3>, theirs: Tensor<3>, what: &str| {
            let [rows, tokens, d] = ours.dims();
            assert_eq!([rows, tokens, d], theirs.dims(), "{case}, {what}");
            ours.into_data()
                .assert_approx_eq::<f32>(&theirs.into_data(), Tolerance::absolute(1e-5));
        };
        // Rows of three tokens and of seven, padded on either side.
        let of = |row: usize, tokens: usize| whole.clone().slice([row..row + 1, 0..tokens]);
        for side in [Side::Left, Side::Right] {
            let shift = if side == Side::Left { 4 } else { 0 };
            let mut rows = IDS.map(|row| row.to_vec());
            rows[0].truncate(3);
            let padding = if shift == 0 { 3..3 } else { 0..0 };
            rows[0].splice(padding, [0; 4]);
            let padded = Tensor::<1, Int>::from_ints(rows.concat().as_slice(), &device).reshape([2, 7]);
            let hidden = bound.hidden(padded, &Layout::padded(&[3, 7], 7, side), None);
            same(hidden.clone().slice([0..1, shift..shift + 3]), of(0, 3), "padded");
            same(hidden.slice([1..2, 0..7]), of(1, 7), "beside a padded row");
        }
        // Both rows one after the other, beside a row that has only one.
        let packed = [IDS.concat(), [&IDS[0][..], &[0; 7]].concat()].concat();
        let packed = Tensor::<1, Int>::from_ints(packed.as_slice(), &device).reshape([2, 14]);
        let hidden = bound.hidden(packed, &Layout::packed(&[vec![7, 7], vec![7]], 14), None);
        same(hidden.clone().slice([0..1, 0..7]), of(0, 7), "packed first");
        same(hidden.clone().slice([0..1, 7..14]), of(1, 7), "packed second");
        same(hidden.slice([1..2, 0..7]), of(0, 7), "packed alone");
        // Four tokens, then one at a time, from a cache that is read in blocks.
        for block in [1, 4] {
            let mut cache = Cache::in_blocks(bound.config().layers.len(), 8, block);
            let mut parts = vec![bound.hidden(ids(&device).narrow(1, 0, 4), &Layout::dense(2, 4), Some(&mut cache))];
            for column in 4..7 {
                let next = ids(&device).narrow(1, column, 1);
                parts.push(bound.hidden(next, &Layout::dense(2, 1), Some(&mut cache)));
            }
            same(Tensor::cat(parts, 1), whole.clone(), "cached");
            assert_eq!(cache.tokens(), 10, "{case}: three virtual tokens and seven of text");
        }
    }
}

#[test]
fn counts_and_what_cannot_be() {
    let device = Device::flex();
    let init = |config: AdapterConfig| config.init(model("llama", &device));
    // Llama of 16, three layers, two heads of keys and values of four.
    let params = |config: AdapterConfig| init(config).unwrap().summary().adapter_params;
    assert_eq!(params(AdapterConfig::prompt_tuning(5)), 5 * 16);
    assert_eq!(params(AdapterConfig::prefix_tuning(5)), 5 * 3 * 2 * 8);
    let message = |config: AdapterConfig| init(config).unwrap_err().to_string();
    let targeted = AdapterConfig::prompt_tuning(5).with_target_modules(["q_proj"]);
    assert!(message(targeted).contains("target_modules"));
    assert!(message(AdapterConfig::prefix_tuning(0)).contains("num_virtual_tokens"));
    assert!(message(AdapterConfig::vpt(2, true)).contains("no wegeft::Hook named 'input'"));
    assert!(init(AdapterConfig::prompt_tuning(5)).unwrap().merge().is_err());
    let mut adapters = Adapters::new(model("llama", &device));
    adapters.add("prompt", &AdapterConfig::prompt_tuning(5)).unwrap();
    let mixed = adapters.bind_rows(&["prompt", "__base__"]).unwrap_err().to_string();
    assert!(mixed.contains("virtual tokens"), "{mixed}");
}
