//! Texts in the source of a template: Python's escapes.

/// The literal `text`, quotes included, with escapes that the engine reads as Python reads those of `text`. `None` for
/// escapes that Python refuses, and `\N{…}`.
pub(super) fn literal(text: &str) -> Option<String> {
    let inner = text.get(1..text.len().checked_sub(1)?)?;
    let mut written = String::with_capacity(text.len() + 8);
    written.push('"');
    for c in units(inner)? {
        match c {
            Unit::Char('"') => written.push_str("\\\""),
            Unit::Char('\\') => written.push_str("\\\\"),
            Unit::Char(c) => written.push(c),
            // Halves of a character, which the engine joins.
            Unit::Half(half) => written.push_str(&format!("\\u{half:04x}")),
        }
    }
    written.push('"');
    Some(written)
}

enum Unit {
    Char(char),
    Half(u16),
}

fn units(text: &str) -> Option<Vec<Unit>> {
    let mut units = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        units.extend(rest[..at].chars().map(Unit::Char));
        rest = &rest[at + 1..];
        let escape = rest.chars().next()?;
        let (unit, length) = match escape {
            '\n' => (None, 1),
            '\\' | '\'' | '"' => (Some(escape), 1),
            'a' => (Some('\u{7}'), 1),
            'b' => (Some('\u{8}'), 1),
            'f' => (Some('\u{c}'), 1),
            'n' => (Some('\n'), 1),
            'r' => (Some('\r'), 1),
            't' => (Some('\t'), 1),
            'v' => (Some('\u{b}'), 1),
            '0'..='7' => {
                let length = rest
                    .bytes()
                    .take(3)
                    .take_while(|byte| (b'0'..=b'7').contains(byte))
                    .count();
                let code = u32::from_str_radix(&rest[..length], 8).ok()?;
                (Some(char::from_u32(code)?), length)
            }
            'x' | 'u' | 'U' => {
                let length = 1 + match escape {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let digits = rest
                    .get(1..length)
                    .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
                let code = u32::from_str_radix(digits?, 16).ok()?;
                if let (Ok(half), 0xd800..=0xdfff) = (u16::try_from(code), code) {
                    units.push(Unit::Half(half));
                    (None, length)
                } else {
                    (Some(char::from_u32(code)?), length)
                }
            }
            'N' => return None,
            // Python keeps the backslash of what is no escape.
            _ => (Some('\\'), 0),
        };
        units.extend(unit.map(Unit::Char));
        rest = &rest[length..];
    }
    units.extend(rest.chars().map(Unit::Char));
    Some(units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_python_s() {
        for (text, expected) in [
            (r"'a\a\v\q\/'", "\"a\u{7}\u{b}\\\\q\\\\/\""),
            (r#"'it\'s "x"'"#, r#""it's \"x\"""#),
            (r"'\101\x41\u00e9\U0001f642'", "\"AAé🙂\""),
            (r"'\ud83d\ude42'", r#""\ud83d\ude42""#),
            ("'a\\\nb'", "\"ab\""),
        ] {
            assert_eq!(literal(text).as_deref(), Some(expected));
        }
        for text in [r"'\x4'", r"'\u12'", r"'\N{DASH}'", r"'\U00110000'"] {
            assert_eq!(literal(text), None);
        }
    }
}
