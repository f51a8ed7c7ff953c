//! What tokenizer_config.json changes in the tokenizer of tokenizer.json, as transformers 5 does.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::Tokenizer;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;

use super::class::{BERT, Class};
use super::own_steps::{OwnSteps, usual_tokens};
use crate::error::ImportError;
use crate::json::{read_json, read_object};

/// Classes of transformers that build their own "ByteLevel" with `add_prefix_space`. The others take that of tokenizer.json.
/// What else these build is here that of [`OwnSteps`] or of tokenizer.json: for the files that are in use the same.
const OWN_BYTE_LEVEL: [&str; 15] = [
    "BartTokenizer",
    "BlenderbotTokenizer",
    "CodeGenTokenizer",
    "CohereTokenizer",
    "DebertaTokenizer",
    "GPT2Tokenizer",
    "GPTNeoXTokenizer",
    "LEDTokenizer",
    "LongformerTokenizer",
    "LukeTokenizer",
    "MvpTokenizer",
    "Qwen2Tokenizer",
    "Qwen3_5Tokenizer",
    "RobertaTokenizer",
    "WhisperTokenizer",
];

/// Classes that give a model the type of each token where `model_input_names` does not say.
const WITH_TYPES: [&str; 7] = [
    BERT,
    "ConvBertTokenizer",
    "DebertaTokenizer",
    "DebertaV2Tokenizer",
    "FNetTokenizer",
    "LxmertTokenizer",
    "MarkupLMTokenizer",
];
/// Name of these types in `model_input_names`.
const TYPES: &str = "token_type_ids";

/// The changes.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// The fields of tokenizer_config.json, with the special tokens that its class has where it names none.
    pub fields: Map<String, Value>,
    /// False if the model is not given the types of tokens: all are 0 to it.
    pub types: bool,
    /// Steps in place of those of tokenizer.json.
    steps: Option<OwnSteps>,
    /// `add_prefix_space` where a "ByteLevel" has it.
    prefix_space: Option<bool>,
    /// `split_special_tokens`: special tokens in a text are text.
    split_special: bool,
}

impl Settings {
    /// Reads tokenizer_config.json and config.json of `folder`, as far as they are there. `tokenizer`: the text of
    /// tokenizer.json.
    ///
    /// # Errors
    /// A tokenizer_config.json that is malformed.
    pub fn load(folder: &Path, tokenizer: &str) -> Result<Self, ImportError> {
        let fields = read_object(&folder.join("tokenizer_config.json"))?;
        // Errors in config.json are reported where the model is loaded.
        let model = read_json(&folder.join("config.json")).unwrap_or_default();
        // This is how transformers looks for it.
        Ok(Self::of(fields, &model, tokenizer.contains("\"ByteLevel\"")))
    }

    fn of(mut fields: Map<String, Value>, model: &Value, byte_level: bool) -> Self {
        let class = Class::of(&fields, model, byte_level);
        let name = class.name().unwrap_or_default();
        for (token, text) in usual_tokens(name) {
            fields.entry(*token).or_insert_with(|| (*text).into());
        }
        let flag = |name: &str| fields.get(name).and_then(Value::as_bool);
        let names = fields.get("model_input_names").and_then(Value::as_array);
        Self {
            types: match names {
                Some(names) => names.iter().any(|name| name == TYPES),
                None => class == Class::Unknown || WITH_TYPES.contains(&name),
            },
            steps: OwnSteps::of(name, &fields),
            prefix_space: flag("add_prefix_space").filter(|_| OWN_BYTE_LEVEL.contains(&name)),
            split_special: flag("split_special_tokens").unwrap_or(false),
            fields,
        }
    }

    /// Makes the changes.
    pub fn apply(&self, tokenizer: &mut Tokenizer) {
        if let Some(steps) = &self.steps {
            // A class with steps of its own has the added tokens of one of the two files only.
            let listed = self.fields.get("added_tokens_decoder").and_then(Value::as_object);
            let content = |token: &Value| Some(token.get("content")?.as_str()?.to_string());
            let listed: Option<BTreeSet<String>> = listed.map(|tokens| tokens.values().filter_map(content).collect());
            let keeps = |token: &str| listed.as_ref().is_none_or(|listed| listed.contains(token));
            steps.clone().apply(tokenizer, keeps);
        }
        tokenizer.set_encode_special_tokens(self.split_special);
        let before = tokenizer.get_pre_tokenizer().cloned();
        if let Some((space, mut step)) = self.prefix_space.zip(before) {
            set_prefix_space(&mut step, space);
            tokenizer.with_pre_tokenizer(Some(step));
        }
    }
}

