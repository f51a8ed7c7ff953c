//! What Python knows of characters, and MarkupSafe.

use std::sync::LazyLock;

use regex::Regex;

/// Characters that are digits without being decimal numbers: superscripts, circled ones.
const DIGITS: [(u32, u32); 20] = [
    (0xb2, 0xb3),
    (0xb9, 0xb9),
    (0x1369, 0x1371),
    (0x19da, 0x19da),
    (0x2070, 0x2070),
    (0x2074, 0x2079),
    (0x2080, 0x2089),
    (0x2460, 0x2468),
    (0x2474, 0x247c),
    (0x2488, 0x2490),
    (0x24ea, 0x24ea),
    (0x24f5, 0x24fd),
    (0x24ff, 0x24ff),
    (0x2776, 0x277e),
    (0x2780, 0x2788),
    (0x278a, 0x2792),
    (0x10a40, 0x10a43),
    (0x10e60, 0x10e68),
    (0x11052, 0x1105a),
    (0x1f100, 0x1f10a),
];

/// `str.isprintable` of a character.
pub(super) fn printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_control();
    }
    static OTHER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[\p{C}\p{Z}]").expect("a valid pattern"));
    !OTHER.is_match(c.encode_utf8(&mut [0; 4]))
}

/// `str.isspace` of a character.
pub(super) fn space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.isdigit` of a character.
pub(super) fn digit(c: char) -> bool {
    let code = u32::from(c);
    decimal(c) || DIGITS.iter().any(|(first, last)| (*first..=*last).contains(&code))
}

/// `str.isdecimal` of a character.
pub(super) fn decimal(c: char) -> bool {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\p{Nd}").expect("a valid pattern"));
    c.is_ascii_digit() || (!c.is_ascii() && NUMBER.is_match(c.encode_utf8(&mut [0; 4])))
}

/// `str.isalpha` of a character.
pub(super) fn letter(c: char) -> bool {
    static LETTER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\p{L}").expect("a valid pattern"));
    c.is_ascii_alphabetic() || (!c.is_ascii() && LETTER.is_match(c.encode_utf8(&mut [0; 4])))
}

/// `str.isidentifier` of a text.
pub(super) fn identifier(text: &str) -> bool {
    static NAME: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^[\p{XID_Start}_]\p{XID_Continue}*$").expect("a valid pattern"));
    !text.contains('\n') && NAME.is_match(text)
}

/// Lines of a text, as `str.splitlines` finds them, with their ends and without.
pub(super) fn lines(text: &str, ends: bool) -> Vec<&str> {
    let breaks = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(breaks) {
        let end = at
            + if rest[at..].starts_with("\r\n") {
                2
            } else {
                rest[at..].chars().next().map_or(1, char::len_utf8)
            };
        lines.push(&rest[..if ends { end } else { at }]);
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// `text` with MarkupSafe's escapes for what HTML reads.
pub(super) fn escaped(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => written.push_str("&amp;"),
            '<' => written.push_str("&lt;"),
            '>' => written.push_str("&gt;"),
            '\'' => written.push_str("&#39;"),
            '"' => written.push_str("&#34;"),
            c => written.push(c),
        }
    }
    written
}
