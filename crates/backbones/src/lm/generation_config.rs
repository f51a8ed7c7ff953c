//! generation_config.json: which tokens start and end a text, and how the model's authors generate with it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{ConfigError, ImportError};
use crate::json::read_json;

/// Special tokens of a model, and the settings with which its authors generate. What generation_config.json leaves out of
/// the tokens is config.json's.
///
/// A malformed field is an error only for those who need it: call [`GenerationConfig::check`] before generating.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GenerationConfig {
    /// Ids of the tokens that end a text.
    pub eos: Vec<u32>,
    /// Id of the token that starts a text.
    pub bos: Option<u32>,
    /// Id of the padding token.
    pub pad: Option<u32>,
    /// Logits are divided by this before a token is drawn.
    pub temperature: Option<f64>,
    /// Top-k: sample from this many most likely tokens; 0 for all.
    pub top_k: Option<usize>,
    /// Top-p: sample from the most likely tokens that together have this probability.
    pub top_p: Option<f64>,
    /// Positive logits of tokens that the text already contains are divided by this, negative ones multiplied.
    pub repetition_penalty: Option<f64>,
    /// No sequence of this many tokens comes twice; 0 for no such limit.
    pub no_repeat_ngram_size: Option<usize>,
    /// Number of beams of a beam search.
    pub num_beams: Option<usize>,
    /// A beam's score is divided by its length raised to this power.
    pub length_penalty: Option<f64>,
    problems: Vec<Problem>,
    /// The file.
    path: PathBuf,
    /// Its fields that are not implemented and change what is not sampled.
    unread: Vec<(&'static str, Changes)>,
}

#[derive(Debug, Clone, PartialEq)]
struct Problem {
    /// It matters only where tokens are drawn.
    drawing: bool,
    error: ConfigError,
}

/// A field of transformers that is not implemented.
struct Other {
    name: &'static str,
    /// Numbers with which it does nothing. It also does nothing if it is null, false or empty.
    neutral: &'static [f64],
    /// Where it changes the text.
    changes: Changes,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Changes {
    Sampling,
    Everything,
    BeamSearch,
}

const fn other(name: &'static str, neutral: &'static [f64], changes: Changes) -> Other {
    Other { name, neutral, changes }
}

const NOT_IMPLEMENTED: [Other; 25] = [
    other("min_p", &[0.0], Changes::Sampling),
    other("top_h", &[1.0], Changes::Sampling),
    other("typical_p", &[1.0], Changes::Sampling),
    other("epsilon_cutoff", &[0.0], Changes::Sampling),
    other("eta_cutoff", &[0.0], Changes::Sampling),
    other("penalty_alpha", &[0.0], Changes::Everything),
    other("dola_layers", &[], Changes::Everything),
    other("guidance_scale", &[1.0], Changes::Everything),
    other("encoder_repetition_penalty", &[1.0], Changes::Everything),
    other("min_length", &[0.0], Changes::Everything),
    other("min_new_tokens", &[0.0], Changes::Everything),
    other("suppress_tokens", &[], Changes::Everything),
    other("begin_suppress_tokens", &[], Changes::Everything),
    other("bad_words_ids", &[], Changes::Everything),
    other("sequence_bias", &[], Changes::Everything),
    other("forced_bos_token_id", &[], Changes::Everything),
    other("forced_eos_token_id", &[], Changes::Everything),
    other("force_words_ids", &[], Changes::Everything),
    other("constraints", &[], Changes::Everything),
    other("exponential_decay_length_penalty", &[], Changes::Everything),
    other("watermarking_config", &[], Changes::Everything),
    other("stop_strings", &[], Changes::Everything),
    other("early_stopping", &[0.0], Changes::BeamSearch),
    other("num_beam_groups", &[0.0, 1.0], Changes::BeamSearch),
    other("diversity_penalty", &[0.0], Changes::BeamSearch),
];

impl Other {
    fn does_nothing(&self, value: &Value) -> bool {
        match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            other => other.as_f64().is_some_and(|number| self.neutral.contains(&number)),
        }
    }
}

/// What to do about a field that is not implemented where tokens are drawn.
const REFUSED: &str = "sampling with it is not implemented; remove it, or generate without sampling";

/// Beams of a search at most.
const MOST_BEAMS: usize = 1024;

