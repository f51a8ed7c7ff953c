//! Filters for HTML.

use minijinja::Error;
use minijinja::value::{Value, ValueKind};

use super::arguments::{Arguments, wrong};
use super::characters::escaped;
use super::python::{room, string};

/// The filter `escape`.
pub(super) fn escape(value: Value) -> Result<Value, Error> {
    if value.is_safe() {
        return Ok(value);
    }
    forceescape(value)
}

/// The filter `forceescape`.
pub(super) fn forceescape(value: Value) -> Result<Value, Error> {
    let text = escaped(&string(value)?);
    room(text.len())?;
    Ok(Value::from_safe_string(text))
}

/// The filter `xmlattr`.
pub(super) fn xmlattr(value: &Value, given: &[Value]) -> Result<Value, Error> {
    let given = Arguments::new("xmlattr", ["autospace"], given)?;
    if value.kind() != ValueKind::Map {
        return Err(wrong(format!("xmlattr of a value of type {}", value.kind())));
    }
    let safe = |value: Value| -> Result<String, Error> { Ok(escape(value)?.as_str().unwrap_or_default().to_string()) };
    let mut text = String::new();
    for key in value.try_iter()? {
        let item = value.get_item(&key)?;
        if item.is_none() || item.is_undefined() {
            continue;
        }
        let name = string(key.clone())?;
        if name.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '>' | '=')) {
            return Err(wrong(format!("xmlattr with the name {name:?}")));
        }
        text.push_str(if text.is_empty() { "" } else { " " });
        text.push_str(&format!("{}=\"{}\"", safe(key)?, safe(item)?));
        room(text.len())?;
    }
    if given.flag(0, true) && !text.is_empty() {
        text.insert(0, ' ');
    }
    Ok(Value::from_safe_string(text))
}

/// The filter `striptags`: without comments and tags, white space as one blank, entities as characters.
pub(super) fn striptags(value: Value) -> Result<String, Error> {
    let source = string(value)?;
    let mut text = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(start) = rest.find('<') {
        let tag = &rest[start..];
        let end = match tag.strip_prefix("<!--") {
            Some(comment) => comment.find("-->").map(|end| end + 7),
            None => tag.find('>').map(|end| end + 1),
        };
        let Some(end) = end else {
            break;
        };
        text.push_str(&rest[..start]);
        rest = &tag[end..];
    }
    text.push_str(rest);
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(unescaped(&words.join(" ")))
}

/// Entities that templates and what people write have; others stay as they are.
const ENTITIES: [(&str, &str); 6] = [
    ("amp;", "&"),
    ("lt;", "<"),
    ("gt;", ">"),
    ("quot;", "\""),
    ("apos;", "'"),
    ("nbsp;", "\u{a0}"),
];

fn unescaped(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        written.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let named = ENTITIES
            .iter()
            .find_map(|(name, c)| Some(((*c).to_string(), after.strip_prefix(name)?)));
        let found = named.or_else(|| {
            let (inner, radix) = match after.strip_prefix("#x").or_else(|| after.strip_prefix("#X")) {
                Some(inner) => (inner, 16),
                None => (after.strip_prefix('#')?, 10),
            };
            let end = inner.find(|c: char| !c.is_digit(radix)).unwrap_or(inner.len());
            let code = u32::from_str_radix(&inner[..end], radix).ok()?;
            let left = inner[end..].strip_prefix(';').unwrap_or(&inner[end..]);
            Some((char::from_u32(code).filter(|c| *c != '\0')?.to_string(), left))
        });
        match found {
            Some((c, left)) => {
                written.push_str(&c);
                rest = left;
            }
            None => {
                let end = after.find([';', ' ', '&']).filter(|end| after[*end..].starts_with(';'));
                let entity = end.map(|end| minijinja_contrib::filters::striptags(format!("&{};", &after[..end])));
                match (entity, end) {
                    (Some(c), Some(end)) if !c.starts_with('&') && !c.is_empty() => {
                        written.push_str(&c);
                        rest = &after[end + 1..];
                    }
                    _ => {
                        written.push('&');
                        rest = after;
                    }
                }
            }
        }
    }
    written.push_str(rest);
    written
}
