//! What Jinja takes from Python: how values are written, `json.dumps`, methods of texts, the clock.

use std::fmt::Write;

use chrono::format::{Item, StrftimeItems};
use minijinja::value::{Kwargs, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, Output, State};

use super::limits;

/// Bytes that one value may become.
const LONGEST: usize = 16 << 20;
/// Lists and objects within each other at most.
const DEEPEST: usize = 200;

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// `{{ value }}`.
pub(super) fn write(value: &Value, out: &mut Output) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.write_str(text).map_err(Error::from),
        None => out.write_str(&string(value.clone())?).map_err(Error::from),
    }
}

/// Python's `str`.
pub(super) fn string(value: Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_string());
    }
    let mut text = String::new();
    repr(&value, &mut text, 0)?;
    Ok(text)
}

/// Python's `repr`, but nothing for what is undefined.
fn repr(value: &Value, text: &mut String, depth: usize) -> Result<(), Error> {
    check(text, depth)?;
    match value.kind() {
        ValueKind::Undefined => {}
        ValueKind::None => text.push_str("None"),
        ValueKind::Bool => text.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::String => quoted(value.as_str().unwrap_or_default(), text),
        ValueKind::Map => {
            text.push('{');
            for (index, key) in value.try_iter()?.enumerate() {
                text.push_str(if index > 0 { ", " } else { "" });
                repr(&key, text, depth + 1)?;
                text.push_str(": ");
                repr(&value.get_item(&key)?, text, depth + 1)?;
            }
            text.push('}');
        }
        ValueKind::Seq | ValueKind::Iterable => {
            text.push('[');
            for (index, item) in value.try_iter()?.enumerate() {
                text.push_str(if index > 0 { ", " } else { "" });
                repr(&item, text, depth + 1)?;
            }
            text.push(']');
        }
        ValueKind::Number => text.push_str(&number(value, ["inf", "nan"])),
        _ => write!(text, "{value}").map_err(Error::from)?,
    }
    Ok(())
}

/// A number; `names` are those of infinity and NaN.
fn number(value: &Value, names: [&str; 2]) -> String {
    let Some(float) = f64::try_from(value.clone()).ok().filter(|_| !value.is_integer()) else {
        return value.to_string();
    };
    if !float.is_finite() {
        let sign = if float < 0.0 { "-" } else { "" };
        return format!("{sign}{}", names[usize::from(float.is_nan())]);
    }
    // The shortest digits that give the number back, in exponents where Python writes them.
    let digits = format!("{float:e}");
    let (mantissa, exponent) = digits.split_once('e').unwrap_or((&digits, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    match (-4..16).contains(&exponent) {
        true => format!("{float:?}"),
        false => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.abs())
        }
    }
}

fn check(text: &str, depth: usize) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(wrong(format!("a value of more than {DEEPEST} lists within each other")));
    }
    match text.len() > LONGEST {
        true => Err(Error::from(ErrorKind::OutOfFuel)),
        false => Ok(()),
    }
}

/// Python prefers single quotes.
fn quoted(value: &str, text: &mut String) {
    let quote = if value.contains('\'') && !value.contains('"') {
        '"'
    } else {
        '\''
    };
    text.push(quote);
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if c == quote => text.extend(['\\', c]),
            c if c.is_control() => text.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push(quote);
}

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
                        _ => key.to_string(),
                    };
                    self.quote(&name, text);
                    text.push_str(&self.key);
                    self.write(&value.get_item(key)?, text, depth + 1)
                })?;
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.items(text, depth, ['[', ']'], &items, |item, text| {
                    self.write(item, text, depth + 1)
                })?;
            }
            kind => return Err(wrong(format!("tojson of something {kind}"))),
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
                c if self.ensure_ascii && !c.is_ascii() => {
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

/// Today's date in the local time zone, as Python's `datetime.now().strftime(format)`.
pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    let format = limits::date_format(format)?;
    if StrftimeItems::new(format).any(|item| matches!(item, Item::Error)) {
        return Err(wrong("strftime_now with a format that is none"));
    }
    let mut text = String::new();
    write!(text, "{}", chrono::Local::now().format(format)).map_err(Error::from)?;
    Ok(text)
}

/// Methods of Python's values that the engine does not have by itself.
pub(super) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let text = value.as_str();
    match (text, name) {
        (Some(text), "removeprefix") => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        (Some(text), "removesuffix") => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        (Some(text), "partition") => {
            let (separator,): (&str,) = from_args(args)?;
            // The engine pays for the list alone.
            state.consume_fuel(text.len() as u64 / 64)?;
            let (before, after) = text.split_once(separator).unwrap_or((text, ""));
            let between = if text.contains(separator) { separator } else { "" };
            Ok(Value::from_iter([before, between, after]))
        }
        (Some(text), "split" | "splitlines") => {
            state.consume_fuel(text.len() as u64 / 64)?;
            minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
        }
        (Some(text), "format") => {
            limits::pay_for_format(state, text, args)?;
            minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        for (number, text) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.25e300, "1.25e+300"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(string(Value::from(number)).unwrap(), text);
        }
        assert_eq!(string(Value::from(12)).unwrap(), "12");
    }
}
