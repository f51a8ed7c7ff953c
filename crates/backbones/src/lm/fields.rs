//! Reading config.json. A family's reader asks for the fields that its reference implementation reads, and no others:
//! these are the fields that matter. Other fields are ignored, as there, and can be named in a warning.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::error::ConfigError;
/// Fields that every config of transformers may carry and that no forward pass reads: not worth a warning.
const BOOKKEEPING: [&str; 48] = [
    "architectures",
    "attention_dropout",
    "attn_pdrop",
    "auto_map",
    "bad_words_ids",
    "bos_token_id",
    "cache_implementation",
    "cls_token_id",
    "decoder_start_token_id",
    "do_sample",
    "dtype",
    "embd_pdrop",
    "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "is_llama_config",
    "keys_to_ignore_at_inference",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "n_ctx",
    "name_or_path",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "resid_pdrop",
    "return_dict",
    "sep_token_id",
    "task_specific_params",
    "temperature",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "transformers_version",
    "use_cache",
];
/// Prefixes of the same.
const BOOKKEEPING_PREFIXES: [&str; 5] = ["_", "unsloth", "transformers.js", "summary_", "unk_token"];

/// No size of a decoder comes near this; products of two of them still fit.
const MOST: u64 = 1 << 28;

/// The fields of a JSON object, and which of them have been read.
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
    nested: RefCell<Vec<String>>,
}

