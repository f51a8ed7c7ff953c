//! The tokenizers library on a stranger's tokenizer.json: its panics become errors, and files whose regular expressions or
//! replacements may explode are worked on under limits of time and memory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::Tokenizer;
use wegeft::guard::guarded;

use crate::error::ImportError;
use crate::error::TokenizerError;
use crate::watch::{Limits, Unfinished, watched};

/// Bytes of a regular expression at most: what it is compiled to is a thousand times as large.
const LONGEST_PATTERN: usize = 10_000;
/// What may repeat or branch in one alternative of an expression that is worked on without limits.
const MOST_CHOICES: usize = 10;
/// Repetitions without end among these, or with a larger one than [`WIDE`].
const MOST_ENDLESS: usize = 2;
/// Most times of a repetition that counts as short.
const WIDE: usize = 8;
/// Times by which replacements may lengthen a text without limits.
const MOST_GROWTH: f64 = 16.0;

/// For one text, and for what is done with it.
const MOST_TIME: Duration = Duration::from_secs(10);
const LEAST_MEMORY: u64 = 64 << 20;
/// Bytes of memory for each byte of text.
const MEMORY_PER_BYTE: u64 = 1000;

/// A tokenizer of the tokenizers library.
#[derive(Debug, Clone)]
pub(crate) struct Guarded {
    inner: Arc<Tokenizer>,
    /// Nothing in the file can take more time or memory than the text gives reason for.
    harmless: bool,
}

impl Guarded {
    /// Reads `path`; `prepare` makes of it what its user needs.
    ///
    /// # Errors
    /// A file that is malformed, or what `prepare` says.
    pub fn load(path: &Path, prepare: impl FnOnce(&mut Tokenizer) -> Result<(), String>) -> Result<Self, ImportError> {
        let error = |message: String| ImportError::Config {
            path: path.to_path_buf(),
            message,
        };
        let text = std::fs::read(path).map_err(|e| error(format!("cannot read it ({e})")))?;
        // What the library reads and this does not is worked on under limits.
        let steps = serde_json::from_slice::<Steps>(&text).ok();
        drop(text);
        let patterns = steps.as_ref().map_or(Vec::new(), Steps::patterns);
        if let Some(long) = patterns.iter().find(|pattern| pattern.len() > LONGEST_PATTERN) {
            return Err(error(format!(
                "a regular expression of {} bytes; expected at most {LONGEST_PATTERN}",
                long.len()
            )));
        }
        let gives_up = |what| error(format!("it is damaged; the tokenizers library gives up ({what})"));
        let mut inner = guarded(|| Tokenizer::from_file(path))
            .map_err(gives_up)?
            .map_err(|e| error(format!("no tokenizer ({e})")))?;
        guarded(|| prepare(&mut inner)).map_err(gives_up)?.map_err(error)?;
        Ok(Self {
            inner: Arc::new(inner),
            harmless: patterns.iter().all(|pattern| is_harmless(pattern))
                && steps.as_ref().is_some_and(|steps| steps.growth() <= MOST_GROWTH),
        })
    }

    /// What does not work on texts.
    pub fn inner(&self) -> &Tokenizer {
        &self.inner
    }

    /// `work` on some input of `bytes` bytes; `own` makes a copy of the input for a thread.
    ///
    /// # Errors
    /// What the library says, or that it takes too long or too much.
    pub fn call<I: Send + 'static, T: Send + 'static>(
        &self,
        input: impl FnOnce() -> I,
        bytes: usize,
        work: impl FnOnce(&Tokenizer, I) -> tokenizers::Result<T> + Send + 'static,
    ) -> Result<T, TokenizerError> {
        let result = match self.harmless {
            true => guarded(|| work(&self.inner, input())).map_err(|panic| Unfinished::Panicked(panic.message)),
            false => {
                let limits = Limits {
                    memory: LEAST_MEMORY + MEMORY_PER_BYTE * bytes as u64,
                    time: MOST_TIME,
                };
                let (inner, input) = (self.inner.clone(), input());
                watched(limits, move || work(&inner, input))
            }
        };
        match result {
            Ok(result) => result.map_err(|e| TokenizerError::Refused(e.to_string())),
            Err(Unfinished::Panicked(message)) => Err(TokenizerError::Panicked(message)),
            Err(given_up) => Err(TokenizerError::GivenUp(given_up.to_string())),
        }
    }
}

/// What tokenizer.json does with texts before and after its model.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Steps {
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
}

impl Steps {
    fn visit<'a>(&'a self, look: &mut impl FnMut(&'a Map<String, Value>)) {
        for step in [
            &self.normalizer,
            &self.pre_tokenizer,
            &self.post_processor,
            &self.decoder,
        ] {
            visit(step, look);
        }
    }

    /// The regular expressions.
    fn patterns(&self) -> Vec<&str> {
        let mut found = Vec::new();
        self.visit(&mut |object| found.extend(object.get("Regex").and_then(Value::as_str)));
        found
    }

