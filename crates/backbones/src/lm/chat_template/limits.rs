//! What a template may cost.

use std::io;
use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;
use serde_json::Value as Json;

use super::error::ChatError;
use super::source::rewritten;
use super::tags;
use super::templates::LONGEST;
use crate::watch::{self, Limits, Unfinished};

/// Work of a rendering of nothing: as many instructions, or 19 MB of text and values.
const LEAST_FUEL: u64 = 300_000;
/// Bytes that any prompt may have: a model may work for minutes on more than that, and templates write far less around a
/// conversation.
const LEAST_TEXT: u64 = 1 << 15;
/// Bytes that a prompt may have for each byte of its conversation.
const TEXT_PER_BYTE: u64 = 8;
/// A template that works longer is given up. Fuel ends nearly all of them before; it does not count every comparison, nor
/// every list that is written as text.
const MOST_TIME: Duration = Duration::from_secs(10);
/// Bytes by which the process may grow for a rendering of nothing.
const LEAST_MEMORY: u64 = 48 << 20;
/// Bytes by which it may grow for each byte of the conversation, or of the template when that is compiled.
const MEMORY_PER_BYTE: u64 = 64;
/// Operators at most, whatever stands in texts included: each may be a level of the compiler's recursion.
const OPERATORS: usize = 30_000;

/// A template within the limits on its length and depth, in the engine's syntax, its tags as the engine knows them.
pub(super) fn checked(source: &str) -> Result<String, ChatError> {
    if source.len() > LONGEST {
        let length = source.len();
        return Err(ChatError::Limit(format!(
            "it has {length} bytes, expected at most {LONGEST}"
        )));
    }
    if operators(source) > OPERATORS {
        return Err(ChatError::Limit(format!("it has more than {OPERATORS} operators")));
    }
    Ok(tags::replaced(&rewritten(source)))
}

fn operators(source: &str) -> usize {
    static WORDS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\b(?:not|and|or|in|is|if|elif|else)\b|[-+*/%~|.(\[{<>=!]").expect("a valid pattern")
    });
    WORDS.find_iter(source).count()
}

/// What rendering a conversation may cost: it grows with the conversation, which is the user's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// The engine's unit: one instruction, or 64 bytes of text and values.
    pub fuel: u64,
    /// Bytes by which the process may grow.
    pub memory: u64,
    text: u64,
}

impl Budget {
    /// For a conversation of these messages, tools, documents and variables.
    pub fn of<'a>(parts: impl Iterator<Item = &'a Json>) -> Self {
        let bytes = parts.map(size).sum();
        Self {
            fuel: LEAST_FUEL.saturating_add(bytes),
            memory: memory(bytes),
            text: LEAST_TEXT.saturating_add(bytes.saturating_mul(TEXT_PER_BYTE)),
        }
    }

    /// A text that is no longer than a prompt of this conversation may be.
    pub fn check(&self, text: String) -> Result<String, ChatError> {
        match text.len() as u64 > self.text {
            true => Err(ChatError::Limit(format!(
                "it writes {} bytes for this conversation, expected at most {}",
                text.len(),
                self.text
            ))),
            false => Ok(text),
        }
    }
}

/// Bytes by which the process may grow for so many bytes of input.
pub(super) fn memory(bytes: u64) -> u64 {
    LEAST_MEMORY.saturating_add(bytes.saturating_mul(MEMORY_PER_BYTE))
}

/// Runs `work` on a template's thread. `memory`: bytes by which the process may grow meanwhile.
pub(super) fn watched<T: Send + 'static>(
    memory: u64,
    work: impl FnOnce() -> Result<T, ChatError> + Send + 'static,
) -> Result<T, ChatError> {
    let limits = Limits {
        memory,
        time: MOST_TIME,
    };
    watch::watched(limits, work).unwrap_or_else(|unfinished| match unfinished {
        Unfinished::Panicked(message) => Err(ChatError::Failed(format!("the template engine gives up ({message})"))),
        given_up => Err(ChatError::GivenUp(given_up.to_string())),
    })
}

/// Bytes of a value as JSON.
fn size(json: &Json) -> u64 {
    struct Counter(u64);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    let _ = serde_json::to_writer(&mut counter, json);
    counter.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_budget_grows_with_its_conversation() {
        let short = [json!({"role": "user", "content": "hi"})];
        let long = [json!({"role": "user", "content": "x".repeat(1 << 20)})];
        let of = |messages: &[Json]| Budget::of(messages.iter());
        assert_eq!(of(&short).fuel, LEAST_FUEL + 30);
        assert!(of(&long).fuel > LEAST_FUEL + (1 << 20));
        assert!(of(&short).check("x".repeat(1 << 16)).is_err() && of(&long).check("x".repeat(2 << 20)).is_ok());
    }
}
