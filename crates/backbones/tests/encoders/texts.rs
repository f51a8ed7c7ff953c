//! Texts and pairs to batches.

use backbones::classify::{Encoded, TextBatch, TextTokenizer};
use burn::tensor::Device;
use serde_json::json;

/// A tokenizer of words with BERT's special tokens.
fn tokenizer() -> serde_json::Value {
    let special = |token: &str| json!({"id": token, "ids": [if token == "[CLS]" { 1 } else { 2 }], "tokens": [token]});
    let piece = |kind: &str, id: &str, type_id: u32| json!({kind: {"id": id, "type_id": type_id}});
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [piece("SpecialToken", "[CLS]", 0), piece("Sequence", "A", 0), piece("SpecialToken", "[SEP]", 0)],
            "pair": [piece("SpecialToken", "[CLS]", 0), piece("Sequence", "A", 0), piece("SpecialToken", "[SEP]", 0),
                piece("Sequence", "B", 1), piece("SpecialToken", "[SEP]", 1)],
            "special_tokens": {"[CLS]": special("[CLS]"), "[SEP]": special("[SEP]")}},
        "model": {"type": "WordLevel", "unk_token": "[UNK]",
            "vocab": {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "a": 4, "b": 5, "c": 6}}})
}

#[test]
fn texts_and_pairs_are_cut_and_padded() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer().to_string()).unwrap();
    let encoder = TextTokenizer::load(dir.path(), 7, 8).unwrap();
    let single = encoder.encode("A b", None).unwrap();
    assert_eq!(
        (single.ids.as_slice(), single.types.as_slice()),
        ([1, 4, 5, 2].as_slice(), [0; 4].as_slice())
    );
    // Eight tokens at most; of the pair the longer text is cut.
    let pair = encoder.encode("a a a a a a", Some("b c")).unwrap();
    assert_eq!(pair.ids, [1, 4, 4, 4, 2, 5, 6, 2]);
    assert_eq!(pair.types, [0, 0, 0, 0, 0, 1, 1, 1]);

    let none = Encoded {
        ids: vec![],
        types: vec![],
        blanks: vec![],
    };
    let batch = TextBatch::new(&[&single, &pair, &none], &Device::flex());
    assert_eq!(batch.ids.dims(), [3, 8]);
    let wide = TextBatch::padded(&[&single, &pair, &none], 10, &Device::flex());
    assert_eq!((wide.ids.dims(), wide.types.dims()), ([3, 10], [3, 10]));
    assert_eq!(wide.layout.real().filter(|real| *real).count(), 12);
    let ids: Vec<i64> = batch.ids.into_data().iter().collect();
    assert_eq!(ids[..8], [1, 4, 5, 2, 0, 0, 0, 0]);
    let types: Vec<i64> = batch.types.into_data().iter().collect();
    assert_eq!(types[8..16], [0, 0, 0, 0, 0, 1, 1, 1]);
    let real: Vec<bool> = batch.layout.real().collect();
    assert_eq!(real.iter().filter(|real| **real).count(), 12);
}

/// transformers gives a model no types then: all are 0 to it.
#[test]
fn types_that_the_model_is_not_given_are_zeros() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer().to_string()).unwrap();
    std::fs::write(dir.path().join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
    let types = |config: serde_json::Value| {
        std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        let encoder = TextTokenizer::load(dir.path(), 7, 8).unwrap();
        let pair = encoder.encode("a", Some("b")).unwrap();
        assert_eq!(pair.ids, [1, 4, 2, 5, 2]);
        pair.types
    };
    assert_eq!(types(json!({})), [0, 0, 0, 1, 1]);
    let names = json!({"tokenizer_class": "BertTokenizer", "model_input_names": ["input_ids", "attention_mask"]});
    assert_eq!(types(names), [0; 5]);
    assert_eq!(types(json!({"tokenizer_class": "PreTrainedTokenizerFast"})), [0; 5]);
}

