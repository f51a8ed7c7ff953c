//! IFEval (Zhou et al. 2023, arXiv 2311.07911): prompts with instructions that a program can verify, and the verdicts:
//! on the unchanged response (strict), and on the response without its first or last line or its asterisks (loose).

mod check;
mod pattern;
mod sentences;
mod text;
mod words;

use std::path::Path;

use serde::{Deserialize, Serialize};

use check::Check;

use crate::language::TextError;
use crate::language::records::{self, Record};

/// An instruction of a prompt.
#[derive(Debug, Clone)]
pub struct Instruction {
    /// Its kind, such as `punctuation:no_comma`.
    pub id: String,
    check: Check,
}

impl Instruction {
    /// Whether `response` follows it; an empty response follows no instruction.
    pub fn is_followed(&self, response: &str) -> bool {
        !text::strip(response).is_empty() && self.check.is_followed(response)
    }
}

/// A prompt.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Its number in the benchmark.
    pub key: String,
    /// The text of the prompt.
    pub prompt: String,
    /// The instructions for the response.
    pub instructions: Vec<Instruction>,
}

/// Which instructions of a prompt a response follows, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// For the unchanged response.
    pub strict: Vec<bool>,
    /// For the response, unchanged or without its first line, its last line or both, each with or without asterisks.
    pub loose: Vec<bool>,
}

impl Prompt {
    /// Which of its instructions `response` follows.
    pub fn judge(&self, response: &str) -> Followed {
        let lines: Vec<&str> = response.split('\n').collect();
        let part = |from: usize, to: usize| {
            let lines = lines.get(from..lines.len().saturating_sub(to)).unwrap_or_default();
            text::strip(&lines.join("\n")).to_string()
        };
        let parts = [response.to_string(), part(1, 0), part(0, 1), part(1, 1)];
        let bare = parts.iter().map(|part| part.replace('*', ""));
        let variants: Vec<String> = bare.chain(parts.iter().skip(1).cloned()).collect();
        let strict: Vec<bool> = self.instructions.iter().map(|i| i.is_followed(response)).collect();
        let loose = self.instructions.iter().zip(&strict);
        let loose = loose.map(|(i, strict)| *strict || variants.iter().any(|variant| i.is_followed(variant)));
        Followed {
            loose: loose.collect(),
            strict,
        }
    }
}

/// The prompts in a file in IFEval's format: `prompt`, `instruction_id_list` and `kwargs`.
///
/// # Errors
/// A file that cannot be read, a prompt that lacks a field, an instruction of an unknown kind or without its arguments, more
/// patterns than memory may hold.
pub fn read(path: &Path) -> Result<Vec<Prompt>, TextError> {
    let mut cost = 0;
    records::read(path)?
        .iter()
        .enumerate()
        .map(|(at, record)| prompt(record, at, &mut cost))
        .collect()
}

