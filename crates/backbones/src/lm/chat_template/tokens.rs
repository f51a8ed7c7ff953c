//! Tokens of a tag.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A text with its quotes.
    Text,
    /// A name or keyword.
    Name,
    /// A number.
    Number,
    /// An operator or bracket.
    Sign,
}

/// A token of a tag.
#[derive(Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    /// Its first byte in the tag.
    pub(super) at: usize,
    /// Of a bracket, the other one.
    pub(super) other: Option<usize>,
}

/// The tokens between the delimiters of the tag that `source` starts with, and the tag's bytes. `None` if it does not end,
/// or its brackets do not match.
pub(super) fn tag_tokens(source: &str) -> Option<(Vec<Token<'_>>, usize)> {
    let close = if source.starts_with("{{") { "}}" } else { "%}" };
    let mut tokens: Vec<Token> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut at = 2;
    if source[at..].starts_with(['-', '+']) {
        at += 1;
    }
    loop {
        let rest = &source[at..];
        let first = rest.chars().next()?;
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        if open.is_empty() {
            let end = rest.strip_prefix(['-', '+']).unwrap_or(rest);
            if end.starts_with(close) {
                return Some((tokens, source.len() - end.len() + close.len()));
            }
        }
        let (kind, length) = match first {
            '"' | '\'' => (Kind::Text, text_length(rest)?),
            c if c.is_ascii_digit() => (Kind::Number, number_length(rest, after_dot(&tokens))),
            c if c == '_' || c.is_alphabetic() => {
                let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric());
                (Kind::Name, end.unwrap_or(rest.len()))
            }
            c if c.is_ascii() => {
                let two = ["**", "//", "==", "!=", "<=", ">="]
                    .into_iter()
                    .any(|two| rest.starts_with(two));
                (Kind::Sign, if two { 2 } else { 1 })
            }
            _ => return None,
        };
        let index = tokens.len();
        let mut other = None;
        if kind == Kind::Sign && "([{".contains(first) {
            open.push(index);
        } else if kind == Kind::Sign && ")]}".contains(first) {
            let opened = open.pop()?;
            let wanted = match tokens[opened].text {
                "(" => ')',
                "[" => ']',
                _ => '}',
            };
            if first != wanted {
                return None;
            }
            tokens[opened].other = Some(index);
            other = Some(opened);
        }
        let text = &rest[..length];
        tokens.push(Token { kind, text, at, other });
        at += length;
    }
}

fn after_dot(tokens: &[Token]) -> bool {
    tokens
        .last()
        .is_some_and(|token| token.kind == Kind::Sign && token.text == ".")
}

/// Bytes of the text that `rest` starts with.
fn text_length(rest: &str) -> Option<usize> {
    let quote = rest.as_bytes()[0];
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            byte if byte == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Bytes of the number that `rest` starts with: an index, after a dot, has no fraction.
fn number_length(rest: &str, index: bool) -> usize {
    let bytes = rest.as_bytes();
    let digits = |from: usize| {
        bytes[from..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit() || **byte == b'_')
            .count()
    };
    if bytes[0] == b'0' && bytes.get(1).is_some_and(|byte| b"bBoOxX".contains(byte)) {
        let more = bytes[2..]
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit() || **byte == b'_');
        return 2 + more.count();
    }
    let mut length = digits(0);
    if index {
        return length;
    }
    if bytes.get(length) == Some(&b'.') && bytes.get(length + 1).is_some_and(u8::is_ascii_digit) {
        length += 1 + digits(length + 1);
    }
    if bytes.get(length).is_some_and(|byte| b"eE".contains(byte)) {
        let sign = usize::from(bytes.get(length + 1).is_some_and(|byte| b"+-".contains(byte)));
        if bytes.get(length + 1 + sign).is_some_and(u8::is_ascii_digit) {
            length += 1 + sign + digits(length + 1 + sign);
        }
    }
    length
}
