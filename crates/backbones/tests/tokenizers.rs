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
    let nested = load(nested, &config("GPTNeoXTokenizer")).unwrap();
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

/// A tokenizer of the fixtures with tokenizer_config.json, for a model of `kind`.
fn of_model(name: &str, config: &Value, kind: &str) -> LmTokenizer {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/chat/tokenizers/{name}.json"));
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(source, dir.path().join("tokenizer.json")).unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let model = json!({"model_type": kind}).to_string();
    std::fs::write(dir.path().join("config.json"), model).unwrap();
    LmTokenizer::load(dir.path()).unwrap()
}

/// Ids of AutoTokenizer of transformers 5.24: tokenizer.json puts a space before each piece, and its class does not.
#[test]
fn llama_and_gemma_have_their_classes_steps() {
    let llama = |more: Value| {
        let mut config = json!({"tokenizer_class": "LlamaTokenizer"});
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().cloned().unwrap());
        config
    };
    let texts = ["the cat", " a  b", "cat<s>the"];
    let spaces: &[u32] = &[261, 281, 261, 261, 282];
    let cases: [(Value, &str, [&[u32]; 3]); 6] = [
        (llama(json!({})), "llama", [&[302, 303], spaces, &[303, 1, 309, 285]]),
        (
            llama(json!({"legacy": true})),
            "llama",
            [&[302, 303], spaces, &[303, 1, 302]],
        ),
        (
            llama(json!({"add_prefix_space": false})),
            "llama",
            [&[309, 285, 303], spaces, &[283, 304, 1, 309, 285]],
        ),
        (
            llama(json!({})),
            "mistral",
            [&[302, 303], &[261, 261, 281, 261, 261, 282], &[303, 1, 302]],
        ),
        (
            json!({}),
            "gemma2",
            [&[309, 285, 303], spaces, &[283, 304, 1, 309, 285]],
        ),
        (
            json!({"tokenizer_class": "PreTrainedTokenizerFast"}),
            "gemma2",
            [&[302, 303], &[261, 261, 281, 261, 261, 282], &[303, 1, 302]],
        ),
    ];
    for (config, kind, expected) in cases {
        let tokenizer = of_model("prepend", &config, kind);
        let found = texts.map(|text| ids(&tokenizer, text));
        assert_eq!(found.each_ref().map(Vec::as_slice), expected, "{config} {kind}");
    }
    // Llama 3 names this class too, and has bytes.
    let bytes = of_model("bytes", &llama(json!({})), "llama");
    assert_eq!(ids(&bytes, "the cat"), [265, 340]);
    let tokenizer = of_model("prepend", &json!({}), "gemma2");
    assert_eq!(tokenizer.eos_token(), Some("<eos>"));
}

/// Ids of AutoTokenizer of transformers 5.24 for tokens that tokenizer.json does not have.
#[test]
fn special_tokens_are_added_in_the_order_of_transformers() {
    let texts = ["the <new> cat", "a <new2>b", "<mask>"];
    let cases: [(Value, [&[u32]; 3]); 3] = [
        (
            json!({"extra_special_tokens": {"image_token": "<new>"}}),
            [
                &[265, 225, 376, 340],
                &[69, 332, 82, 73, 91, 22, 34, 70],
                &[32, 81, 69, 87, 79, 34],
            ],
        ),
        (
            json!({"additional_special_tokens": ["<new>", {"content": "<new2>", "lstrip": true, "__type": "AddedToken"}]}),
            [&[265, 225, 376, 340], &[69, 377, 70], &[32, 81, 69, 87, 79, 34]],
        ),
        (
            json!({"mask_token": "<mask>", "cls_token": "<new>", "image_token": "<new2>"}),
            [&[265, 225, 376, 340], &[69, 225, 378, 70], &[377]],
        ),
    ];
    for (mut config, expected) in cases {
        let named = json!({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"});
        config
            .as_object_mut()
            .unwrap()
            .extend(named.as_object().cloned().unwrap());
        let tokenizer = of_model("bytes", &config, "llama");
        let found = texts.map(|text| ids(&tokenizer, text));
        assert_eq!(found.each_ref().map(Vec::as_slice), expected, "{config}");
    }
}

/// A class with steps of its own has the tokens of added_tokens_decoder alone, numbered behind the vocabulary.
#[test]
fn gemma_has_the_added_tokens_of_one_file() {
    let token = json!({"content": "<new>", "special": true, "normalized": false});
    let config = |class: &str| {
        json!({"tokenizer_class": class, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
            "added_tokens_decoder": {"690": token}})
    };
    let own = of_model("prepend", &config("GemmaTokenizer"), "gemma2");
    assert_eq!(ids(&own, "a<new>b"), [281, 323, 282]);
    assert!(ids(&own, "<|im_end|>").len() > 1);
    let plain = of_model("prepend", &config("PreTrainedTokenizerFast"), "gemma2");
    assert_eq!(ids(&plain, "<|im_end|>"), [4]);
}