/// The prompt in a record, the one with number `at`; `cost` is what the patterns of those before cost.
fn prompt(record: &Record, at: usize, cost: &mut usize) -> Result<Prompt, TextError> {
    let list = |name: &str| {
        let found = record.value(name).and_then(|value| value.as_array());
        found.ok_or_else(|| record.error(format!("field '{name}' is absent or no list")))
    };
    let (ids, kwargs) = (list("instruction_id_list")?, list("kwargs")?);
    if ids.len() != kwargs.len() || ids.is_empty() {
        return Err(record.error(format!(
            "instruction_id_list has {} entries and kwargs {}; expected as many, at least one",
            ids.len(),
            kwargs.len()
        )));
    }
    let instructions = ids.iter().zip(kwargs).map(|(id, arguments)| {
        let id = id
            .as_str()
            .ok_or_else(|| record.error("instruction_id_list is no list of strings".into()))?;
        let check =
            Check::new(id, arguments).map_err(|message| record.error(format!("instruction '{id}': {message}")))?;
        *cost += check.cost();
        if *cost > pattern::MOST {
            let message = "up to here the file has more words and patterns than memory may hold; split it";
            return Err(record.error(format!("instruction '{id}': {message}")));
        }
        Ok(Instruction { id: id.into(), check })
    });
    let instructions = instructions.collect::<Result<_, TextError>>()?;
    Ok(Prompt {
        key: record.text("key")?.unwrap_or_else(|| at.to_string()),
        prompt: record.required("prompt")?,
        instructions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Vec<Prompt>, TextError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/ifeval")
            .join(name)
    }

    #[test]
    fn sentences_words_and_languages_are_those_of_nltk_and_langdetect() {
        for record in records::read(&fixture("texts.jsonl")).unwrap() {
            let text = record.required("text").unwrap();
            assert_eq!(
                record.fields["sentences"],
                serde_json::json!(sentences::sentences(&text)),
                "{text}"
            );
            assert_eq!(record.fields["words"], words::count(&text), "{text}");
            assert_eq!(
                record.fields["tokens"],
                serde_json::json!(words::tokens(&text)),
                "{text}"
            );
            assert_eq!(
                record.fields["language"],
                serde_json::json!(check::language(&text)),
                "{text}"
            );
        }
    }

    #[test]
    fn verdicts_are_those_of_ifeval_s_own_code() {
        let path = fixture("cases.jsonl");
        let prompts = read(&path).unwrap();
        let mut kinds: Vec<&str> = prompts
            .iter()
            .map(|prompt| prompt.instructions[0].id.as_str())
            .collect();
        kinds.dedup();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), 25);
        for (prompt, record) in prompts.iter().zip(records::read(&path).unwrap()) {
            let response = record.required("response").unwrap();
            let Followed { strict, loose } = prompt.judge(&response);
            let found = (serde_json::json!(strict[0]), serde_json::json!(loose[0]));
            let expected = (record.fields["strict"].clone(), record.fields["loose"].clone());
            assert_eq!(
                found, expected,
                "{} {} {response:?}",
                prompt.instructions[0].id, record.fields["kwargs"]
            );
        }
    }

    #[test]
    fn loose_verdicts_look_past_a_first_line_and_asterisks() {
        let prompt = of(r#"{"key": 7, "prompt": "p", "instruction_id_list": ["startend:quotation", "punctuation:no_comma"], "kwargs": [{}, {"num_words": null}]}"#)
            .unwrap()
            .remove(0);
        assert_eq!(prompt.key, "7");
        let followed = prompt.judge("Sure, here it is:\n*\"A text\"*");
        assert_eq!(followed.strict, [false, false]);
        assert_eq!(followed.loose, [true, true]);
        assert_eq!(prompt.judge(" \n").loose, [false, false]);
    }

    #[test]
    fn prompts_that_cannot_be_judged_are_named() {
        let message = |ids: &str, kwargs: &str| {
            of(&format!(
                r#"{{"prompt": "p", "instruction_id_list": {ids}, "kwargs": {kwargs}}}"#
            ))
            .unwrap_err()
            .to_string()
        };
        assert!(message("[\"a:b\"]", "[{}]").contains("a.jsonl:1: instruction 'a:b': it is no kind of IFEval's"));
        assert!(message("[\"a:b\"]", "[]").contains("1 entries and kwargs 0"));
        assert!(message("3", "[]").contains("'instruction_id_list' is absent or no list"));
        let words = "[\"length_constraints:number_words\"]";
        assert!(message(words, "[{\"relation\": \"at least\"}]").contains("'num_words' is absent"));
        assert!(message(words, "[{\"relation\": \"about\", \"num_words\": 3}]").contains("'relation' is 'about'"));
        let keywords = "[\"keywords:existence\"]";
        assert!(message(keywords, "[{\"keywords\": [\"(\"]}]").contains("'(' is no pattern"));
    }

    #[test]
    fn patterns_that_would_take_much_memory_are_refused() {
        let message = |words: &str, times: usize| {
            let (ids, kwargs) = (vec!["\"keywords:forbidden_words\""; times], vec![words; times]);
            let text = format!(
                r#"{{"prompt": "p", "instruction_id_list": [{}], "kwargs": [{}]}}"#,
                ids.join(","),
                kwargs.join(",")
            );
            of(&text).map(drop).map_err(|error| error.to_string())
        };
        let of_word = |word: &str| message(&format!(r#"{{"forbidden_words": ["{word}"]}}"#), 1);
        for word in [r"\\w{200}", r"(?=\\w{200})", &"a".repeat(2000)] {
            let error = of_word(word).unwrap_err();
            assert!(
                error.contains("a.jsonl:1: instruction 'keywords:forbidden_words': '"),
                "{error}"
            );
            assert!(error.contains("a very large one") && error.len() < 300, "{error}");
        }
        for word in [r"co-?operate", r"(?!x)y+", "Straße und Kaffee"] {
            of_word(word).unwrap();
        }
        let many = serde_json::json!({ "forbidden_words": vec!["a"; 1001] }).to_string();
        assert!(message(&many, 1).unwrap_err().contains("more than 1000"));
    }

    #[test]
    fn the_patterns_of_a_file_are_bounded_together() {
        let line = r#"{"prompt": "p", "instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["a"]}]}"#;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, line).unwrap();
        let record = records::read(&path).unwrap().remove(0);
        let mut cost = pattern::MOST - 1;
        prompt(&record, 0, &mut cost).unwrap();
        let error = prompt(&record, 1, &mut cost).unwrap_err().to_string();
        assert!(error.contains("a.jsonl:1: ") && error.contains("split it"), "{error}");
    }
}
