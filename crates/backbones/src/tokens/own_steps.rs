//! The steps that transformers 5's classes for Llama, Gemma, Qwen 2 and BERT build themselves, whatever steps
//! tokenizer.json has. The vocabulary, the merges and the post-processor stay those of the file.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokenizers::models::ModelWrapper;
use tokenizers::{AddedToken, AddedVocabulary, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

use super::class::{BERT, GEMMA, LLAMA, QWEN2};

/// What stands for a space in the vocabularies of SentencePiece.
const SPACE: &str = "▁";

/// How Qwen 2 splits texts: digits one by one.
const QWEN2_PIECES: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// The steps of a class.
#[derive(Debug, Clone)]
pub(super) struct OwnSteps {
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: PreTokenizerWrapper,
    decoder: DecoderWrapper,
    model: OwnModel,
}

/// How a class reads the vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
enum OwnModel {
    /// BPE with a token for unknown characters; with `byte_fallback` they are bytes where these are tokens.
    Bpe {
        unk_token: Option<String>,
        byte_fallback: bool,
    },
    /// As in the file.
    WordPiece,
}

impl OwnSteps {
    /// Those of the class `name` with the settings of tokenizer_config.json; `None` for a class without steps of its own.
    pub fn of(name: &str, config: &Map<String, Value>) -> Option<Self> {
        let flag = |name: &str| config.get(name).and_then(Value::as_bool);
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        match name {
            LLAMA => {
                let spaced = flag("add_prefix_space").unwrap_or(true);
                let scheme = match (spaced, flag("legacy").unwrap_or(false)) {
                    (false, _) => "never",
                    (true, true) => "always",
                    (true, false) => "first",
                };
                if spaced {
                    decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
                }
                Some(Self {
                    normalizer: None,
                    pre_tokenizer: step(
                        json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme,
                        "split": false}),
                    )?,
                    decoder: step(json!({"type": "Sequence", "decoders": decoders}))?,
                    model: OwnModel::Bpe {
                        unk_token: None,
                        byte_fallback: true,
                    },
                })
            }
            GEMMA => {
                let unknown = config
                    .get("unk_token")
                    .map(|token| token.get("content").unwrap_or(token));
                let unknown = unknown.and_then(Value::as_str).unwrap_or("<unk>");
                Some(Self {
                    normalizer: Some(step(
                        json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE}),
                    )?),
                    pre_tokenizer: step(json!({"type": "Split", "pattern": {"String": " "},
                        "behavior": "MergedWithPrevious", "invert": false}))?,
                    decoder: step(json!({"type": "Sequence", "decoders": decoders}))?,
                    model: OwnModel::Bpe {
                        unk_token: Some(unknown.to_string()),
                        byte_fallback: true,
                    },
                })
            }
            QWEN2 => {
                let split = json!({"type": "Split", "pattern": {"Regex": QWEN2_PIECES}, "behavior": "Isolated",
                    "invert": false});
                let bytes = |spaced: bool, use_regex: bool| {
                    json!({"type": "ByteLevel", "add_prefix_space": spaced, "trim_offsets": true,
                        "use_regex": use_regex})
                };
                let steps = [split, bytes(flag("add_prefix_space").unwrap_or(false), false)];
                Some(Self {
                    normalizer: Some(step(json!({"type": "NFC"}))?),
                    pre_tokenizer: step(json!({"type": "Sequence", "pretokenizers": steps}))?,
                    decoder: step(bytes(true, true))?,
                    model: OwnModel::Bpe {
                        unk_token: None,
                        byte_fallback: false,
                    },
                })
            }
            BERT => Some(Self {
                normalizer: Some(step(json!({"type": "BertNormalizer", "clean_text": true,
                    "handle_chinese_chars": flag("tokenize_chinese_chars").unwrap_or(true),
                    "strip_accents": flag("strip_accents"),
                    "lowercase": flag("do_lower_case").unwrap_or(true)}))?),
                pre_tokenizer: step(json!({"type": "BertPreTokenizer"}))?,
                decoder: step(json!({"type": "WordPiece", "prefix": "##", "cleanup": true}))?,
                model: OwnModel::WordPiece,
            }),
            _ => None,
        }
    }

    /// Puts them in place of those of tokenizer.json, whose added tokens stay as far as `keeps` says. A vocabulary of
    /// another kind, which the class does not read, is left as it is.
    pub fn apply(self, tokenizer: &mut Tokenizer, keeps: impl Fn(&str) -> bool) {
        let replaced = match (self.model, tokenizer.get_model()) {
            (OwnModel::WordPiece, ModelWrapper::WordPiece(_)) => None,
            (
                OwnModel::Bpe {
                    unk_token,
                    byte_fallback,
                },
                ModelWrapper::BPE(bpe),
            ) => {
                let same = bpe.unk_token == unk_token
                    && [bpe.fuse_unk, bpe.byte_fallback] == [byte_fallback; 2]
                    && !bpe.ignore_merges;
                (!same).then(|| {
                    let mut own = bpe.clone();
                    own.unk_token = unk_token;
                    own.fuse_unk = byte_fallback;
                    own.byte_fallback = byte_fallback;
                    own.ignore_merges = false;
                    own
                })
            }
            _ => return,
        };
        if let Some(model) = replaced {
            tokenizer.with_model(model);
        }
        tokenizer.with_normalizer(self.normalizer);
        tokenizer.with_pre_tokenizer(Some(self.pre_tokenizer));
        tokenizer.with_decoder(Some(self.decoder));
        // The library finds added tokens by what the normalizer makes of them, which it notes when they are added.
        let mut added: Vec<(u32, AddedToken)> = tokenizer.get_added_tokens_decoder().into_iter().collect();
        added.sort_by_key(|(id, _)| *id);
        let kept = added.into_iter().map(|(_, token)| token);
        let kept: Vec<AddedToken> = kept.filter(|token| keeps(&token.content)).collect();
        tokenizer.with_added_vocabulary(AddedVocabulary::new());
        tokenizer.add_tokens(&kept);
    }
}