impl GenerationConfig {
    /// Reads the file of `folder`, if there is one; `config` is its config.json.
    ///
    /// # Errors
    /// A file that cannot be read or is not JSON.
    pub fn load(folder: &Path, config: &Value) -> Result<Self, ImportError> {
        let path = folder.join("generation_config.json");
        let own = match path.is_file() {
            true => read_json(&path)?,
            false => Value::Null,
        };
        let present = |field: &str| own.get(field).filter(|value| !value.is_null());
        let mut problems = Vec::new();
        let mut read = Self {
            eos: Vec::new(),
            ..Self::default()
        };
        let (file, eos) = match present("eos_token_id") {
            Some(value) => (path.clone(), Some(value)),
            None => (
                folder.join("config.json"),
                config.get("eos_token_id").filter(|value| !value.is_null()),
            ),
        };
        match eos.map(token_ids) {
            Some(Some(ids)) => read.eos = ids,
            Some(None) => problems.push(Problem {
                drawing: false,
                error: wrong_field(
                    &file,
                    "eos_token_id",
                    eos.unwrap_or(&Value::Null),
                    "expected a token id or a list of token ids",
                ),
            }),
            None => {}
        }
        // Nothing is generated by these: -1, which old files have for "none", is none.
        let first = |field: &str| token_ids(present(field).or(config.get(field))?)?.first().copied();
        (read.bos, read.pad) = (first("bos_token_id"), first("pad_token_id"));
        let mut wrong = |drawing: bool, field: &str, value: &Value, expected: &str| {
            problems.push(Problem {
                drawing,
                error: wrong_field(&path, field, value, expected),
            });
        };
        let mut number = |drawing: bool, field: &str, fits: fn(f64) -> bool, expected: &str| {
            let value = present(field)?;
            let number = value.as_f64().filter(|number| fits(*number));
            if number.is_none() {
                wrong(drawing, field, value, expected);
            }
            number
        };
        read.temperature = number(true, "temperature", |x| x >= 0.0, "expected a number of at least 0");
        read.top_p = number(
            true,
            "top_p",
            |x| x > 0.0 && x <= 1.0,
            "expected a number above 0 and at most 1",
        );
        let whole = |x: f64| x >= 0.0 && x.fract() == 0.0;
        let a_whole = "expected a whole number of at least 0";
        read.top_k = number(true, "top_k", whole, a_whole).map(|k| k as usize);
        read.repetition_penalty = number(false, "repetition_penalty", |x| x > 0.0, "expected a number above 0");
        read.no_repeat_ngram_size = number(false, "no_repeat_ngram_size", whole, a_whole).map(|size| size as usize);
        read.num_beams = number(
            false,
            "num_beams",
            |x| (1.0..=MOST_BEAMS as f64).contains(&x) && x.fract() == 0.0,
            "expected a whole number from 1 to 1024",
        )
        .map(|beams| beams as usize);
        read.length_penalty = number(
            false,
            "length_penalty",
            |x| (-100.0..=100.0).contains(&x),
            "expected a number from -100 to 100",
        );
        if let Some(value) = present("num_beams").filter(|_| read.num_beams.is_some_and(|beams| beams > 1)) {
            wrong(true, "num_beams", value, REFUSED);
        }
        for other in NOT_IMPLEMENTED {
            let Some(value) = present(other.name).filter(|value| !other.does_nothing(value)) else {
                continue;
            };
            if other.changes != Changes::BeamSearch {
                wrong(true, other.name, value, REFUSED);
            }
            if other.changes != Changes::Sampling {
                read.unread.push((other.name, other.changes));
            }
        }
        (read.problems, read.path) = (problems, path);
        Ok(read)
    }

    /// A warning about fields of the file that would change a text that is not sampled, but are not implemented. `beams`:
    /// those of the search, 1 without one. Sampling with such fields is refused by [`GenerationConfig::check`].
    pub fn warning(&self, beams: usize) -> Option<String> {
        let change = |changes: Changes| changes == Changes::Everything || beams > 1;
        let fields = self.unread.iter().filter(|(_, changes)| change(*changes));
        let fields: Vec<&str> = fields.map(|(name, _)| *name).collect();
        (!fields.is_empty()).then(|| {
            format!(
                "{}: fields that would change the text are not implemented and ignored: {}",
                self.path.display(),
                fields.join(", ")
            )
        })
    }

    /// Checks the fields that generation reads; with `drawing`, also those that only sampling reads.
    ///
    /// # Errors
    /// The first field that is malformed or not implemented.
    pub fn check(&self, drawing: bool) -> Result<(), ConfigError> {
        let mut matter = self.problems.iter().filter(|problem| drawing || !problem.drawing);
        matter.next().map_or(Ok(()), |problem| Err(problem.error.clone()))
    }
}

fn wrong_field(path: &Path, field: &str, value: &Value, expected: &str) -> ConfigError {
    ConfigError::File {
        path: path.to_path_buf(),
        problem: Box::new(ConfigError::field(field, format!("is {value}; {expected}"))),
    }
}

