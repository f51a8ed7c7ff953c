//! Jinja's filters and tests that the engine does not have, or has with other arguments or results.

use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State, filters};

use super::arguments::{Arguments, split, wrong};
use super::characters::{letter, lines, space};
use super::join::join;
use super::methods::padded;
use super::percent::{format_filter, percent};
use super::pretty::pretty;
use super::python::{integer, room, string};
use super::source::PERCENT;
use super::wrap::wrap;
use super::{dumps, escape, tags};

/// Adds them to `environment`.
pub(super) fn add(environment: &mut Environment<'static>) {
    for (name, filter) in FILTERS {
        environment.add_filter(
            name,
            move |state: &mut State, value: Value, given: Rest<ValueOrKwargs>| {
                filter(state, &value, &given.into_values())
            },
        );
    }
    for (name, engine, names) in BY_NAME {
        arguments_by_name(environment, name, engine(), names);
    }
    environment.add_filter(PERCENT, |state: &mut State, left: Value, right: Value| {
        percent(state, &left, &right)
    });
    environment.add_filter("string", |value: Value| match value.as_str() {
        Some(_) => Ok(value),
        None => string(value).map(Value::from),
    });
    environment.add_filter("attr", attr);
    environment.add_filter("escape", escape::escape);
    environment.add_filter("e", escape::escape);
    environment.add_filter("forceescape", escape::forceescape);
    environment.add_filter("striptags", escape::striptags);
    environment.add_filter("wordcount", wordcount);
    // A namespace is none of these three, though the engine goes through its names.
    environment.add_test("mapping", |value: Value| {
        value.kind() == ValueKind::Map && !tags::is_namespace(&value)
    });
    environment.add_test("sequence", |value: Value| {
        let kinds = matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map);
        value.is_undefined() || kinds && !tags::is_namespace(&value)
    });
    // Nothing is no list, though the engine goes through it.
    environment.add_test("iterable", |value: Value| {
        !value.is_none() && !tags::is_namespace(&value) && value.try_iter().is_ok()
    });
    environment.add_test("callable", |value: Value| {
        let object = value.as_object();
        let is_macro = object.is_some_and(|object| object.type_name().contains("::vm::macro"));
        value.is_undefined() || value.kind() == ValueKind::Plain || is_macro
    });
}

type Filter = fn(&mut State, &Value, &[Value]) -> Result<Value, Error>;

const FILTERS: [(&str, Filter); 20] = [
    ("join", join),
    ("tojson", |state, value, given| {
        dumps::tojson(state, value, given).map(Value::from)
    }),
    ("format", format_filter),
    ("center", |_, value, given| center(value, given).map(Value::from)),
    ("truncate", |_, value, given| truncate(value, given)),
    ("wordwrap", |_, value, given| wordwrap(value, given).map(Value::from)),
    ("filesizeformat", |_, value, given| {
        filesizeformat(value, given).map(Value::from)
    }),
    ("pprint", |_, value, _| pretty(value).map(Value::from)),
    ("xmlattr", |_, value, given| escape::xmlattr(value, given)),
    ("urlencode", |_, value, _| urlencode(value).map(Value::from)),
    ("indent", |_, value, given| indent(value, given).map(Value::from)),
    ("int", |_, value, given| int(value, given)),
    ("float", |_, value, given| float(value, given)),
    ("trim", |_, value, given| trim(value, given).map(Value::from)),
    ("batch", |state, value, given| {
        let given = Arguments::new("batch", ["linecount", "fill_with"], given)?;
        filters::batch(state, value.clone(), count(&given)?, given.value(1).cloned())
    }),
    ("slice", |state, value, given| {
        let given = Arguments::new("slice", ["slices", "fill_with"], given)?;
        filters::slice(state, value.clone(), count(&given)?, given.value(1).cloned())
    }),
    ("default", |_, value, given| default(value, given)),
    ("d", |_, value, given| default(value, given)),
    ("urlize", |_, _, _| {
        Err(wrong("the filter 'urlize', which is for web pages"))
    }),
    ("random", |_, _, _| {
        Err(wrong(
            "the filter 'random', by which a prompt would be another each time",
        ))
    }),
];

