//! `pprint`: Python's `pprint.pformat`, in lines of 80 characters.

use minijinja::Error;
use minijinja::value::{Value, ValueKind};

use super::characters::lines;
use super::python::{check, repr_of};

const WIDTH: usize = 80;

/// `value` in lines, the keys of objects sorted.
pub(super) fn pretty(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    write(value, 0, 0, 0, &mut text)?;
    Ok(text)
}

/// `value` at the column `indent`, with `after` characters to follow it.
fn write(value: &Value, indent: usize, after: usize, depth: usize, text: &mut String) -> Result<(), Error> {
    check(text, depth)?;
    let line = sorted_repr(value, depth)?;
    if line.chars().count() <= WIDTH.saturating_sub(indent + after) {
        text.push_str(&line);
        return Ok(());
    }
    match value.kind() {
        ValueKind::Map => {
            let keys = sorted_keys(value)?;
            text.push('{');
            for (index, key) in keys.iter().enumerate() {
                if index > 0 {
                    text.push_str(&format!(",\n{}", " ".repeat(indent + 1)));
                }
                let name = repr_of(key)?;
                text.push_str(&format!("{name}: "));
                let last = index + 1 == keys.len();
                let column = indent + name.chars().count() + 3;
                write(
                    &value.get_item(key)?,
                    column,
                    if last { after + 1 } else { 1 },
                    depth + 1,
                    text,
                )?;
            }
            text.push('}');
        }
        ValueKind::Seq => {
            let items: Vec<Value> = value.try_iter()?.collect();
            let [open, close] = match (value.is_tuple(), items.len()) {
                (true, 1) => ["(", ",)"],
                (true, _) => ["(", ")"],
                (false, _) => ["[", "]"],
            };
            text.push_str(open);
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push_str(&format!(",\n{}", " ".repeat(indent + 1)));
                }
                let last = index + 1 == items.len();
                write(
                    item,
                    indent + 1,
                    if last { after + close.len() } else { 1 },
                    depth + 1,
                    text,
                )?;
            }
            text.push_str(close);
        }
        ValueKind::String => long_text(value.as_str().unwrap_or_default(), indent, after, depth == 0, text)?,
        _ => text.push_str(&line),
    }
    Ok(())
}

/// `repr` with the keys of objects sorted.
fn sorted_repr(value: &Value, depth: usize) -> Result<String, Error> {
    check("", depth)?;
    let join = |items: Result<Vec<String>, Error>| items.map(|items| items.join(", "));
    match value.kind() {
        ValueKind::Map => {
            let pair = |key: &Value| -> Result<String, Error> {
                Ok(format!(
                    "{}: {}",
                    repr_of(key)?,
                    sorted_repr(&value.get_item(key)?, depth + 1)?
                ))
            };
            let pairs = sorted_keys(value)?.iter().map(pair).collect();
            Ok(format!("{{{}}}", join(pairs)?))
        }
        ValueKind::Seq if !value.is_tuple() => {
            let items = value.try_iter()?.map(|item| sorted_repr(&item, depth + 1)).collect();
            Ok(format!("[{}]", join(items)?))
        }
        _ => repr_of(value),
    }
}

fn sorted_keys(value: &Value) -> Result<Vec<Value>, Error> {
    let mut keys: Vec<Value> = value.try_iter()?.collect();
    keys.sort();
    Ok(keys)
}

/// A text in several literals.
fn long_text(
    source: &str,
    mut indent: usize,
    mut after: usize,
    outermost: bool,
    text: &mut String,
) -> Result<(), Error> {
    if outermost {
        indent += 1;
        after += 1;
    }
    let width = WIDTH.saturating_sub(indent);
    let literal = |text: &str| repr_of(&Value::from(text));
    let length = |text: &str| text.chars().count();
    let mut chunks: Vec<String> = Vec::new();
    let lines = lines(source, true);
    for (index, line) in lines.iter().enumerate() {
        let last = index + 1 == lines.len();
        let whole = literal(line)?;
        if length(&whole) <= width.saturating_sub(if last { after } else { 0 }) {
            chunks.push(whole);
            continue;
        }
        let words = words(line);
        let mut current = String::new();
        for (place, word) in words.iter().enumerate() {
            let candidate = format!("{current}{word}");
            let room = width.saturating_sub(if last && place + 1 == words.len() { after } else { 0 });
            if length(&literal(&candidate)?) > room {
                if !current.is_empty() {
                    chunks.push(literal(&current)?);
                }
                current = (*word).to_string();
            } else {
                current = candidate;
            }
        }
        if !current.is_empty() {
            chunks.push(literal(&current)?);
        }
    }
    let several = outermost && chunks.len() > 1;
    text.push_str(if several { "(" } else { "" });
    text.push_str(&chunks.join(&format!("\n{}", " ".repeat(indent))));
    text.push_str(if several { ")" } else { "" });
    Ok(())
}

/// Words with the white space after them.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let word = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let end = rest[word..]
            .find(|c: char| !c.is_whitespace())
            .map_or(rest.len(), |blank| word + blank);
        words.push(&rest[..end]);
        rest = &rest[end..];
    }
    words
}