impl<'a> Fields<'a> {
    /// The fields of `json`.
    ///
    /// # Errors
    /// `json` is not an object.
    pub fn new(json: &'a Value) -> Result<Self, ConfigError> {
        let map = json
            .as_object()
            .ok_or_else(|| ConfigError::NotAnObject { found: shortened(json) })?;
        Ok(Self {
            map,
            read: RefCell::default(),
            nested: RefCell::default(),
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

    /// A whole number of at least 0, if the field is there. 4.0 is 4.
    ///
    /// # Errors
    /// A field of another type, or a number larger than any decoder's.
    pub fn maybe_count(&self, name: &str) -> Result<Option<usize>, ConfigError> {
        let whole = |value: &Value| {
            let float = || value.as_f64().filter(|x| x.fract() == 0.0 && *x >= 0.0);
            value.as_u64().or_else(|| float().map(|x| x as u64))
        };
        match self.typed(name, "a whole number", whole)? {
            Some(count) if count > MOST => {
                Err(ConfigError::field(name, format!("is {count}; expected at most {MOST}")))
            }
            count => Ok(count.map(|count| count as usize)),
        }
    }

    /// A whole number; `default` if absent.
    ///
    /// # Errors
    /// As [`Fields::maybe_count`].
    pub fn count_or(&self, name: &str, default: usize) -> Result<usize, ConfigError> {
        Ok(self.maybe_count(name)?.unwrap_or(default))
    }

    /// A number of positions, if the field is there. More than any text has is as good as the most.
    ///
    /// # Errors
    /// A field that is not a whole number of at least 0.
    pub fn maybe_length(&self, name: &str) -> Result<Option<usize>, ConfigError> {
        let whole = |value: &Value| value.as_f64().filter(|x| x.fract() == 0.0 && *x >= 0.0);
        let length = self.typed(name, "a whole number", whole)?;
        Ok(length.map(|length| length.min(MOST as f64) as usize))
    }

    /// A number, if the field is there.
    ///
    /// # Errors
    /// A field of another type.
    pub fn maybe_number(&self, name: &str) -> Result<Option<f64>, ConfigError> {
        self.typed(name, "a number", Value::as_f64)
    }

    /// A number; `default` if absent.
    ///
    /// # Errors
    /// A field of another type.
    pub fn number_or(&self, name: &str, default: f64) -> Result<f64, ConfigError> {
        Ok(self.maybe_number(name)?.unwrap_or(default))
    }

    /// A number that must be there.
    ///
    /// # Errors
    /// A field that is missing or of another type.
    pub fn number(&self, name: &str) -> Result<f64, ConfigError> {
        self.maybe_number(name)?.ok_or_else(|| ConfigError::Missing {
            field: name.to_string(),
            expected: "a number",
        })
    }

    /// true or false; `default` if absent.
    ///
    /// # Errors
    /// A field of another type.
    pub fn flag_or(&self, name: &str, default: bool) -> Result<bool, ConfigError> {
        Ok(self.typed(name, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A text; `default` if absent.
    ///
    /// # Errors
    /// A field of another type.
    pub fn text_or(&self, name: &str, default: &'a str) -> Result<&'a str, ConfigError> {
        Ok(self.typed(name, "a text", Value::as_str)?.unwrap_or(default))
    }

    /// A list of numbers, if the field is there.
    ///
    /// # Errors
    /// A field of another type.
    pub fn maybe_numbers(&self, name: &str) -> Result<Option<Vec<f64>>, ConfigError> {
        self.typed(name, "a list of numbers", |value| {
            value.as_array()?.iter().map(Value::as_f64).collect()
        })
    }

    /// A list of texts, if the field is there.
    ///
    /// # Errors
    /// A field of another type.
    pub fn maybe_texts(&self, name: &str) -> Result<Option<Vec<&'a str>>, ConfigError> {
        self.typed(name, "a list of texts", |value| {
            value.as_array()?.iter().map(Value::as_str).collect()
        })
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => read(value)
                .map(Some)
                .ok_or_else(|| ConfigError::field(name, format!("is {}; expected {expected}", shortened(value)))),
        }
    }

    /// A field that changes what the reference computes, in a way that is not implemented.
    ///
    /// # Errors
    /// It is there, and not false, zero or empty.
    pub fn refuse(&self, name: &str) -> Result<(), ConfigError> {
        match self.get(name).filter(|value| says_something(value)) {
            None => Ok(()),
            Some(value) => Err(ConfigError::field(
                name,
                format!(
                    "is {}, which changes what the model computes and is not implemented",
                    shortened(value)
                ),
            )),
        }
    }

    /// A flag that is true where it is absent, and of which only true is implemented.
    ///
    /// # Errors
    /// It is there, and false, null, zero or empty: all of these are false in Python.
    pub fn require(&self, name: &str) -> Result<(), ConfigError> {
        self.read.borrow_mut().insert(name.to_string());
        match self.map.get(name).filter(|value| !says_something(value)) {
            None => Ok(()),
            Some(value) => Err(ConfigError::field(
                name,
                format!(
                    "is {}, which changes what the model computes; implemented is true",
                    shortened(value)
                ),
            )),
        }
    }

    /// Counts what `inner`, the fields of the object `name`, ignores as ignored here.
    pub fn ignore_of(&self, name: &str, inner: &Fields) {
        let ignored = inner.ignored().into_iter().map(|field| format!("{name}.{field}"));
        self.nested.borrow_mut().extend(ignored);
    }

    /// Names of the fields that were not read although they say something.
    pub fn ignored(&self) -> Vec<String> {
        let read = self.read.borrow();
        let bookkeeping = |name: &String| {
            BOOKKEEPING.contains(&name.as_str()) || BOOKKEEPING_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        };
        let unread = self
            .map
            .iter()
            .filter(|(name, value)| !read.contains(*name) && !bookkeeping(name) && says_something(value))
            .map(|(name, _)| name.clone());
        unread.chain(self.nested.borrow().iter().cloned()).collect()
    }
}

/// JSON for a message, shortened if it is long.
fn shortened(value: &Value) -> String {
    const SHOWN: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        None => text,
        Some((at, _)) => format!("{}…", &text[..at]),
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
    fn what_is_not_read_is_named_unless_it_is_bookkeeping() {
        let json = json!({"a": 3, "b": null, "use_cache": true, "_x": 1, "new_gate": false, "odd": 2, "c": 4.0});
        let fields = Fields::new(&json).unwrap();
        assert_eq!(
            (fields.maybe_count("a"), fields.maybe_number("b")),
            (Ok(Some(3)), Ok(None))
        );
        assert_eq!(fields.ignored(), ["odd", "c"]);
        assert_eq!(fields.maybe_count("c"), Ok(Some(4)));
        assert!(fields.refuse("odd").unwrap_err().to_string().contains("'odd' is 2"));
        assert_eq!((fields.refuse("new_gate"), fields.ignored()), (Ok(()), vec![]));
        for (name, expected) in [("use_cache", None), ("gone", None), ("b", Some("'b' is null"))] {
            let found = fields.require(name).err().map(|error| error.to_string());
            assert_eq!(found.is_some(), expected.is_some(), "{name}");
            assert!(found.zip(expected).is_none_or(|(found, part)| found.contains(part)));
        }
        assert!(
            fields
                .number("missing")
                .unwrap_err()
                .to_string()
                .contains("'missing' is missing")
        );
        assert!(
            fields
                .flag_or("a", true)
                .unwrap_err()
                .to_string()
                .contains("true or false")
        );
    }

    #[test]
    fn absurd_sizes_and_fractions_are_refused() {
        let json = json!({"wide": 9223372036854775808u64, "half": 0.5, "minus": -1, "far": 1e30});
        let fields = Fields::new(&json).unwrap();
        for name in ["wide", "half", "minus", "far"] {
            assert!(fields.maybe_count(name).unwrap_err().to_string().contains(name));
        }
    }
}