/// The special tokens that a class has where its files name none, by name.
pub(super) fn usual_tokens(class: &str) -> &'static [(&'static str, &'static str)] {
    match class {
        LLAMA => &[("unk_token", "<unk>"), ("bos_token", "<s>"), ("eos_token", "</s>")],
        GEMMA => &[
            ("unk_token", "<unk>"),
            ("bos_token", "<bos>"),
            ("eos_token", "<eos>"),
            ("pad_token", "<pad>"),
            ("mask_token", "<mask>"),
        ],
        _ => &[],
    }
}

/// A step from its form in tokenizer.json; none for what the library does not read.
fn step<T: DeserializeOwned>(json: Value) -> Option<T> {
    serde_json::from_value(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
        tokenizer.encode(text, false).unwrap().get_tokens().to_vec()
    }

    /// A tokenizer of single letters with other steps than those of any class.
    fn letters(model: Value, added: Value) -> Tokenizer {
        let json = json!({"version": "1.0", "added_tokens": added, "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "model": model});
        json.to_string().parse().unwrap()
    }

    fn with_class(class: &str, config: Value, mut tokenizer: Tokenizer) -> Tokenizer {
        let config = config.as_object().cloned().unwrap_or_default();
        let steps = OwnSteps::of(class, &config).expect("the class has steps of its own");
        steps.apply(&mut tokenizer, |token| token != "<gone>");
        tokenizer
    }

    fn bpe() -> Tokenizer {
        let vocab = json!({"<unk>": 0, "a": 1, "B": 2, "▁": 3, "b": 4});
        let token = |id: u32, content: &str| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        };
        letters(
            json!({"type": "BPE", "unk_token": "<unk>", "vocab": vocab, "merges": []}),
            json!([token(5, "<s>"), token(6, "<gone>"), token(7, "<x>")]),
        )
    }

    #[test]
    fn llama_puts_a_space_first_always_or_never() {
        for (config, expected) in [
            (json!({}), ["▁", "a", "▁", "B", "<s>", "a"].as_slice()),
            (
                json!({"add_prefix_space": null}),
                ["▁", "a", "▁", "B", "<s>", "a"].as_slice(),
            ),
            (
                json!({"legacy": true}),
                ["▁", "a", "▁", "B", "<s>", "▁", "a"].as_slice(),
            ),
            (
                json!({"add_prefix_space": false}),
                ["a", "▁", "B", "<s>", "a"].as_slice(),
            ),
            (
                json!({"add_prefix_space": false, "legacy": true}),
                ["a", "▁", "B", "<s>", "a"].as_slice(),
            ),
        ] {
            let tokenizer = with_class(LLAMA, config.clone(), bpe());
            assert_eq!(pieces(&tokenizer, "a B<s>a"), expected, "{config}");
            let ids: Vec<u32> = tokenizer.encode("a B", false).unwrap().get_ids().to_vec();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), "a B", "{config}");
        }
    }

    #[test]
    fn added_tokens_that_stay_are_numbered_anew() {
        let tokenizer = with_class(LLAMA, json!({}), bpe());
        assert_eq!(tokenizer.token_to_id("<s>"), Some(5));
        assert_eq!(tokenizer.token_to_id("<gone>"), None);
        assert_eq!(tokenizer.token_to_id("<x>"), Some(6));
    }

    #[test]
    fn gemma_has_spaces_and_no_space_first() {
        let tokenizer = with_class(GEMMA, json!({"add_prefix_space": true}), bpe());
        assert_eq!(pieces(&tokenizer, "a Bé"), ["a", "▁", "B", "<unk>"]);
    }

    #[test]
    fn qwen_2_splits_digits_whatever_the_file_does() {
        let bytes = || {
            letters(
                json!({"type": "BPE", "unk_token": "2", "vocab": {"2": 0, "+": 1, "22": 2, "A": 3, "Ġ": 4, "Ã©": 5, "Ã": 6,
                    "©": 7}, "merges": ["2 2", "Ã ©"]}),
                json!([]),
            )
        };
        let own = with_class(QWEN2, json!({}), bytes());
        assert_eq!(pieces(&own, "22+2 A"), ["2", "2", "+", "2", "Ġ", "A"]);
        // One letter where the text has a letter and an accent; what is no token is left out.
        assert_eq!(pieces(&own, "e\u{301}zA"), ["Ã©", "A"]);
        let ids: Vec<u32> = own.encode("2 A", false).unwrap().get_ids().to_vec();
        assert_eq!(own.decode(&ids, false).unwrap(), "2 A");
        let spaced = with_class(QWEN2, json!({"add_prefix_space": true}), bytes());
        assert_eq!(pieces(&spaced, "A")[0], "Ġ");
    }

    #[test]
    fn bert_has_lower_case_unless_the_config_says_otherwise() {
        let words = || {
            letters(
                json!({"type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "##",
                    "max_input_chars_per_word": 100, "vocab": {"?": 0, "the": 1, "The": 2, "##s": 3}}),
                json!([]),
            )
        };
        assert_eq!(pieces(&with_class(BERT, json!({}), words()), "Thes"), ["the", "##s"]);
        let cased = with_class(BERT, json!({"do_lower_case": false}), words());
        assert_eq!(pieces(&cased, "Thes"), ["The", "##s"]);
    }

    #[test]
    fn a_vocabulary_of_another_kind_keeps_its_steps() {
        let words = letters(
            json!({"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "a": 1}}),
            json!([]),
        );
        let before = words.to_string(false).unwrap();
        assert_eq!(with_class(LLAMA, json!({}), words).to_string(false).unwrap(), before);
    }
}
