//! Python's `str.format`.

use minijinja::Error;
use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Value, ValueKind};

use super::arguments::{split, wrong};
use super::percent::float;
use super::python::{ascii, repr_of, room, string};

/// What fields are filled with.
struct Fields<'a> {
    placed: &'a [Value],
    named: Vec<(String, Value)>,
    /// The next field without a name; `None` once fields have numbers.
    next: Option<usize>,
    numbered: bool,
}

/// `text.format(arguments)`.
pub(super) fn str_format(text: &str, arguments: &[Value]) -> Result<String, Error> {
    let (placed, named) = split(arguments)?;
    let mut fields = Fields {
        placed,
        named,
        next: Some(0),
        numbered: false,
    };
    fields.fill(text, 2)
}

impl Fields<'_> {
    /// `text` with its fields filled; fields nest as deep as `depth`.
    fn fill(&mut self, text: &str, depth: usize) -> Result<String, Error> {
        let mut written = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            written.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            let after = &rest[at + 1..];
            if let Some(after) = after.strip_prefix(brace) {
                written.push_str(brace);
                rest = after;
            } else if brace == "}" {
                return Err(wrong("format of a text with a single '}'"));
            } else {
                let end = closing(after).ok_or_else(|| wrong("format of a text with a single '{'"))?;
                written.push_str(&self.field(&after[..end], depth)?);
                rest = &after[end + 1..];
            }
            room(written.len())?;
        }
        written.push_str(rest);
        Ok(written)
    }

    /// A field: `name!conversion:specification`.
    fn field(&mut self, field: &str, depth: usize) -> Result<String, Error> {
        if depth == 0 {
            return Err(wrong("format of a text with fields too deep within each other"));
        }
        let named = field
            .find(['!', ':', '['])
            .map_or(field.len(), |at| match field.as_bytes()[at] {
                b'[' => {
                    let end = field[at..].rfind(']').map_or(field.len(), |end| at + end + 1);
                    field[end..].find(['!', ':']).map_or(field.len(), |more| end + more)
                }
                _ => at,
            });
        let (name, rest) = field.split_at(named);
        let value = self.value(name)?;
        let (conversion, rest) = match rest.strip_prefix('!') {
            Some(rest) => {
                let letter = rest
                    .chars()
                    .next()
                    .ok_or_else(|| wrong("format with a '!' and nothing after it"))?;
                (Some(letter), &rest[letter.len_utf8()..])
            }
            None => (None, rest),
        };
        let specification = match rest.strip_prefix(':') {
            Some(specification) => self.fill(specification, depth - 1)?,
            None if rest.is_empty() => String::new(),
            None => return Err(wrong("format with more after a conversion than ':'")),
        };
        let value = match conversion {
            None => value,
            Some('s') => Value::from(string(value)?),
            Some('r') => Value::from(repr_of(&value)?),
            Some('a') => Value::from(ascii(&repr_of(&value)?)),
            Some(letter) => {
                return Err(wrong(format!(
                    "format with the conversion '{letter}'; expected r, s or a"
                )));
            }
        };
        specified(&value, &specification)
    }

    /// The value of `name`, which may go on with `.field` and `[item]`.
    fn value(&mut self, name: &str) -> Result<Value, Error> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let missing = || wrong(format!("format without a value for '{{{name}}}'"));
        let mut value = if first.is_empty() {
            let index = self.next.filter(|_| !self.numbered);
            let index = index.ok_or_else(|| wrong("format with fields that have numbers and fields that have none"))?;
            self.next = Some(index + 1);
            self.placed.get(index).cloned().ok_or_else(missing)?
        } else if let Ok(index) = first.parse::<usize>() {
            if self.next.is_some_and(|next| next > 0) {
                return Err(wrong("format with fields that have numbers and fields that have none"));
            }
            self.numbered = true;
            self.placed.get(index).cloned().ok_or_else(missing)?
        } else {
            let found = self.named.iter().find(|(known, _)| known == first);
            found.map(|(_, value)| value.clone()).ok_or_else(missing)?
        };
        while !rest.is_empty() {
            let (key, after) = match rest.strip_prefix('[') {
                Some(inner) => {
                    let end = inner.find(']').ok_or_else(missing)?;
                    let key = match inner[..end].parse::<i64>() {
                        Ok(index) => Value::from(index),
                        Err(_) => Value::from(&inner[..end]),
                    };
                    (key, &inner[end + 1..])
                }
                None => {
                    let inner = rest.strip_prefix('.').ok_or_else(missing)?;
                    let end = inner.find(['.', '[']).unwrap_or(inner.len());
                    (Value::from(&inner[..end]), &inner[end..])
                }
            };
            value = value.get_item(&key).unwrap_or(Value::UNDEFINED);
            rest = after;
        }
        Ok(value)
    }
}

/// Where the brace of a field closes.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Python's `format(value, specification)`.
fn specified(value: &Value, specification: &str) -> Result<String, Error> {
    let number = matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    if specification.is_empty() {
        return string(value.clone());
    }
    if !number && value.as_str().is_none() {
        return Err(wrong(format!(
            "format of a value of type {} with ':{specification}'",
            value.kind()
        )));
    }
    let digits = specification.bytes().filter(u8::is_ascii_digit).count();
    if digits > 5 {
        return Err(wrong("format with a width of more than five digits"));
    }
    if let (true, Some(before)) = (number, specification.strip_suffix('%')) {
        return percentage(value, before);
    }
    // The numbers of a locale, of which there is none.
    let specification = match (number, specification.strip_suffix('n')) {
        (true, Some(before)) if value.is_integer() => format!("{before}d"),
        (true, Some(before)) => format!("{before}g"),
        _ => specification.to_string(),
    };
    format(
        FormatStyle::StrFormat,
        &format!("{{:{specification}}}"),
        std::slice::from_ref(value),
    )
}

/// A number in percent; `specification` is what stands before the `%`.
fn percentage(value: &Value, specification: &str) -> Result<String, Error> {
    let percent = float(value).unwrap_or(f64::NAN) * 100.0;
    let number = |specification: &str| {
        let text = format(
            FormatStyle::StrFormat,
            &format!("{{:{specification}f}}"),
            &[Value::from(percent)],
        )?;
        Ok::<_, Error>(format!("{text}%"))
    };
    // What stands before the width: a character to fill with, where to, and signs.
    let aligned = specification.find(['<', '>', '^', '=']).map_or(0, |at| at + 1);
    let (alignment, rest) = specification.split_at(aligned);
    let signs = rest.find(|c| !"+- #".contains(c)).unwrap_or(rest.len());
    let (signs, rest) = rest.split_at(signs);
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (width, rest) = rest.split_at(digits);
    let Ok(size) = width.parse::<usize>() else {
        return number(specification);
    };
    if width.starts_with('0') || alignment.ends_with('=') {
        // The sign of percent takes one place of the width.
        return number(&format!(
            "{alignment}{signs}{}{rest}",
            width.replace(&size.to_string(), &size.saturating_sub(1).to_string())
        ));
    }
    let alignment = if alignment.is_empty() { ">" } else { alignment };
    let text = Value::from(number(&format!("{signs}{rest}"))?);
    format(FormatStyle::StrFormat, &format!("{{:{alignment}{width}}}"), &[text])
}
