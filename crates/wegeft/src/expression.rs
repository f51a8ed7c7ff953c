//! Regular expressions of configs, with Python's look-around and back-references, as in PEFT.

use std::cell::RefCell;

use fancy_regex::RegexBuilder;

use crate::error::AdapterError;
use crate::pattern_size;

/// Backtracking steps after which a match is given up: a thousand times what module names need, and still milliseconds.
const BACKTRACK_LIMIT: usize = 100_000;

/// A regular expression for whole names.
#[derive(Debug, Clone)]
pub(crate) struct Regex {
    compiled: fancy_regex::Regex,
    pattern: String,
}

impl Regex {
    /// True if `name` matches.
    ///
    /// # Errors
    /// An expression that takes too many steps on it.
    pub(crate) fn matches(&self, name: &str) -> Result<bool, AdapterError> {
        let message = || format!("matching it against '{name}' takes too many steps; write it with fewer repetitions");
        let matched = self.compiled.is_match(name);
        matched.map_err(|_| pattern_size::bad(&self.pattern, message()))
    }
}

thread_local! {
    /// The expression that was compiled last: a method may ask for its own at every site.
    static LAST: RefCell<Option<Regex>> = const { RefCell::new(None) };
}

/// `pattern` as a regular expression for whole names.
///
/// # Errors
/// A pattern that is not valid, or that takes too much memory.
pub(crate) fn regex(pattern: &str) -> Result<Regex, AdapterError> {
    let known = LAST.with_borrow(|last| last.as_ref().filter(|last| last.pattern == pattern).cloned());
    if let Some(known) = known {
        return Ok(known);
    }
    check(&[pattern])?;
    let compiled = compiled(pattern, "", "")?;
    LAST.set(Some(compiled.clone()));
    Ok(compiled)
}

/// `patterns` as regular expressions for whole names, in which `before` and `after` may surround what each matches. Their
/// size is measured once, for all of them, and each is compiled once.
///
/// # Errors
/// A pattern that is not valid, or patterns that take too much memory together.
pub(crate) fn regexes(patterns: &[&str], before: &str, after: &str) -> Result<Vec<Regex>, AdapterError> {
    check(patterns)?;
    patterns
        .iter()
        .map(|pattern| compiled(pattern, before, after))
        .collect()
}

fn check(patterns: &[&str]) -> Result<(), AdapterError> {
    pattern_size::check_length(patterns)?;
    pattern_size::check_size(patterns)
}

fn compiled(pattern: &str, before: &str, after: &str) -> Result<Regex, AdapterError> {
    #[cfg(test)]
    COMPILED.set(COMPILED.get() + 1);
    let mut builder = RegexBuilder::new(&format!("^(?:{before}(?:{pattern}){after})$"));
    let compiled = builder.backtrack_limit(BACKTRACK_LIMIT).build();
    Ok(Regex {
        compiled: compiled.map_err(|error| pattern_size::bad(pattern, error.to_string()))?,
        pattern: pattern.to_string(),
    })
}

#[cfg(test)]
thread_local! {
    /// How many expressions this thread has compiled.
    pub(crate) static COMPILED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_match_with_look_around_and_back_references() {
        let matches = |pattern: &str, name: &str| regex(pattern).unwrap().matches(name).unwrap();
        assert!(matches(r".*layers\.(?!1\b)\d+\.q", "model.layers.12.q"));
        assert!(!matches(r".*layers\.(?!1\b)\d+\.q", "model.layers.1.q"));
        assert!(matches(r"([qk])_\1", "q_q") && !matches(r"([qk])_\1", "q_k"));
        assert!(!matches("q|k", "qk") && regex("(").is_err());
    }

    #[test]
    fn an_expression_that_never_ends_is_an_error() {
        let slow = regex(r"(?:(a+)+)(?<=b)\1c").unwrap();
        let error = slow.matches(&"a".repeat(60)).unwrap_err().to_string();
        assert!(error.contains("too many steps"), "{error}");
    }
}
