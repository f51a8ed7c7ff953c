//! Reading config.json strictly: a field that nobody read and that says something is refused by name, because a
//! model that silently ignores part of its config computes something else than its authors' model.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Fields that no forward pass of ours depends on: tokens, training, bookkeeping.
const IGNORED: [&str; 43] = [
    "architectures",
    "attention_dropout",
    "attn_pdrop",
    "auto_map",
    "bad_words_ids",
    "bos_token_id",
    "cache_implementation",
    "cls_token_id",
    "decoder_start_token_id",
    "dtype",
    "embd_pdrop",
    "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_llama_config",
    "keys_to_ignore_at_inference",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "name_or_path",
    "num_beams",
    "num_return_sequences",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "resid_pdrop",
    "return_dict",
    "sep_token_id",
    "task_specific_params",
    "temperature",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "transformers_version",
    "unk_token_id",
    "use_cache",
];
/// Prefixes of the same.
const IGNORED_PREFIXES: [&str; 4] = ["_", "unsloth", "transformers.js", "summary_"];

/// The fields of a JSON object, and which of them have been read.
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Fields<'a> {
    /// The fields of `json`.
    ///
    /// # Errors
    /// `json` is no object.
    pub fn new(json: &'a Value) -> Result<Self, String> {
        let map = json
            .as_object()
            .ok_or_else(|| format!("expected a JSON object, found {json}"))?;
        Ok(Self {
            map,
            read: RefCell::default(),
        })
    }

    /// The value of a field; `None` if it is absent or null.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(name.to_string());
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// True if the field is there, null or not.
    pub fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// A whole number of at least 0, if the field is there.
    pub fn maybe_count(&self, name: &str) -> Result<Option<usize>, String> {
        self.typed(name, "a whole number", |value| value.as_u64().map(|n| n as usize))
    }

    /// A whole number; `default` if absent.
    pub fn count_or(&self, name: &str, default: usize) -> Result<usize, String> {
        Ok(self.maybe_count(name)?.unwrap_or(default))
    }

    /// A whole number that must be there.
    pub fn count(&self, name: &str) -> Result<usize, String> {
        self.maybe_count(name)?
            .ok_or_else(|| format!("field '{name}' is missing; expected a whole number"))
    }

    /// A number, if the field is there.
    pub fn maybe_number(&self, name: &str) -> Result<Option<f64>, String> {
        self.typed(name, "a number", Value::as_f64)
    }

    /// A number; `default` if absent.
    pub fn number_or(&self, name: &str, default: f64) -> Result<f64, String> {
        Ok(self.maybe_number(name)?.unwrap_or(default))
    }

    /// A number that must be there.
    pub fn number(&self, name: &str) -> Result<f64, String> {
        self.maybe_number(name)?
            .ok_or_else(|| format!("field '{name}' is missing; expected a number"))
    }

    /// true or false; `default` if absent.
    pub fn flag_or(&self, name: &str, default: bool) -> Result<bool, String> {
        Ok(self.typed(name, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A text; `default` if absent.
    pub fn text_or(&self, name: &str, default: &'a str) -> Result<&'a str, String> {
        Ok(self.typed(name, "a text", Value::as_str)?.unwrap_or(default))
    }

    /// A list of numbers, if the field is there.
    pub fn maybe_numbers(&self, name: &str) -> Result<Option<Vec<f64>>, String> {
        self.typed(name, "a list of numbers", |value| {
            value.as_array()?.iter().map(Value::as_f64).collect()
        })
    }

    /// A list of texts, if the field is there.
    pub fn maybe_texts(&self, name: &str) -> Result<Option<Vec<&'a str>>, String> {
        self.typed(name, "a list of texts", |value| {
            value.as_array()?.iter().map(Value::as_str).collect()
        })
    }

    fn typed<T>(&self, name: &str, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => read(value)
                .map(Some)
                .ok_or_else(|| format!("field '{name}' is {value}; expected {expected}")),
        }
    }

    /// The end of reading.
    ///
    /// # Errors
    /// A field that was not read and is not neutral.
    pub fn finish(&self) -> Result<(), String> {
        let read = self.read.borrow();
        let unknown = self.map.iter().find(|(name, value)| {
            !read.contains(*name)
                && !IGNORED.contains(&name.as_str())
                && !IGNORED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                && says_something(value)
        });
        match unknown {
            None => Ok(()),
            Some((name, value)) => Err(format!(
                "field '{name}' is {value}, which is not implemented; remove it if it does not change what this model computes"
            )),
        }
    }
}

/// False for null, false, zero and whatever is empty.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_read_or_says_nothing_passes_and_the_rest_is_named() {
        let json = json!({"a": 3, "b": null, "use_cache": true, "_x": 1, "new_gate": false, "odd": 2});
        let fields = Fields::new(&json).unwrap();
        assert_eq!((fields.count("a"), fields.maybe_number("b")), (Ok(3), Ok(None)));
        assert!(fields.finish().unwrap_err().contains("'odd' is 2"));
        assert_eq!(fields.count("odd"), Ok(2));
        assert_eq!(fields.finish(), Ok(()));
        assert!(fields.count("missing").unwrap_err().contains("'missing' is missing"));
        assert!(fields.flag_or("a", true).unwrap_err().contains("true or false"));
    }
}