    /// Times by which all replacements together may lengthen a text.
    fn growth(&self) -> f64 {
        let mut product = 1.0;
        self.visit(&mut |object| {
            let length = |value: Option<&Value>| value.and_then(Value::as_str).map(|text| text.chars().count());
            let (Some(content), Some(pattern)) = (length(object.get("content")), object.get("pattern")) else {
                return;
            };
            // A regular expression may match a single character, or nothing between two.
            let replaced = length(pattern.get("String")).unwrap_or(1).max(1);
            let between = f64::from(u8::from(pattern.get("Regex").is_some()));
            product *= (content as f64 / replaced as f64 + between).max(1.0);
        });
        product
    }
}

fn visit<'a>(json: &'a Value, look: &mut impl FnMut(&'a Map<String, Value>)) {
    match json {
        Value::Object(fields) => {
            look(fields);
            fields.values().for_each(|value| visit(value, look));
        }
        Value::Array(items) => items.iter().for_each(|item| visit(item, look)),
        _ => {}
    }
}

/// True if no text can make a backtracking engine take many more steps than it has characters: no alternative has a repeated
/// group, or many repetitions and branches. The models that are in use have such expressions.
fn is_harmless(pattern: &str) -> bool {
    // A bracket in a comment is none.
    if pattern.contains("(?#") || pattern.contains("(?x") {
        return false;
    }
    let mut rest = pattern.chars().peekable();
    let (mut depth, mut choices, mut endless) = (0_usize, 0_usize, 0_usize);
    let mut after_group = false;
    while let Some(c) = rest.next() {
        let was_group = std::mem::take(&mut after_group);
        match c {
            '\\' => {
                let braced = matches!(rest.next(), Some('p' | 'P' | 'x')) && rest.next_if_eq(&'{').is_some();
                // `\p{L}`: the brace is no repetition.
                while braced && rest.next().is_some_and(|c| c != '}') {}
            }
            '[' => skip_class(&mut rest),
            '(' => {
                depth += 1;
                // What a group starts with is not a repetition.
                rest.next_if_eq(&'?');
            }
            ')' => {
                depth = depth.saturating_sub(1);
                after_group = true;
            }
            '|' if depth == 0 => (choices, endless) = (0, 0),
            '|' => choices += 1,
            '?' => choices += 1,
            '*' | '+' => {
                // `*?` and `*+` are one repetition.
                rest.next_if(|next| "?+".contains(*next));
                (choices, endless) = (choices + 1, endless + 1);
            }
            '{' => {
                let bounds: String = std::iter::from_fn(|| rest.next_if(|next| *next != '}')).collect();
                let most = bounds
                    .rsplit(',')
                    .next()
                    .and_then(|most| most.trim().parse::<usize>().ok());
                // `{2,}` has no last number.
                let is_wide = most.is_none_or(|most| most > WIDE);
                (choices, endless) = (choices + 1, endless + usize::from(is_wide));
            }
            _ => {}
        }
        let repeats_group = was_group && matches!(c, '*' | '+' | '{');
        if repeats_group || choices > MOST_CHOICES || endless > MOST_ENDLESS {
            return false;
        }
    }
    true
}

/// Goes behind the end of a class whose opening bracket was read.
fn skip_class(rest: &mut impl Iterator<Item = char>) {
    let mut depth = 1;
    while depth > 0 {
        match rest.next() {
            Some('\\') => drop(rest.next()),
            Some('[') => depth += 1,
            Some(']') => depth -= 1,
            Some(_) => {}
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn expressions_of_models_in_use_are_harmless_and_exploding_ones_are_not() {
        for pattern in [
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lo}\p{M}]*[\p{Ll}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\p{N}{1,3}",
            r"[!-/:-~]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s+(?!\S)|\s+",
            " {2,}",
        ] {
            assert!(is_harmless(pattern), "{pattern}");
        }
        for pattern in [
            r"(?:(?:(?=a)a|(?=a)a){0,18}(?=c)|.)",
            r"(?:(a+)+(?=c)|a)",
            r"(?:.*.*.*(?!.)(?<=\x00)|.)",
            r".{0,100}.{0,100}.{0,100}(?!.)(?<=\x00)",
            r"(?#[)(?:(a+)+(?=c)|a)",
            &"a?".repeat(30),
            &"(?:a|a)".repeat(30),
            &"(?:a|(?=a)a)".repeat(30),
        ] {
            assert!(!is_harmless(pattern), "{pattern}");
        }
    }

    #[test]
    fn replacements_that_double_a_text_multiply() {
        let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        let space = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let of = |steps: Vec<Value>| {
            let normalizer = json!({"type": "Sequence", "normalizers": steps});
            let steps = Steps {
                normalizer,
                ..Steps::default()
            };
            steps.growth()
        };
        assert_eq!(of(vec![space.clone(), space]), 1.0);
        assert_eq!(of(vec![double; 10]), 1024.0);
        let empty = json!({"pattern": {"Regex": "x*"}, "content": "ab"});
        assert_eq!(of(vec![empty]), 3.0);
    }
}
