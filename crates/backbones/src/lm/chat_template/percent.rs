//! Python's operator `%`: the rest of a division, and texts with values put in.

use std::fmt::Write;

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use super::arguments::{split, wrong};
use super::characters::escaped;
use super::python::{ascii, integer, repr_of, room, string};

/// Characters that a width or a precision asks for, at most.
const WIDEST: usize = 1 << 16;

/// `left % right`.
pub(super) fn percent(state: &mut State, left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(text) = left.as_str() {
        let written = filled(text, right, left.is_safe())?;
        state.consume_fuel(written.len() as u64 / 16)?;
        return Ok(match left.is_safe() {
            true => Value::from_safe_string(written),
            false => Value::from(written),
        });
    }
    let kinds = || wrong(format!("% of values of types {} and {}", left.kind(), right.kind()));
    let number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    if !number(left) || !number(right) {
        return Err(kinds());
    }
    if let (Some(a), Some(b)) = (integer(left), integer(right)) {
        let rest = a.checked_rem(b).or((b == -1).then_some(0)).ok_or_else(by_zero)?;
        return Ok(Value::from(if rest != 0 && (rest < 0) != (b < 0) {
            rest + b
        } else {
            rest
        }));
    }
    let (a, b) = (float(left).ok_or_else(kinds)?, float(right).ok_or_else(kinds)?);
    if b == 0.0 {
        return Err(by_zero());
    }
    let rest = a % b;
    Ok(Value::from(match rest != 0.0 && (rest < 0.0) != (b < 0.0) {
        true => rest + b,
        false if rest == 0.0 => 0.0_f64.copysign(b),
        false => rest,
    }))
}

fn by_zero() -> Error {
    wrong("% by zero")
}

/// A number or truth value.
pub(super) fn float(value: &Value) -> Option<f64> {
    match integer(value) {
        Some(whole) => Some(whole as f64),
        None => f64::try_from(value.clone()).ok(),
    }
}

/// The filter `format`: `text % arguments`.
pub(super) fn format_filter(state: &mut State, text: &Value, arguments: &[Value]) -> Result<Value, Error> {
    let (placed, named) = split(arguments)?;
    let right = match named.is_empty() {
        true => Value::from(minijinja::value::Tuple::from(placed.to_vec())),
        false if placed.is_empty() => Value::from_pairs(named),
        false => return Err(wrong("format with arguments by place and by name")),
    };
    let text = match text.as_str() {
        Some(_) => text.clone(),
        None => Value::from(string(text.clone())?),
    };
    percent(state, &text, &right)
}

/// The values of a format, in their order.
struct Values<'a> {
    all: Vec<Value>,
    next: usize,
    right: &'a Value,
}

impl Values<'_> {
    fn next(&mut self) -> Result<Value, Error> {
        self.next += 1;
        let value = self.all.get(self.next - 1).cloned();
        value.ok_or_else(|| wrong("% with fewer values than the text has places"))
    }
}

/// `text` with values in place of what starts with `%`.
fn filled(text: &str, right: &Value, safe: bool) -> Result<String, Error> {
    let several = right.is_tuple();
    let mapping = !several && matches!(right.kind(), ValueKind::Map | ValueKind::Seq | ValueKind::Undefined);
    let all = match several {
        true => right.try_iter()?.collect(),
        false => vec![right.clone()],
    };
    let mut values = Values { all, next: 0, right };
    let mut written = String::with_capacity(text.len());
    let mut named = false;
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        written.push_str(&rest[..at]);
        let (place, length) = Place::read(&rest[at + 1..], &mut values)?;
        rest = &rest[at + 1 + length..];
        named |= place.named;
        place.write(&mut values, safe, &mut written)?;
        room(written.len())?;
    }
    written.push_str(rest);
    if !named && !mapping && values.next < values.all.len() {
        return Err(wrong("% with more values than the text has places"));
    }
    Ok(written)
}

/// What stands between a `%` and its letter.
struct Place {
    flags: String,
    width: Option<usize>,
    precision: Option<usize>,
    letter: char,
    value: Option<Value>,
    named: bool,
}