/// As AutoTokenizer of transformers cuts: by tokenizer_config.json, or else by tokenizer.json.
#[test]
fn texts_are_cut_on_the_side_that_the_files_name() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, json: serde_json::Value| std::fs::write(dir.path().join(name), json.to_string()).unwrap();
    let load = || TextTokenizer::load(dir.path(), 7, 5);
    let cut = |text: &str, pair: Option<&str>| load().unwrap().encode(text, pair).unwrap().ids;
    write("tokenizer.json", tokenizer());
    assert_eq!(cut("a a b b c", None), [1, 4, 4, 5, 2]);
    write("tokenizer_config.json", json!({"truncation_side": "left"}));
    assert_eq!(cut("a a b b c", None), [1, 5, 5, 6, 2]);
    assert_eq!(cut("a b", Some("c")), [1, 5, 2, 6, 2]);
    let mut left = tokenizer();
    left["truncation"] = json!({"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0});
    write("tokenizer.json", left);
    write("tokenizer_config.json", json!({}));
    assert_eq!(cut("a a b b c", None), [1, 5, 5, 6, 2]);
    write("tokenizer_config.json", json!({"truncation_side": "right"}));
    assert_eq!(cut("a a b b c", None), [1, 4, 4, 5, 2]);
    write("tokenizer_config.json", json!({"truncation_side": "middle"}));
    let message = load().unwrap_err().to_string();
    assert!(
        message.contains("'truncation_side'") && message.contains("left or right"),
        "{message}"
    );
}

#[test]
fn very_long_texts_keep_the_tokens_at_their_ends() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, json: serde_json::Value| std::fs::write(dir.path().join(name), json.to_string()).unwrap();
    write("tokenizer.json", tokenizer());
    let text = "a b c ".repeat(30_000) + "a";
    let cut = |pair: Option<&str>| {
        let encoder = TextTokenizer::load(dir.path(), 7, 8).unwrap();
        encoder.encode(&text, pair).unwrap().ids
    };
    assert_eq!(cut(None), [1, 4, 5, 6, 4, 5, 6, 2]);
    assert_eq!(cut(Some("b")), [1, 4, 5, 6, 4, 2, 5, 2]);
    write("tokenizer_config.json", json!({"truncation_side": "left"}));
    assert_eq!(cut(None), [1, 5, 6, 4, 5, 6, 4, 2]);
}

#[test]
fn only_texts_with_a_token_beyond_the_embedding_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer().to_string()).unwrap();
    let encoder = TextTokenizer::load(dir.path(), 6, 8).unwrap();
    assert_eq!(encoder.encode("a b", None).unwrap().ids, [1, 4, 5, 2]);
    let message = encoder.encode("a c", None).unwrap_err().to_string();
    assert!(message.contains("'c'") && message.contains('6'), "{message}");
}

#[test]
fn padding_tokens_inside_a_text_are_blanks() {
    let dir = tempfile::tempdir().unwrap();
    let mut json = tokenizer();
    json["added_tokens"] = json!([{"id": 0, "content": "[PAD]", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true}]);
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    let blanks = |config: serde_json::Value| {
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let encoder = TextTokenizer::load(dir.path(), 7, 8).unwrap();
        let text = encoder.encode("a [PAD] b", None).unwrap();
        assert_eq!(text.ids, [1, 4, 0, 5, 2]);
        text.blanks.iter().position(|blank| *blank)
    };
    assert_eq!(blanks(json!({"model_type": "llama", "pad_token_id": 0})), Some(2));
    assert_eq!(blanks(json!({"model_type": "llama", "pad_token_id": 4})), Some(1));
    assert_eq!(blanks(json!({"model_type": "llama"})), None);
    assert_eq!(blanks(json!({"model_type": "llama", "pad_token_id": -1})), None);
    // What transformers takes where config.json is silent.
    assert_eq!(blanks(json!({"model_type": "roberta"})), Some(0));
    assert_eq!(blanks(json!({"model_type": "gemma2", "pad_token_id": null})), None);
    let nested = json!({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}});
    assert_eq!(blanks(nested), Some(2));
}

#[test]
fn a_tokenizer_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let says = |vocabulary: usize, length: usize, parts: &[&str]| {
        let message = TextTokenizer::load(dir.path(), vocabulary, length)
            .unwrap_err()
            .to_string();
        assert!(
            parts.iter().all(|part| message.contains(part)),
            "{parts:?} not in: {message}"
        );
    };
    says(7, 8, &["tokenizer.json", "missing"]);
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer().to_string()).unwrap();
    says(7, 3, &["3 tokens leave no room", "3 special"]);
    std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    says(7, 8, &["tokenizer.json"]);
}
