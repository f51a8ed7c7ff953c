//! Python's string functions, where Rust's differ.

/// A letter, digit or underscore, as Python's `\w`: no combining marks.
pub(super) const WORD: &str = r"[\p{L}\p{N}_]";

/// Python's `\b`.
pub(super) fn boundary() -> String {
    format!("(?:(?<={WORD})(?!{WORD})|(?<!{WORD})(?={WORD}))")
}

fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.strip()`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.split()`.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// `str.isupper()`: there are cased letters, and all of them are upper case.
pub(super) fn is_upper(text: &str) -> bool {
    text.chars().any(char::is_uppercase) && !text.chars().any(|c| c.is_lowercase() || is_title(c))
}

/// `str.islower()`.
pub(super) fn is_lower(text: &str) -> bool {
    text.chars().any(char::is_lowercase) && !text.chars().any(|c| c.is_uppercase() || is_title(c))
}

/// Letters of both cases at once, such as ǅ.
fn is_title(c: char) -> bool {
    !c.is_lowercase() && !c.is_uppercase() && c.to_lowercase().next() != Some(c) && c.to_uppercase().next() != Some(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_python_s() {
        assert!(is_upper("A1 Ä!") && !is_upper("1!") && !is_upper("Ab") && !is_upper("Aǅ"));
        assert!(is_lower("a1 ß") && !is_lower("") && !is_lower("aǅ"));
        assert_eq!(strip("\u{1c} a\u{a0}"), "a");
        assert_eq!(split(" a \u{1d}b").collect::<Vec<_>>(), ["a", "b"]);
    }
}