/// A filter of the engine.
type Engine = fn() -> Value;

/// Filters whose arguments the engine takes by name alone, and Jinja by place as well.
const BY_NAME: [(&str, Engine, &[&str]); 6] = [
    (
        "sort",
        || Value::from_function(filters::sort),
        &["reverse", "case_sensitive", "attribute"],
    ),
    (
        "dictsort",
        || Value::from_function(filters::dictsort),
        &["case_sensitive", "by", "reverse"],
    ),
    (
        "unique",
        || Value::from_function(filters::unique),
        &["case_sensitive", "attribute"],
    ),
    (
        "min",
        || Value::from_function(filters::min),
        &["case_sensitive", "attribute"],
    ),
    (
        "max",
        || Value::from_function(filters::max),
        &["case_sensitive", "attribute"],
    ),
    (
        "groupby",
        || Value::from_function(filters::groupby),
        &["attribute", "default", "case_sensitive"],
    ),
];

fn arguments_by_name(
    environment: &mut Environment<'static>,
    name: &'static str,
    engine: Value,
    names: &'static [&'static str],
) {
    environment.add_filter(
        name,
        move |state: &mut State, value: Value, given: Rest<ValueOrKwargs>| {
            let given = given.into_values();
            let (placed, mut named) = split(&given)?;
            if placed.len() > names.len() {
                return Err(wrong(format!("{name} with {} arguments", placed.len())));
            }
            for (known, value) in names.iter().zip(placed) {
                named.push(((*known).to_string(), value.clone()));
            }
            // The engine takes the place of an item in lists as a text.
            for (_, value) in named
                .iter_mut()
                .filter(|(name, value)| name == "attribute" && value.is_integer())
            {
                *value = Value::from(value.to_string());
            }
            engine.call(state, &[value, Kwargs::from_iter(named).into()])
        },
    );
}

fn count<const N: usize>(given: &Arguments<N>) -> Result<usize, Error> {
    given.needed(0)?;
    let count = given.whole(0)?.and_then(|count| usize::try_from(count).ok());
    count
        .filter(|count| *count > 0)
        .ok_or_else(|| wrong("batch or slice with a count of less than 1"))
}

fn text(value: &Value) -> Result<String, Error> {
    string(value.clone())
}

fn default(value: &Value, given: &[Value]) -> Result<Value, Error> {
    let given = Arguments::new("default", ["default_value", "boolean"], given)?;
    let missing = value.is_undefined() || (given.flag(1, false) && !value.is_true());
    Ok(match missing {
        true => given.needed(0).cloned().unwrap_or(Value::from("")),
        false => value.clone(),
    })
}

/// What Python's `getattr` finds: an object of JSON has none of its items as attributes.
fn attr(value: &Value, name: &Value) -> Result<Value, Error> {
    // The engine's loops and imported templates have attributes.
    let of_engine = value
        .as_object()
        .is_some_and(|object| object.type_name().contains("::vm::"));
    match value.kind() == ValueKind::Map && !of_engine && !tags::is_namespace(value) && value.try_iter().is_ok() {
        true => Ok(Value::UNDEFINED),
        false => value.get_item(name),
    }
}

fn center(value: &Value, given: &[Value]) -> Result<String, Error> {
    let given = Arguments::new("center", ["width"], given)?;
    padded(&text(value)?, "center", given.whole(0)?.unwrap_or(80), " ")
}

