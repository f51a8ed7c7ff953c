//! What Jinja takes from Python: how values are written, and the clock.

use std::fmt::Write;

use chrono::format::{Item, StrftimeItems};
use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Error, ErrorKind, Output, State};

use super::arguments::wrong;
use super::characters::{escaped, printable};
use super::globals;

/// Bytes that one value may become.
const LONGEST: usize = 16 << 20;
/// Lists and objects within each other at most.
const DEEPEST: usize = 200;

/// `{{ value }}`.
pub(super) fn write(state: &State, value: &Value, out: &mut Output) -> Result<(), Error> {
    let escape = *state.auto_escape() != AutoEscape::None && !value.is_safe();
    match value.as_str() {
        Some(text) if !escape => out.write_str(text).map_err(Error::from),
        _ if escape => out.write_str(&escaped(&string(value.clone())?)).map_err(Error::from),
        _ => out.write_str(&string(value.clone())?).map_err(Error::from),
    }
}

/// A whole number or a truth value, as a number.
pub(super) fn integer(value: &Value) -> Option<i128> {
    match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    }
}

/// Refuses texts of more than what one value may become.
pub(super) fn room(bytes: usize) -> Result<(), Error> {
    match bytes > LONGEST {
        true => Err(Error::from(ErrorKind::OutOfFuel)),
        false => Ok(()),
    }
}

/// Python's `repr`.
pub(super) fn repr_of(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    repr(value, &mut text, 1)?;
    Ok(text)
}

/// Python's `ascii`, of what `repr` wrote.
pub(super) fn ascii(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for c in text.chars() {
        match u32::from(c) {
            0..0x80 => written.push(c),
            code @ 0x80..0x100 => written.push_str(&format!("\\x{code:02x}")),
            code @ 0x100..0x10000 => written.push_str(&format!("\\u{code:04x}")),
            code => written.push_str(&format!("\\U{code:08x}")),
        }
    }
    written
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

/// Python's `repr`, but nothing for what is undefined by itself.
fn repr(value: &Value, text: &mut String, depth: usize) -> Result<(), Error> {
    check(text, depth)?;
    match value.kind() {
        ValueKind::Undefined => text.push_str(if depth > 0 { "Undefined" } else { "" }),
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
            let name = globals::view_name(value);
            let [open, close] = if value.is_tuple() { ["(", ")"] } else { ["[", "]"] };
            if let Some(range) = globals::range_repr(value) {
                text.push_str(&range);
                return Ok(());
            }
            text.push_str(name);
            text.push_str(if name.is_empty() { "" } else { "(" });
            text.push_str(open);
            let mut count = 0;
            for (index, item) in value.try_iter()?.enumerate() {
                text.push_str(if index > 0 { ", " } else { "" });
                repr(&item, text, depth + 1)?;
                count = index + 1;
            }
            text.push_str(if count == 1 && value.is_tuple() { "," } else { "" });
            text.push_str(close);
            text.push_str(if name.is_empty() { "" } else { ")" });
        }
        ValueKind::Number => text.push_str(&number(value, ["inf", "nan"])),
        _ => write!(text, "{value}").map_err(Error::from)?,
    }
    Ok(())
}

/// A number; `names` are those of infinity and NaN.
pub(super) fn number(value: &Value, names: [&str; 2]) -> String {
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

/// Refuses what is too deep or too long.
pub(super) fn check(text: &str, depth: usize) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(wrong(format!("a value of more than {DEEPEST} lists within each other")));
    }
    room(text.len())
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
            c if !printable(c) => match u32::from(c) {
                code @ 0..0x100 => text.push_str(&format!("\\x{code:02x}")),
                code @ 0x100..0x10000 => text.push_str(&format!("\\u{code:04x}")),
                code => text.push_str(&format!("\\U{code:08x}")),
            },
            c => text.push(c),
        }
    }
    text.push(quote);
}

/// Longest format of a date, which is written without fuel.
const LONGEST_DATE: usize = 1000;

/// Today's date in the local time zone, as Python's `datetime.now().strftime(format)`.
pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    if format.len() > LONGEST_DATE {
        return Err(wrong(format!(
            "strftime_now with a format of {} bytes; expected at most {LONGEST_DATE}",
            format.len()
        )));
    }
    if StrftimeItems::new(format).any(|item| matches!(item, Item::Error)) {
        return Err(wrong("strftime_now with a format that is none"));
    }
    let mut text = String::new();
    write!(text, "{}", chrono::Local::now().format(format)).map_err(Error::from)?;
    Ok(text)
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