impl Place {
    /// The place that `text` starts with, and its length.
    fn read(text: &str, values: &mut Values) -> Result<(Self, usize), Error> {
        let mut rest = text;
        let mut value = None;
        let named = rest.starts_with('(');
        if named {
            let mut depth = 0;
            let closes = |c: char| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                depth == 0
            };
            let end = rest
                .find(closes)
                .ok_or_else(|| wrong("% with a name that does not end"))?;
            if values.right.kind() != ValueKind::Map {
                return Err(wrong("% with a name, of what has none"));
            }
            let name = &rest[1..end];
            let found = values.right.get_item(&Value::from(name))?;
            if found.is_undefined() {
                return Err(wrong(format!(
                    "% with the name '{name}', which is not among the values"
                )));
            }
            value = Some(found);
            rest = &rest[end + 1..];
        }
        let flags: String = rest.chars().take_while(|c| "#0- +".contains(*c)).collect();
        rest = &rest[flags.len()..];
        let mut flags = flags;
        let mut size = |rest: &mut &str, flags: Option<&mut String>| -> Result<Option<usize>, Error> {
            if let Some(after) = rest.strip_prefix('*') {
                *rest = after;
                let value = values.next()?;
                let size = value.as_i64().filter(|_| value.is_integer());
                let size = size.ok_or_else(|| wrong("% with a width that is no whole number"))?;
                if let (true, Some(flags)) = (size < 0, flags) {
                    flags.push('-');
                }
                return checked(usize::try_from(size.unsigned_abs()).ok()).map(Some);
            }
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at(digits);
            *rest = after;
            match number.is_empty() {
                true => Ok(None),
                false => checked(number.parse().ok()).map(Some),
            }
        };
        let width = size(&mut rest, Some(&mut flags))?;
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            precision = Some(size(&mut rest, None)?.unwrap_or(0));
        }
        rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
        let letter = rest.chars().next();
        let letter = letter.ok_or_else(|| wrong("% at the end of a text"))?;
        let length = text.len() - rest.len() + letter.len_utf8();
        let place = Self {
            flags,
            width,
            precision,
            letter,
            value,
            named,
        };
        Ok((place, length))
    }

    fn write(self, values: &mut Values, safe: bool, written: &mut String) -> Result<(), Error> {
        if self.letter == '%' {
            written.push('%');
            return Ok(());
        }
        let value = match &self.value {
            Some(value) => value.clone(),
            None => values.next()?,
        };
        let escape = |text: String| if safe { escaped(&text) } else { text };
        let text = match self.letter {
            's' if safe => escape_value(&value)?,
            's' => string(value)?,
            'r' => escape(repr_of(&value)?),
            'a' => escape(ascii(&repr_of(&value)?)),
            'c' => character(&value)?,
            'd' | 'i' | 'u' | 'o' | 'x' | 'X' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                return self.number(&value, written);
            }
            letter => return Err(wrong(format!("% with the letter '{letter}', which formats nothing"))),
        };
        let shown = text
            .chars()
            .take(self.precision.filter(|_| self.letter != 'c').unwrap_or(usize::MAX));
        let text: String = shown.collect();
        let blank = " ".repeat(self.width.unwrap_or(0).saturating_sub(text.chars().count()));
        let parts = match self.flags.contains('-') {
            true => [text, blank],
            false => [blank, text],
        };
        written.extend(parts);
        Ok(())
    }

    fn number(&self, value: &Value, written: &mut String) -> Result<(), Error> {
        let letter = self.letter;
        let wanted = || wrong(format!("%{letter} of a value of type {}", value.kind()));
        let whole = match letter {
            'd' | 'i' | 'u' => true,
            'o' | 'x' | 'X' => {
                integer(value).ok_or_else(wanted)?;
                true
            }
            _ => false,
        };
        let value = match (whole, integer(value), float(value)) {
            (true, Some(number), _) => Value::from(number),
            (true, None, Some(number)) if number.is_finite() && number.abs() < 1e38 => Value::from(number as i128),
            (false, _, Some(number)) if number.is_finite() => Value::from(number),
            (false, _, Some(number)) => return self.not_finite(number, written),
            _ => return Err(wanted()),
        };
        let mut spec = format!("%{}", self.flags);
        if let (true, Some(digits), Ok(number)) = (whole, self.precision, i128::try_from(value.clone())) {
            // Digits at least.
            let text = match letter {
                'o' => format!("{:o}", number.unsigned_abs()),
                'x' => format!("{:x}", number.unsigned_abs()),
                'X' => format!("{:X}", number.unsigned_abs()),
                _ => number.unsigned_abs().to_string(),
            };
            let sign = match (number < 0, self.flags.contains('+'), self.flags.contains(' ')) {
                (true, _, _) => "-",
                (false, true, _) => "+",
                (false, false, true) => " ",
                _ => "",
            };
            let prefix = match letter {
                'o' | 'x' | 'X' if self.flags.contains('#') => format!("0{letter}"),
                _ => String::new(),
            };
            let text = format!("{sign}{prefix}{text:0>digits$}");
            let width = self.width.unwrap_or(0);
            return match self.flags.contains('-') {
                true => write!(written, "{text:<width$}"),
                false => write!(written, "{text:>width$}"),
            }
            .map_err(Error::from);
        }
        if let Some(width) = self.width {
            spec.push_str(&width.to_string());
        }
        if let Some(precision) = self.precision {
            spec.push_str(&format!(".{precision}"));
        }
        spec.push(if matches!(letter, 'i' | 'u') { 'd' } else { letter });
        written.push_str(&format(FormatStyle::Printf, &spec, &[value])?);
        Ok(())
    }

    fn not_finite(&self, number: f64, written: &mut String) -> Result<(), Error> {
        let name = if number.is_nan() { "nan" } else { "inf" };
        let sign = match (number < 0.0, self.flags.contains('+'), self.flags.contains(' ')) {
            (true, _, _) => "-",
            (false, true, _) => "+",
            (false, false, true) => " ",
            _ => "",
        };
        let text = match self.letter.is_ascii_uppercase() {
            true => format!("{sign}{}", name.to_uppercase()),
            false => format!("{sign}{name}"),
        };
        let width = self.width.unwrap_or(0);
        match self.flags.contains('-') {
            true => write!(written, "{text:<width$}"),
            false => write!(written, "{text:>width$}"),
        }
        .map_err(Error::from)
    }
}

fn checked(size: Option<usize>) -> Result<usize, Error> {
    let too_wide = || wrong(format!("a width of more than {WIDEST}"));
    size.filter(|size| *size <= WIDEST).ok_or_else(too_wide)
}

/// A value in a text that is safe: escaped, unless it is safe itself.
fn escape_value(value: &Value) -> Result<String, Error> {
    let text = string(value.clone())?;
    Ok(if value.is_safe() { text } else { escaped(&text) })
}

fn character(value: &Value) -> Result<String, Error> {
    let code = integer(value).and_then(|code| char::from_u32(u32::try_from(code).ok()?));
    let letter = value.as_str().and_then(|text| {
        let mut chars = text.chars();
        chars.next().filter(|_| chars.next().is_none())
    });
    let found = code.or(letter).map(String::from);
    found.ok_or_else(|| wrong("%c of what is neither a character nor its number"))
}
