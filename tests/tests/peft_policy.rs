//! Every option of adapter_config.json that decides what an adapter computes (fixtures/make_policy.py): adapters as HF PEFT
//! saves them, on tiny language models, against the logits that PEFT computes; merged and written again, too.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use backbones::lm::adapter::{attach, for_peft};
use backbones::lm::{Decoder, Layout, LoadOptions, load_lm};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::Value;
use wegeft::storage::{CONFIG_FILE, PICKLED_FILE, Tensors, WEIGHTS_FILE, read_tensors};
use wegeft::{Adapted, AdapterError, AdapterFiles};

static EXPECTED: LazyLock<Tensors> = LazyLock::new(|| read_tensors(&folder("expected.safetensors")).unwrap());

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/policy").join(name)
}

fn fields(folder: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder.join(CONFIG_FILE)).unwrap()).unwrap()
}

/// The model that a case names in its config.
fn model(case: &str) -> Decoder {
    let name = fields(&folder(case))["base_model_name_or_path"]
        .as_str()
        .unwrap()
        .to_string();
    let loaded = load_lm(&folder("models").join(name), &LoadOptions::default(), &Device::flex());
    loaded.unwrap().model
}

fn loaded(case: &str, folder: &Path) -> Result<Adapted<Decoder>, AdapterError> {
    attach(model(case), AdapterFiles::read(folder)?)
}

/// Greatest difference of the model's logits from PEFT's.
fn off(model: &Decoder, case: &str) -> f32 {
    let ids = &EXPECTED["input_ids"];
    let (rows, tokens) = (ids.shape[0], ids.shape[1]);
    let values: Vec<i64> = ids.values.iter().map(|id| *id as i64).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(values, [rows, tokens]), &Device::flex());
    let logits = model.logits(model.hidden(ids, &Layout::dense(rows, tokens), None));
    let (ours, theirs) = (logits.into_data(), &EXPECTED[case]);
    assert_eq!(ours.shape()[..], theirs.shape[..], "{case}");
    let pairs = ours.iter::<f32>().zip(&theirs.values);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Loads, merges and writes a case; all of it against PEFT.
fn check(case: &str) {
    let adapted = loaded(case, &folder(case)).unwrap_or_else(|error| panic!("{case}: {error}"));
    let bound = off(&adapted.bind(), case);
    assert!(bound < 1e-4, "{case}: {bound}");
    match adapted.merge() {
        Ok(merged) => {
            let merged = off(&merged, case);
            assert!(merged < 1e-4, "{case}, merged: {merged}");
        }
        // The bias of B needs a bias to be merged into; PEFT refuses that too. Virtual tokens are no weight.
        Err(error) => assert!(
            ["lora_bias", "prompt_embedding_saved"].contains(&case),
            "{case}: {error}"
        ),
    }
    let again = tempfile::tempdir().unwrap();
    let write = |files: AdapterFiles| {
        let files = for_peft(files, adapted.backbone()).unwrap();
        files.write(again.path()).unwrap();
    };
    write(adapted.files());
    let written = loaded(case, again.path()).unwrap();
    assert_eq!(written.config(), adapted.config(), "{case}");
    let written = off(&written.bind(), case);
    assert!(written < 1e-4, "{case}, written again: {written}");
    if let Ok(files) = adapted.lora_files() {
        write(files);
        let exported = off(&loaded(case, again.path()).unwrap().bind(), case);
        assert!(exported < 1e-4, "{case}, exported: {exported}");
    }
}

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        const CASES: &[&str] = &[$(stringify!($case)),*];

        $(
            #[test]
            fn $case() {
                check(stringify!($case));
            }
        )*
    };
}

include!("../fixtures/policy/cases.rs");

#[test]
fn every_fixture_has_a_test() {
    let folders = std::fs::read_dir(folder("")).unwrap().map(Result::unwrap);
    let folders = folders.filter(|entry| entry.path().join(CONFIG_FILE).is_file());
    let folders: BTreeSet<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(folders, CASES.iter().map(ToString::to_string).collect());
}