fn truncate(value: &Value, given: &[Value]) -> Result<Value, Error> {
    let given = Arguments::new("truncate", ["length", "killwords", "end", "leeway"], given)?;
    if value.is_undefined() {
        return Ok(value.clone());
    }
    let source = value
        .as_str()
        .ok_or_else(|| wrong(format!("truncate of a value of type {}", value.kind())))?;
    let size = |index: usize, usual: usize| -> Result<usize, Error> {
        let size = given
            .whole(index)?
            .map_or(Some(usual), |size| usize::try_from(size).ok());
        size.ok_or_else(|| wrong("truncate with a negative length"))
    };
    let (length, leeway) = (size(0, 255)?, size(3, 5)?);
    let end = given.text(2)?.unwrap_or("...");
    let kept = length.checked_sub(end.chars().count());
    let kept = kept.ok_or_else(|| wrong(format!("truncate to {length} characters, with an end of more")))?;
    if source.chars().count() <= length.saturating_add(leeway) {
        return Ok(value.clone());
    }
    let cut: String = source.chars().take(kept).collect();
    let words = if given.flag(1, false) {
        &cut
    } else {
        cut.rsplit_once(' ').map_or(cut.as_str(), |(words, _)| words)
    };
    Ok(Value::from(format!("{words}{end}")))
}

fn wordwrap(value: &Value, given: &[Value]) -> Result<String, Error> {
    let names = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let given = Arguments::new("wordwrap", names, given)?;
    let width = given.whole(0)?.unwrap_or(79);
    let width = usize::try_from(width).ok().filter(|width| *width > 0);
    let width = width.ok_or_else(|| wrong("wordwrap to a width of less than 1"))?;
    let join = given.text(2)?.unwrap_or("\n");
    let source = value
        .as_str()
        .ok_or_else(|| wrong(format!("wordwrap of a value of type {}", value.kind())))?;
    let mut written: Vec<String> = Vec::new();
    for line in lines(source, false) {
        written.push(wrap(line, width, given.flag(1, true), given.flag(3, true))?.join(join));
    }
    let written = written.join(join);
    room(written.len())?;
    Ok(written)
}

fn wordcount(value: Value) -> Result<usize, Error> {
    let text = string(value)?;
    let words = text.split(|c: char| !(letter(c) || c.is_numeric() || c == '_'));
    Ok(words.filter(|word| !word.is_empty()).count())
}

fn filesizeformat(value: &Value, given: &[Value]) -> Result<String, Error> {
    let given = Arguments::new("filesizeformat", ["binary"], given)?;
    let bytes = number(value).ok_or_else(|| wrong(format!("filesizeformat of a value of type {}", value.kind())))?;
    let binary = given.flag(0, false);
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    if bytes == 1.0 {
        return Ok("1 Byte".into());
    }
    if bytes < base {
        return Ok(format!("{:.0} Bytes", bytes.trunc()));
    }
    let mut unit = base;
    let mut name = String::new();
    for letter in ["k", "M", "G", "T", "P", "E", "Z", "Y"] {
        unit *= base;
        name = if binary {
            format!("{}iB", letter.to_uppercase())
        } else {
            format!("{letter}B")
        };
        if bytes < unit {
            break;
        }
    }
    Ok(format!("{:.1} {name}", base * bytes / unit))
}

/// Python's `float(value)`.
fn number(value: &Value) -> Option<f64> {
    match (integer(value), value.as_str()) {
        (Some(whole), _) => Some(whole as f64),
        (None, Some(text)) => {
            let text = text.trim_matches(space);
            let plain = text.strip_prefix(['-', '+']).unwrap_or(text);
            // Underscores stand between digits.
            let bytes = plain.as_bytes();
            let between = |at: usize| {
                let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
                digit(at.checked_sub(1)) && digit(Some(at + 1))
            };
            let fine = (0..bytes.len()).all(|at| bytes[at] != b'_' || between(at));
            fine.then(|| text.replace('_', "").parse().ok())?
        }
        (None, None) => f64::try_from(value.clone())
            .ok()
            .filter(|_| value.kind() == ValueKind::Number),
    }
}

fn float(value: &Value, given: &[Value]) -> Result<Value, Error> {
    let given = Arguments::new("float", ["default"], given)?;
    let usual = given.needed(0).cloned().unwrap_or(Value::from(0.0));
    Ok(number(value).map_or(usual, Value::from))
}

