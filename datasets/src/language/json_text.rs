//! Converts non-standard JSON to standard JSON before parsing: Python's NaN and Infinity become null, an integer that
//! does not fit into 64 bits becomes a string, not the nearest float, and half of a surrogate pair U+FFFD.

use std::borrow::Cow;

/// `text` as standard JSON; other errors are left for the parser to report.
pub(super) fn standard(text: &str) -> Cow<'_, str> {
    match without_halves(text) {
        Cow::Borrowed(text) => with_standard_numbers(text),
        Cow::Owned(text) => Cow::Owned(with_standard_numbers(&text).into_owned()),
    }
}

/// `text` with `\ufffd` for the escape of one half of a surrogate pair without the other.
fn without_halves(text: &str) -> Cow<'_, str> {
    let unit = |at: usize| -> Option<u16> {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut made, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(found) = text[at..].find('\\') {
        let start = at + found;
        let follows = unit(start + 6).is_some_and(|unit| (0xDC00..0xE000).contains(&unit));
        at = match unit(start) {
            Some(0xD800..0xDC00) if follows => start + 12,
            Some(0xD800..0xE000) => {
                made += &text[copied..start];
                made += "\\ufffd";
                copied = start + 6;
                copied
            }
            Some(_) => start + 6,
            // Past what the backslash escapes, another backslash for one.
            None => text[start + 1..]
                .chars()
                .next()
                .map_or(text.len(), |c| start + 1 + c.len_utf8()),
        };
    }
    match copied {
        0 => Cow::Borrowed(text),
        _ => Cow::Owned(made + &text[copied..]),
    }
}

fn with_standard_numbers(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let (mut made, mut copied, mut at) = (String::new(), 0, 0);
    while at < bytes.len() {
        let start = at;
        let instead = match bytes[at] {
            b'"' => {
                at = after_string(bytes, at);
                None
            }
            b'N' if bytes[at..].starts_with(b"NaN") => {
                at += 3;
                Some("null".to_string())
            }
            b'I' if bytes[at..].starts_with(b"Infinity") => {
                at += 8;
                Some("null".to_string())
            }
            b'-' if bytes[at + 1..].starts_with(b"Infinity") => {
                at += 9;
                Some("null".to_string())
            }
            b'-' | b'0'..=b'9' => {
                at += 1;
                while at < bytes.len() && matches!(bytes[at], b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-') {
                    at += 1;
                }
                let number = &text[start..at];
                is_too_great(number).then(|| format!("\"{number}\""))
            }
            _ => {
                at += 1;
                None
            }
        };
        if let Some(instead) = instead {
            made += &text[copied..start];
            made += &instead;
            copied = at;
        }
    }
    match copied {
        0 => Cow::Borrowed(text),
        _ => Cow::Owned(made + &text[copied..]),
    }
}

/// The position after the string that begins at `at`.
fn after_string(bytes: &[u8], mut at: usize) -> usize {
    at += 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// True for a number that does not fit into 64 bits: a large integer, or one beyond the range of floats.
fn is_too_great(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.len() > 18 && number.parse::<i64>().is_err() && number.parse::<u64>().is_err(),
        false => number.parse::<f64>().is_ok_and(f64::is_infinite),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_writes_is_made_standard_and_strings_stay() {
        for (text, expected) in [
            (
                r#"{"a": NaN, "b": [-Infinity, Infinity]}"#,
                r#"{"a": null, "b": [null, null]}"#,
            ),
            (
                r#"{"a": "NaN \" Infinity", "é": 1}"#,
                r#"{"a": "NaN \" Infinity", "é": 1}"#,
            ),
            (
                "[123456789012345678901234567890]",
                "[\"123456789012345678901234567890\"]",
            ),
            ("[-99999999999999999999]", "[\"-99999999999999999999\"]"),
            (
                "[9223372036854775807, 18446744073709551615]",
                "[9223372036854775807, 18446744073709551615]",
            ),
            ("[1e400, 1.50, -2e-3]", "[\"1e400\", 1.50, -2e-3]"),
            (
                r#"["\ud83d", "\ude00\ud83d\ude00", "\\ud83d", "\uD83Dx"]"#,
                r#"["\ufffd", "\ufffd\ud83d\ude00", "\\ud83d", "\ufffdx"]"#,
            ),
            (r#"{"a": NaN, "b": "\ud83d"}"#, r#"{"a": null, "b": "\ufffd"}"#),
            (r#""\ud8é""#, r#""\ud8é""#),
            ("\"open", "\"open"),
            ("\"\\", "\"\\"),
            ("-", "-"),
        ] {
            assert_eq!(standard(text), expected);
        }
    }
}
