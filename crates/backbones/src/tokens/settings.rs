//! What tokenizer_config.json changes in the tokenizer of tokenizer.json, as transformers 5 does.

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;

use crate::error::ImportError;
use crate::json::read_json;

/// Classes of transformers that build their own "ByteLevel" with `add_prefix_space`. The others take that of tokenizer.json.
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

/// Models (`model_type`) whose tokenizer transformers takes from tokenizer.json whatever class is named.
const PLAIN: [&str; 3] = ["mistral", "modernbert", "phi3"];

/// The changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// `add_prefix_space` where it has an effect.
    prefix_space: Option<bool>,
    /// `split_special_tokens`: special tokens in a text are text.
    split_special: bool,
}

impl Settings {
    /// Reads tokenizer_config.json and config.json of `folder`, as far as they are there.
    ///
    /// # Errors
    /// A tokenizer_config.json that is malformed.
    pub fn load(folder: &Path) -> Result<Self, ImportError> {
        let path = folder.join("tokenizer_config.json");
        if !path.is_file() {
            return Ok(Self::default());
        }
        // Whoever reads the model says what is wrong with its config.
        let model = read_json(&folder.join("config.json")).unwrap_or_default();
        Ok(Self::of(&read_json(&path)?, &model))
    }

    fn of(config: &Value, model: &Value) -> Self {
        let flag = |name: &str| config.get(name).and_then(Value::as_bool);
        Self {
            prefix_space: flag("add_prefix_space").filter(|_| has_own_byte_level(config, model)),
            split_special: flag("split_special_tokens").unwrap_or(false),
        }
    }

    /// Makes the changes.
    pub fn apply(&self, tokenizer: &mut Tokenizer) {
        tokenizer.set_encode_special_tokens(self.split_special);
        let before = tokenizer.get_pre_tokenizer().cloned();
        if let Some((space, mut step)) = self.prefix_space.zip(before) {
            set_prefix_space(&mut step, space);
            tokenizer.with_pre_tokenizer(Some(step));
        }
    }
}

/// True where transformers takes a class of [`OWN_BYTE_LEVEL`].
fn has_own_byte_level(config: &Value, model: &Value) -> bool {
    let text = |json: &Value, field: &str| json.get(field).and_then(Value::as_str).map(String::from);
    let kind = text(model, "model_type").unwrap_or_default();
    // Of these models transformers takes its own class whatever class is named.
    if kind == "qwen2" {
        return true;
    }
    if PLAIN.contains(&kind.as_str()) {
        return false;
    }
    let named = text(config, "tokenizer_class").or_else(|| text(model, "tokenizer_class"));
    match named {
        Some(class) => OWN_BYTE_LEVEL.contains(&class.strip_suffix("Fast").unwrap_or(&class)),
        None => ["gpt2", "qwen3", "roberta"].contains(&kind.as_str()),
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

    /// As AutoTokenizer of transformers 5 chooses.
    #[test]
    fn a_prefix_space_is_for_classes_that_build_their_own_byte_level() {
        let of = |class: Option<&str>, kind: &str| {
            let mut config = json!({"add_prefix_space": true});
            if let Some(class) = class {
                config["tokenizer_class"] = json!(class);
            }
            Settings::of(&config, &json!({"model_type": kind})).prefix_space
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
            assert_eq!(of(class, kind), Some(true), "{class:?} {kind}");
        }
        for (class, kind) in [
            (Some("PreTrainedTokenizerFast"), "gpt2"),
            (Some("LlamaTokenizerFast"), "qwen3"),
            (Some("GPT2Tokenizer"), "phi3"),
            (Some("GPT2Tokenizer"), "mistral"),
            (None, "llama"),
        ] {
            assert_eq!(of(class, kind), None, "{class:?} {kind}");
        }
        let model = json!({"model_type": "llama", "tokenizer_class": "GPT2Tokenizer"});
        assert_eq!(
            Settings::of(&json!({"add_prefix_space": false}), &model).prefix_space,
            Some(false)
        );
        assert_eq!(Settings::of(&json!({}), &model), Settings::default());
    }
}