/// One number or a list of them.
fn token_ids(value: &Value) -> Option<Vec<u32>> {
    let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(ids) => ids.iter().map(one).collect(),
        id => Some(vec![one(id)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn load(own: Value, config: Value) -> GenerationConfig {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("generation_config.json"), own.to_string()).unwrap();
        GenerationConfig::load(dir.path(), &config).unwrap()
    }

    #[test]
    fn whole_floats_are_whole_and_minus_one_is_no_padding() {
        let read = load(
            json!({"top_k": 50.0, "eos_token_id": [3, 4], "pad_token_id": -1, "min_p": 0.0, "typical_p": 1.0}),
            json!({"bos_token_id": 1}),
        );
        assert_eq!(
            (read.top_k, &read.eos[..], read.bos, read.pad),
            (Some(50), &[3, 4][..], Some(1), None)
        );
        assert_eq!(read.check(true), Ok(()));
    }

    #[test]
    fn fields_that_change_every_text_are_read_or_named() {
        let read = load(
            json!({"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "num_beams": 4, "length_penalty": -1}),
            json!({}),
        );
        assert_eq!(
            (read.repetition_penalty, read.no_repeat_ngram_size),
            (Some(1.2), Some(3))
        );
        assert_eq!((read.num_beams, read.length_penalty), (Some(4), Some(-1.0)));
        assert_eq!((read.warning(4), read.check(false)), (None, Ok(())));
        assert!(read.check(true).unwrap_err().to_string().contains("'num_beams' is 4"));

        for (field, value) in [
            ("guidance_scale", json!(2.0)),
            ("encoder_repetition_penalty", json!(1.5)),
            ("min_length", json!(12)),
            ("min_new_tokens", json!(10)),
            ("suppress_tokens", json!([3])),
            ("begin_suppress_tokens", json!([3])),
            ("bad_words_ids", json!([[3]])),
            ("sequence_bias", json!([[[3], -20.0]])),
            ("forced_eos_token_id", json!(1)),
            ("exponential_decay_length_penalty", json!([2, 3.0])),
            ("watermarking_config", json!({"bias": 5.0})),
            ("stop_strings", json!(["zz"])),
        ] {
            let read = load(json!({ field: value }), json!({}));
            let warning = read.warning(1).unwrap();
            assert!(warning.contains("generation_config.json") && warning.ends_with(&format!(": {field}")));
            assert_eq!(read.check(false), Ok(()), "{field}");
            assert!(read.check(true).unwrap_err().to_string().contains(field));
        }
        let read = load(json!({"early_stopping": true}), json!({}));
        assert!(read.warning(2).unwrap().ends_with(": early_stopping"));
        assert_eq!(read.warning(1), None);
    }

    #[test]
    fn fields_that_do_nothing_are_not_mentioned() {
        let read = load(
            json!({
                "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0, "guidance_scale": null,
                "suppress_tokens": [], "sequence_bias": {}, "early_stopping": true, "num_beam_groups": 1,
                "forced_eos_token_id": null, "dola_layers": null, "watermarking_config": null, "encoder_repetition_penalty": 1.0,
                "min_p": 0.1, "max_length": 5, "do_sample": true, "use_cache": false
            }),
            json!({}),
        );
        assert_eq!((read.warning(1), read.check(false)), (None, Ok(())));
    }

    #[test]
    fn malformed_fields_matter_to_those_who_read_them() {
        for eos in [json!("396"), json!([[396]]), json!(-1), json!([3, 0.5])] {
            let read = load(json!({ "eos_token_id": eos }), json!({"eos_token_id": 2}));
            assert!(read.check(false).unwrap_err().to_string().contains("eos_token_id"));
        }
        for wrong in [
            json!({"repetition_penalty": 0}),
            json!({"no_repeat_ngram_size": 1.5}),
            json!({"num_beams": 4096}),
            json!({"length_penalty": "long"}),
        ] {
            let field = wrong.as_object().unwrap().keys().next().unwrap().clone();
            let message = load(wrong, json!({})).check(false).unwrap_err().to_string();
            assert!(message.contains(&format!("field '{field}'")), "{message}");
        }
        for drawn in [
            json!({"top_k": -1}),
            json!({"top_p": 2.0}),
            json!({"temperature": "hot"}),
            json!({"min_p": 0.1}),
        ] {
            let read = load(drawn, json!({}));
            assert_eq!(read.check(false), Ok(()));
            assert!(
                read.check(true)
                    .unwrap_err()
                    .to_string()
                    .contains("generation_config.json: field '")
            );
        }
    }
}