fn set_prefix_space(step: &mut PreTokenizerWrapper, space: bool) {
    match step {
        PreTokenizerWrapper::ByteLevel(byte_level) => byte_level.add_prefix_space = space,
        PreTokenizerWrapper::Sequence(steps) => {
            let steps: &mut [PreTokenizerWrapper] = steps.as_mut();
            for step in steps {
                set_prefix_space(step, space);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(config: Value, kind: &str) -> Settings {
        let fields = config.as_object().cloned().unwrap_or_default();
        Settings::of(fields, &json!({"model_type": kind}), false)
    }

    /// As AutoTokenizer of transformers 5 chooses.
    #[test]
    fn a_prefix_space_is_for_classes_that_build_their_own_byte_level() {
        let space = |class: Option<&str>, kind: &str| {
            let mut config = json!({"add_prefix_space": true});
            if let Some(class) = class {
                config["tokenizer_class"] = json!(class);
            }
            of(config, kind).prefix_space
        };
        for (class, kind) in [
            (Some("GPT2Tokenizer"), "gpt2"),
            (Some("GPT2TokenizerFast"), "llama"),
            (Some("Qwen2TokenizerFast"), "qwen3"),
            (Some("RobertaTokenizerFast"), "roberta"),
            (Some("PreTrainedTokenizerFast"), "qwen2"),
            (None, "gpt2"),
            (None, "qwen3"),
        ] {
            assert_eq!(space(class, kind), Some(true), "{class:?} {kind}");
        }
        for (class, kind) in [
            (Some("PreTrainedTokenizerFast"), "gpt2"),
            (Some("LlamaTokenizerFast"), "qwen3"),
            (Some("GPT2Tokenizer"), "phi3"),
            (Some("GPT2Tokenizer"), "mistral"),
            (None, "llama"),
        ] {
            assert_eq!(space(class, kind), None, "{class:?} {kind}");
        }
        assert_eq!(of(json!({}), "gpt2").prefix_space, None);
    }

    /// As BatchEncoding of transformers 5.24 has `token_type_ids` or not.
    #[test]
    fn types_are_given_by_the_class_or_by_model_input_names() {
        let names = |types: bool| match types {
            true => json!(["input_ids", TYPES, "attention_mask"]),
            false => json!(["input_ids", "attention_mask"]),
        };
        for (config, expected) in [
            (json!({}), true),
            (json!({"tokenizer_class": "BertTokenizerFast"}), true),
            (
                json!({"tokenizer_class": "BertTokenizer", "model_input_names": names(false)}),
                false,
            ),
            (json!({"tokenizer_class": "DistilBertTokenizer"}), false),
            (json!({"tokenizer_class": "PreTrainedTokenizerFast"}), false),
            (
                json!({"tokenizer_class": "TokenizersBackend", "model_input_names": names(true)}),
                true,
            ),
        ] {
            assert_eq!(of(config.clone(), "bert").types, expected, "{config}");
        }
        // Of a folder that names nothing the tokenizer's own types are taken.
        assert!(of(json!({}), "").types);
        assert!(of(json!({}), "deberta-v2").types);
        assert!(!of(json!({}), "roberta").types);
    }

    #[test]
    fn a_class_has_special_tokens_that_its_files_do_not_name() {
        let llama = json!({"tokenizer_class": "LlamaTokenizer", "bos_token": null, "eos_token": "<end>"});
        let fields = of(llama, "llama").fields;
        assert_eq!(fields["unk_token"], "<unk>");
        assert_eq!(fields["eos_token"], "<end>");
        assert!(fields["bos_token"].is_null());
        assert!(!of(json!({}), "llama").fields.contains_key("unk_token"));
    }
}
