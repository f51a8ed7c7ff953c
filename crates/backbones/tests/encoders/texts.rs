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
    };
    let batch = TextBatch::new(&[&single, &pair, &none], &Device::flex());
    assert_eq!(batch.ids.dims(), [3, 8]);
    let ids: Vec<i64> = batch.ids.into_data().iter().collect();
    assert_eq!(ids[..8], [1, 4, 5, 2, 0, 0, 0, 0]);
    let types: Vec<i64> = batch.types.into_data().iter().collect();
    assert_eq!(types[8..16], [0, 0, 0, 0, 0, 1, 1, 1]);
    let real: Vec<bool> = batch.layout.real().collect();
    assert_eq!(real.iter().filter(|real| **real).count(), 12);
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
    says(6, 8, &["'c'", "6 rows"]);
    says(7, 3, &["3 tokens leave no room", "3 special"]);
    std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    says(7, 8, &["tokenizer.json"]);
}
