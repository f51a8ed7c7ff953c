//! What the files beside tokenizer.json change in a tokenizer, and tokenizers that are refused.

use std::path::Path;

use backbones::lm::LmTokenizer;
use serde_json::{Value, json};

/// A tokenizer of bytes, changed by `change`, with tokenizer_config.json.
fn load(change: impl FnOnce(&mut Value), config: &Value) -> Result<LmTokenizer, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat/tokenizers/bytes.json");
    let mut json: Value = serde_json::from_str(&std::fs::read_to_string(source).unwrap()).unwrap();
    change(&mut json);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    LmTokenizer::load(dir.path()).map_err(|e| e.to_string())
}

fn ids(tokenizer: &LmTokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, false).unwrap()
}

#[test]
fn a_prefix_space_is_added_where_transformers_adds_it() {
    let unchanged = |_: &mut Value| {};
    let plain = load(unchanged, &json!({})).unwrap();
    let config = |class: &str| json!({"tokenizer_class": class, "add_prefix_space": true});
    let spaced = load(unchanged, &config("GPT2TokenizerFast")).unwrap();
    assert_ne!(ids(&plain, "the cat"), ids(&plain, " the cat"));
    assert_eq!(ids(&spaced, "the cat"), ids(&plain, " the cat"));
    let other = load(unchanged, &config("PreTrainedTokenizerFast")).unwrap();
    assert_eq!(ids(&other, "the cat"), ids(&plain, "the cat"));

    let nested = |json: &mut Value| {
        let steps = [
            json!({"type": "Digits", "individual_digits": true}),
            json["pre_tokenizer"].take(),
        ];
        json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": steps});
    };
    let nested = load(nested, &config("Qwen2Tokenizer")).unwrap();
    assert_eq!(ids(&nested, "the cat"), ids(&plain, " the cat"));
}

#[test]
fn special_tokens_in_a_text_are_split_on_demand() {
    let unchanged = |_: &mut Value| {};
    let plain = load(unchanged, &json!({})).unwrap();
    let split = load(unchanged, &json!({"split_special_tokens": true})).unwrap();
    assert_eq!(ids(&plain, "<s>"), [0]);
    let found = ids(&split, "<s>");
    assert!(found.len() > 1 && !found.contains(&0), "{found:?}");
    assert_eq!(split.decode(&found, false).unwrap(), "<s>");
}

#[test]
fn random_tokens_are_refused() {
    let dropout = |dropout: Value| load(move |json| json["model"]["dropout"] = dropout, &json!({}));
    let message = dropout(json!(0.3)).unwrap_err();
    assert!(
        message.contains("tokenizer.json") && message.contains("'model.dropout' is 0.3"),
        "{message}"
    );
    assert!(dropout(json!(0.0)).is_ok());
}