#[test]
fn what_peft_wrote_is_written_again_with_its_keys() {
    for case in [
        "bias_all",
        "saved_ends",
        "target_parameters",
        "resized_vocabulary",
        "trainable_tokens",
        "tied_saved_embed_ensured",
        "tied_saved_lm_ensured",
        "tied_target_embed_tokens_ensured",
        "gpt2_target_wte_ensured",
        "gpt2_target_head_ensured",
        "gpt2_saved_wte_ensured",
        "token_indices",
        "token_indices_named",
        "token_indices_gpt2",
        "tied_token_indices",
        "tied_token_indices_named",
    ] {
        let adapted = loaded(case, &folder(case)).unwrap();
        let theirs = AdapterFiles::read(folder(case)).unwrap();
        for files in [Ok(adapted.files()), adapted.lora_files()] {
            // Without a LoRA form.
            let Ok(files) = files else { continue };
            let files = for_peft(files, adapted.backbone()).unwrap();
            // PEFT stores the frozen weight beside an embedding's adapter, too.
            let keys = |files: &AdapterFiles| {
                let keys = files
                    .tensors()
                    .keys()
                    .filter(|key| !key.ends_with(".base_layer.weight"));
                keys.cloned().collect::<Vec<_>>()
            };
            assert_eq!(keys(&files), keys(&theirs), "{case}");
            let off = off(&attach(model(case), files).unwrap().bind(), case);
            assert!(off < 1e-4, "{case}: {off}");
        }
    }
}

#[test]
fn the_name_that_peft_needs_to_tie_gpt2_is_written() {
    for case in ["gpt2_target_head_ensured", "tied_target_embed_tokens_ensured"] {
        let adapted = loaded(case, &folder(case)).unwrap();
        assert!(adapted.backbone().config().tied, "{case}");
        let files = for_peft(adapted.lora_files().unwrap(), adapted.backbone()).unwrap();
        let targets = files.fields()["target_modules"].to_string();
        assert!(
            targets.contains("lm_head") || targets.contains("embed_tokens"),
            "{targets}"
        );
    }
}

#[test]
fn rows_of_a_tied_embedding_below_a_lora_of_the_head_are_refused() {
    let case = "tied_target_lm_head";
    let files = AdapterFiles::read(folder(case)).unwrap();
    let files = files.with_field("trainable_token_indices", serde_json::json!([1, 6]));
    let message = attach(model(case), files).unwrap_err().to_string();
    assert!(
        message.contains("trainable_token_indices") && message.contains("lm_head"),
        "{message}"
    );
}

#[test]
fn a_head_that_an_adapter_unties_is_the_model_s_own() {
    for (case, tied) in [
        ("tied_saved_embed", false),
        ("tied_target_lm_head", false),
        ("tied_target_embed_tokens_ensured", true),
        ("tied_token_indices", true),
    ] {
        let adapted = loaded(case, &folder(case)).unwrap();
        assert_eq!(adapted.backbone().config().tied, tied, "{case}");
    }
}

#[test]
fn names_that_match_nothing_beside_others_are_named() {
    let case = "name_without_match";
    let adapted = loaded(case, &folder(case)).unwrap();
    let warnings = adapted.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("'query_key_value'"),
        "{warnings:?}"
    );
}

#[test]
fn a_file_in_pytorch_s_own_format_is_read() {
    let case = "pickled";
    assert!(folder(case).join(PICKLED_FILE).is_file() && !folder(case).join(WEIGHTS_FILE).exists());
    assert!(off(&loaded(case, &folder(case)).unwrap().bind(), case) < 1e-4);
}

#[test]
fn what_the_fork_reads_has_no_field_that_it_does_not_know() {
    let case = "fork_tied";
    let adapted = loaded(case, &folder(case)).unwrap();
    let again = tempfile::tempdir().unwrap();
    adapted.save(again.path()).unwrap();
    assert_eq!(fields(again.path()), fields(&folder(case)));
}
