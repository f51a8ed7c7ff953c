//! Words of instructions as the patterns that IFEval's own code takes them for, with bounds on what they take.

use fancy_regex::Regex;
use regex::RegexBuilder;

/// Bytes that the compiled text of one may take: a hundred times what a phrase takes.
const SIZE: usize = 256 << 10;

/// Bytes of the text of one.
const LONGEST: usize = 1000;

/// What the patterns of a file may cost together: four times what IFEval's do, and about 300 MB.
pub(super) const MOST: usize = 60_000;

/// Characters of one that a message shows.
const SHOWN: usize = 60;

/// `pattern`, which has `text` in it.
///
/// # Errors
/// A text that is no pattern, or one that would take much memory.
pub(super) fn compiled(text: &str, pattern: &str) -> Result<Regex, String> {
    let shown = || match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    };
    let size = || RegexBuilder::new(&format!("(?i){text}")).size_limit(SIZE).build();
    let is_small = text.len() <= LONGEST
        && match size() {
            Ok(_) => true,
            Err(regex::Error::CompiledTooBig(_)) => false,
            // With look-around its size is not known: without repetitions it is small.
            Err(_) => !text.contains('{'),
        };
    if !is_small {
        let message = "is no pattern or a very large one; give a word or a phrase";
        return Err(format!("'{}' {message}", shown()));
    }
    Regex::new(pattern).map_err(|_| format!("'{}' is no pattern", shown()))
}

/// What `pattern` costs: 1 for plain words, 100 with classes, which are that much larger.
pub(super) fn cost(pattern: &Regex) -> usize {
    match pattern.as_str().contains(['\\', '[', '{']) {
        true => 100,
        false => 1,
    }
}