fn int(value: &Value, given: &[Value]) -> Result<Value, Error> {
    let given = Arguments::new("int", ["default", "base"], given)?;
    let usual = given.needed(0).cloned().unwrap_or(Value::from(0));
    let base = given.whole(1)?.unwrap_or(10);
    let whole = match (value.as_str(), integer(value)) {
        (Some(text), _) => whole(text.trim_matches(space), base),
        (None, whole) => whole,
    };
    let rounded = || {
        number(value)
            .filter(|number| number.is_finite() && number.abs() < 1e38)
            .map(|number| number as i128)
    };
    Ok(whole.or_else(rounded).map_or(usual, Value::from))
}

/// Python's `int(text, base)`.
fn whole(text: &str, base: i64) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let prefixes = [(16, "0x"), (8, "0o"), (2, "0b")];
    let prefixed = prefixes
        .iter()
        .find(|(radix, prefix)| lower.starts_with(prefix) && [*radix, 0].contains(&base));
    let (radix, digits) = match (prefixed, base) {
        (Some((radix, prefix)), _) => (*radix, &lower[prefix.len()..]),
        (None, 0) if lower.len() > 1 && lower.starts_with('0') && !lower.trim_matches(['0', '_']).is_empty() => {
            return None;
        }
        (None, 0) => (10, lower.as_str()),
        (None, base) => (base, lower.as_str()),
    };
    let radix = u32::try_from(radix).ok().filter(|radix| (2..=36).contains(radix))?;
    let digits = if prefixed.is_some() {
        digits.strip_prefix('_').unwrap_or(digits)
    } else {
        digits
    };
    if digits.is_empty() || digits.starts_with(['_', '-', '+']) || digits.ends_with('_') || digits.contains("__") {
        return None;
    }
    Some(sign * i128::from_str_radix(&digits.replace('_', ""), radix).ok()?)
}

fn trim(value: &Value, given: &[Value]) -> Result<String, Error> {
    let given = Arguments::new("trim", ["chars"], given)?;
    let chars = given.text(0)?;
    let off = |c: char| chars.map_or_else(|| space(c), |chars| chars.contains(c));
    Ok(text(value)?.trim_matches(off).to_string())
}

fn indent(value: &Value, given: &[Value]) -> Result<String, Error> {
    let given = Arguments::new("indent", ["width", "first", "blank"], given)?;
    let with = match given.value(0) {
        Some(width) if width.as_str().is_some() => text(width)?,
        _ => padded("", "ljust", given.whole(0)?.unwrap_or(4), " ")?,
    };
    let source = format!("{}\n", text(value)?);
    let lines = lines(&source, false);
    room(lines.len().saturating_mul(with.len()).saturating_add(source.len()))?;
    let mut written = String::new();
    for (index, line) in lines.into_iter().enumerate() {
        written.push_str(if index > 0 { "\n" } else { "" });
        let inner = match index {
            0 => given.flag(1, false),
            _ => given.flag(2, false) || !line.is_empty(),
        };
        written.push_str(if inner { &with } else { "" });
        written.push_str(line);
    }
    Ok(written)
}

fn urlencode(value: &Value) -> Result<String, Error> {
    let quoted = |value: &Value, query: bool| -> Result<String, Error> {
        let mut written = String::new();
        for byte in text(value)?.bytes() {
            match byte {
                b'/' if !query => written.push('/'),
                b' ' if query => written.push('+'),
                b'-' | b'.' | b'_' | b'~' => written.push(char::from(byte)),
                byte if byte.is_ascii_alphanumeric() => written.push(char::from(byte)),
                byte => written.push_str(&format!("%{byte:02X}")),
            }
        }
        room(written.len())?;
        Ok(written)
    };
    let pair = |key: &Value, item: &Value| -> Result<String, Error> {
        Ok(format!("{}={}", quoted(key, true)?, quoted(item, true)?))
    };
    let mut pairs = Vec::new();
    match value.kind() {
        ValueKind::Map => {
            for key in value.try_iter()? {
                pairs.push(pair(&key, &value.get_item(&key)?)?);
            }
        }
        ValueKind::Seq | ValueKind::Iterable => {
            for item in value.try_iter()? {
                pairs.push(pair(&item.get_item_by_index(0)?, &item.get_item_by_index(1)?)?);
            }
        }
        _ => return quoted(value, false),
    }
    Ok(pairs.join("&"))
}
