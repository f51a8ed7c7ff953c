//! `tojson`: Python's `json.dumps`.

use minijinja::value::{Kwargs, Value, ValueKind, from_args};
use minijinja::{Error, State};

use super::arguments::wrong;
use super::python::{check, number, room, string};

/// How `json.dumps` writes.
struct Dumps {
    ensure_ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sort_keys: bool,
}

/// transformers' `tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`: Python's `json.dumps`,
/// without Jinja's HTML escapes.
pub(super) fn tojson(state: &mut State, value: &Value, options: &[Value]) -> Result<String, Error> {
    let (positional, named) = from_args::<(&[Value], Kwargs)>(options)?;
    let option = |index: usize, name: &str| -> Result<Option<Value>, Error> {
        let named: Option<Value> = named.get(name)?;
        let value = named.or_else(|| positional.get(index).cloned());
        Ok(value.filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let flag = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let ensure_ascii = flag(option(0, "ensure_ascii")?);
    let indent = match option(1, "indent")? {
        None => None,
        Some(text) if text.as_str().is_some() => text.as_str().map(String::from),
        Some(width) => match width.as_usize() {
            Some(width) if width <= 100 => Some(" ".repeat(width)),
            // Python then breaks lines and indents none.
            None if width.as_i64().is_some_and(|width| width < 0) => Some(String::new()),
            _ => return Err(wrong(format!("tojson with an indent of {width}; expected at most 100"))),
        },
    };
    let (item, key) = match option(2, "separators")? {
        None if indent.is_some() => (",".to_string(), ": ".to_string()),
        None => (", ".to_string(), ": ".to_string()),
        Some(pair) => {
            let part = |index: usize| string(pair.get_item_by_index(index)?);
            (part(0)?, part(1)?)
        }
    };
    let sort_keys = flag(option(3, "sort_keys")?);
    named.assert_all_used()?;
    let dumps = Dumps {
        ensure_ascii,
        indent,
        item,
        key,
        sort_keys,
    };
    let mut text = String::new();
    dumps.write(value, &mut text, 0)?;
    state.consume_fuel(text.len() as u64 / 16)?;
    Ok(text)
}

impl Dumps {
    fn write(&self, value: &Value, text: &mut String, depth: usize) -> Result<(), Error> {
        check(text, depth)?;
        match value.kind() {
            ValueKind::None => text.push_str("null"),
            ValueKind::Bool => text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::String => self.quote(value.as_str().unwrap_or_default(), text),
            ValueKind::Number => text.push_str(&number(value, ["Infinity", "NaN"])),
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.items(text, depth, ['{', '}'], &keys, |key, text| {
                    let name = match key.kind() {
                        // JSON's keys are texts, and Python writes others as their values.
                        ValueKind::String => key.as_str().unwrap_or_default().to_string(),
                        ValueKind::None => "null".into(),
                        ValueKind::Bool => key.to_string().to_lowercase(),
                        ValueKind::Number => number(key, ["Infinity", "NaN"]),
                        _ => key.to_string(),
                    };
                    self.quote(&name, text);
                    text.push_str(&self.key);
                    self.write(&value.get_item(key)?, text, depth + 1)
                })?;
            }
            ValueKind::Seq | ValueKind::Iterable => {
                // A sum of lists may say that it has billions of items: each one writes at least a byte.
                let mut items = Vec::new();
                for item in value.try_iter()? {
                    room(text.len() + items.len())?;
                    items.push(item);
                }
                self.items(text, depth, ['[', ']'], &items, |item, text| {
                    self.write(item, text, depth + 1)
                })?;
            }
            kind => return Err(wrong(format!("tojson of a value of type {kind}"))),
        }
        Ok(())
    }

    fn items(
        &self,
        text: &mut String,
        depth: usize,
        [open, close]: [char; 2],
        items: &[Value],
        mut one: impl FnMut(&Value, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let break_line = |text: &mut String, depth: usize| {
            if let Some(indent) = &self.indent {
                text.push('\n');
                (0..depth).for_each(|_| text.push_str(indent));
            }
        };
        text.push(open);
        for (index, item) in items.iter().enumerate() {
            text.push_str(if index > 0 { &self.item } else { "" });
            break_line(text, depth + 1);
            one(item, text)?;
        }
        if !items.is_empty() {
            break_line(text, depth);
        }
        text.push(close);
        Ok(())
    }

    fn quote(&self, value: &str, text: &mut String) {
        text.push('"');
        for c in value.chars() {
            match c {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\u{8}' => text.push_str("\\b"),
                '\u{c}' => text.push_str("\\f"),
                c if c < ' ' => text.push_str(&format!("\\u{:04x}", u32::from(c))),
                c if self.ensure_ascii && !(' '..='~').contains(&c) => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        text.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => text.push(c),
            }
        }
        text.push('"');
    }
}
