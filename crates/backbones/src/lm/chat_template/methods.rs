//! Methods of Python's texts, lists, objects and numbers.

use minijinja::value::{Tuple, Value, ValueKind};
use minijinja::{Error, State};

use super::arguments::{Arguments, wrong};
use super::characters::{decimal, digit, identifier, letter, lines, printable, space};
use super::globals;
use super::python::{integer, room, string};
use super::str_format::str_format;

/// Calls the method `name` of `value`.
pub(super) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        // Whether it is looked through or taken to pieces.
        state.consume_fuel(text.len() as u64 / 64)?;
    }
    let found = match value.kind() {
        ValueKind::String => text_method(value.as_str().unwrap_or_default(), name, args)?,
        ValueKind::Map => map_method(value, name, args)?,
        ValueKind::Seq => list_method(value, name, args)?,
        ValueKind::Number | ValueKind::Bool => number_method(value, name)?,
        _ => None,
    };
    match found {
        Some(found) => {
            state.consume_fuel(found.as_str().map_or(0, str::len) as u64 / 64)?;
            Ok(found)
        }
        None if CHANGES.contains(&name) && matches!(value.kind(), ValueKind::Map | ValueKind::Seq) => Err(wrong(
            format!("the method '{name}' changes a value, which Jinja's sandbox refuses"),
        )),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// Methods that the sandbox of transformers refuses too.
const CHANGES: [&str; 11] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
];

fn map_method(value: &Value, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let Some(object) = value.as_object() else {
        return Ok(None);
    };
    if let Some(view) = globals::view(object, name) {
        Arguments::<0>::new("a method of an object", [], args)?;
        return Ok(Some(view));
    }
    if name != "copy" {
        return Ok(None);
    }
    let pairs = object.try_iter_pairs().into_iter().flatten();
    Ok(Some(Value::from_pairs(pairs)))
}

fn list_method(value: &Value, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(match name {
        "copy" => Some(value.clone()),
        "index" => {
            let given = Arguments::new("index", ["value", "start", "stop"], args)?;
            // A sum of lists may say that it has billions of items.
            let mut items = Vec::new();
            for item in value.try_iter()? {
                room(items.len())?;
                items.push(item);
            }
            let (start, end) = bounds(items.len(), given.whole(1)?, given.whole(2)?).unwrap_or((0, 0));
            let wanted = given.needed(0)?;
            let found = items[start..end].iter().position(|item| item == wanted);
            let found = found.ok_or_else(|| wrong("index of what is not in the list"))?;
            Some(Value::from(start + found))
        }
        _ => None,
    })
}

fn number_method(value: &Value, name: &str) -> Result<Option<Value>, Error> {
    Ok(match (name, integer(value)) {
        ("bit_length", Some(whole)) => Some(Value::from(128 - whole.unsigned_abs().leading_zeros())),
        ("is_integer", Some(_)) => Some(Value::from(true)),
        ("is_integer", None) => f64::try_from(value.clone())
            .ok()
            .map(|float| Value::from(float.fract() == 0.0)),
        _ => None,
    })
}

/// Places `start..end` of `length`, counted from the end where they are negative.
fn bounds(length: usize, start: Option<i64>, end: Option<i64>) -> Option<(usize, usize)> {
    let place = |at: i64| match at < 0 {
        true => length.saturating_sub(usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX)),
        false => usize::try_from(at).unwrap_or(usize::MAX),
    };
    let (start, end) = (place(start.unwrap_or(0)), end.map_or(length, place).min(length));
    (start <= end).then_some((start, end))
}

/// The part of a text that a search is in, and the characters before it.
fn part<'a, const N: usize>(text: &'a str, given: &Arguments<N>, at: usize) -> Result<Option<(&'a str, usize)>, Error> {
    let (start, end) = (given.whole(at)?, given.whole(at + 1)?);
    if start.is_none() && end.is_none() {
        return Ok(Some((text, 0)));
    }
    let mut places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    places.push(text.len());
    let found = bounds(places.len() - 1, start, end);
    Ok(found.map(|(start, end)| (&text[places[start]..places[end]], start)))
}

fn text_method(text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let none = |what: &'static str| Arguments::<0>::new(what, [], args).map(|_| ());
    let all = |what: fn(char) -> bool| !text.is_empty() && text.chars().all(what);
    Ok(Some(match name {
        "format" => Value::from(str_format(text, args)?),
        "removeprefix" | "removesuffix" => {
            let given = Arguments::new("removeprefix or removesuffix", ["part"], args)?;
            let part = given.text(0)?.unwrap_or_default();
            let left = match name {
                "removeprefix" => text.strip_prefix(part),
                _ => text.strip_suffix(part),
            };
            Value::from(left.unwrap_or(text))
        }
        "strip" | "lstrip" | "rstrip" => {
            let given = Arguments::new("strip", ["chars"], args)?;
            let chars = given.text(0)?;
            let off = |c: char| chars.map_or_else(|| space(c), |chars| chars.contains(c));
            Value::from(match name {
                "lstrip" => text.trim_start_matches(off),
                "rstrip" => text.trim_end_matches(off),
                _ => text.trim_matches(off),
            })
        }
        "split" | "rsplit" => {
            let given = Arguments::new("split", ["sep", "maxsplit"], args)?;
            let most = given
                .whole(1)?
                .and_then(|most| usize::try_from(most).ok())
                .unwrap_or(usize::MAX);
            let separator = given.text(0)?;
            if separator == Some("") {
                return Err(wrong("split with an empty separator"));
            }
            let parts: Vec<&str> = match (separator, name) {
                (Some(separator), "split") => text.splitn(most.saturating_add(1), separator).collect(),
                (Some(separator), _) => reversed(text.rsplitn(most.saturating_add(1), separator).collect()),
                (None, "split") => words(text, most),
                (None, _) => words_from_the_end(text, most),
            };
            Value::from_iter(parts)
        }
        "splitlines" => {
            let given = Arguments::new("splitlines", ["keepends"], args)?;
            Value::from_iter(lines(text, given.flag(0, false)))
        }
        "partition" | "rpartition" => {
            let given = Arguments::new("partition", ["sep"], args)?;
            let separator = given.text(0)?.filter(|separator| !separator.is_empty());
            let separator = separator.ok_or_else(|| wrong("partition without a separator"))?;
            let parts = match name {
                "partition" => text
                    .split_once(separator)
                    .map_or([text, "", ""], |(a, b)| [a, separator, b]),
                _ => text
                    .rsplit_once(separator)
                    .map_or(["", "", text], |(a, b)| [a, separator, b]),
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "replace" => {
            let given = Arguments::new("replace", ["old", "new", "count"], args)?;
            let both = given.text(0)?.zip(given.text(1)?);
            let (old, new) = both.ok_or_else(|| wrong("replace without two texts"))?;
            let count = given
                .whole(2)?
                .and_then(|count| usize::try_from(count).ok())
                .unwrap_or(usize::MAX);
            let matches = text.matches(old).take(count).count();
            room(matches.saturating_mul(new.len()).saturating_add(text.len()))?;
            Value::from(text.replacen(old, new, count))
        }
        "count" => {
            let given = Arguments::new("count", ["sub", "start", "end"], args)?;
            let part = part(text, &given, 1)?;
            let wanted = given.text(0)?.unwrap_or_default();
            Value::from(part.map_or(0, |(part, _)| part.matches(wanted).count()))
        }
        "find" | "rfind" | "index" | "rindex" => {
            let given = Arguments::new("find or index", ["sub", "start", "end"], args)?;
            let wanted = given.text(0)?.unwrap_or_default();
            let found = part(text, &given, 1)?.and_then(|(part, before)| {
                let at = match name {
                    "find" | "index" => part.find(wanted),
                    _ => part.rfind(wanted),
                };
                Some(before + part[..at?].chars().count())
            });
            match found {
                Some(at) => Value::from(at),
                None if name.ends_with("find") => Value::from(-1),
                None => return Err(wrong(format!("{name} of what is not in the text"))),
            }
        }
        "startswith" | "endswith" => {
            let given = Arguments::new("startswith or endswith", ["prefix", "start", "end"], args)?;
            let Some((part, _)) = part(text, &given, 1)? else {
                return Ok(Some(Value::from(false)));
            };
            let wanted = given.needed(0)?;
            let one = |value: &Value| match (value.as_str(), name) {
                (Some(wanted), "startswith") => Ok(part.starts_with(wanted)),
                (Some(wanted), _) => Ok(part.ends_with(wanted)),
                (None, _) => Err(wrong(format!("{name} of a value of type {}", value.kind()))),
            };
            let several = matches!(wanted.kind(), ValueKind::Seq | ValueKind::Iterable);
            let found = match several {
                false => one(wanted)?,
                true => wanted
                    .try_iter()?
                    .map(|value| one(&value))
                    .collect::<Result<Vec<_>, _>>()?
                    .contains(&true),
            };
            Value::from(found)
        }
        "join" => {
            let given = Arguments::new("join", ["iterable"], args)?;
            let mut joined = String::new();
            for (index, item) in given.needed(0)?.try_iter()?.enumerate() {
                joined.push_str(if index > 0 { text } else { "" });
                joined.push_str(&string(item)?);
                room(joined.len())?;
            }
            Value::from(joined)
        }
        "center" | "ljust" | "rjust" => {
            let given = Arguments::new("center, ljust or rjust", ["width", "fillchar"], args)?;
            given.needed(0)?;
            Value::from(padded(
                text,
                name,
                given.whole(0)?.unwrap_or(0),
                given.text(1)?.unwrap_or(" "),
            )?)
        }
        "zfill" => {
            let given = Arguments::new("zfill", ["width"], args)?;
            let (sign, digits) = match text.starts_with(['-', '+']) {
                true => text.split_at(1),
                false => ("", text),
            };
            let width = given.whole(0)?.unwrap_or(0) - sign.len() as i64;
            Value::from(format!("{sign}{}", padded(digits, "rjust", width, "0")?))
        }
        "expandtabs" => {
            let given = Arguments::new("expandtabs", ["tabsize"], args)?;
            let size = usize::try_from(given.whole(0)?.unwrap_or(8)).unwrap_or(0);
            Value::from(expanded(text, size)?)
        }
        "swapcase" => {
            none("swapcase")?;
            let swapped = text.chars().flat_map(|c| -> Box<dyn Iterator<Item = char>> {
                match c.is_uppercase() {
                    true => Box::new(c.to_lowercase()),
                    false => Box::new(c.to_uppercase()),
                }
            });
            Value::from(swapped.collect::<String>())
        }
        "casefold" => {
            none("casefold")?;
            Value::from(text.to_lowercase().replace('ß', "ss").replace('ς', "σ"))
        }
        "title" => {
            none("title")?;
            let mut within = false;
            let mut titled = String::with_capacity(text.len());
            for c in text.chars() {
                match within {
                    true => titled.extend(c.to_lowercase()),
                    false => titled.extend(c.to_uppercase()),
                }
                within = cased(c);
            }
            Value::from(titled)
        }
        "translate" => {
            let given = Arguments::new("translate", ["table"], args)?;
            let table = given.needed(0)?;
            let mut translated = String::with_capacity(text.len());
            for c in text.chars() {
                let to = table.get_item(&Value::from(u32::from(c)))?;
                match (to.is_undefined(), to.as_str(), integer(&to)) {
                    (true, _, _) => translated.push(c),
                    (_, Some(to), _) => translated.push_str(to),
                    (_, _, Some(code)) => translated.extend(u32::try_from(code).ok().and_then(char::from_u32)),
                    _ => {}
                }
                room(translated.len())?;
            }
            Value::from(translated)
        }
        "istitle" => {
            none("istitle")?;
            let (mut within, mut found) = (false, false);
            for c in text.chars() {
                if cased(c) && c.is_lowercase() != within {
                    return Ok(Some(Value::from(false)));
                }
                within = cased(c);
                found |= within;
            }
            Value::from(found)
        }
        "isdigit" => Value::from(all(digit)),
        "isdecimal" => Value::from(all(decimal)),
        "isalpha" => Value::from(all(letter)),
        "isalnum" => Value::from(all(|c| letter(c) || c.is_numeric())),
        "isspace" => Value::from(all(space)),
        "isprintable" => Value::from(text.chars().all(printable)),
        "isidentifier" => Value::from(identifier(text)),
        "encode" => {
            return Err(wrong(
                "the method 'encode' makes bytes, which templates here do not have",
            ));
        }
        _ => return Ok(None),
    }))
}

fn cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase()
}

fn reversed(mut parts: Vec<&str>) -> Vec<&str> {
    parts.reverse();
    parts
}

/// Words, the last with all that follows once there are `most` before it.
fn words(text: &str, most: usize) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(space);
    while !rest.is_empty() {
        if words.len() == most {
            words.push(rest);
            break;
        }
        let end = rest.find(space).unwrap_or(rest.len());
        words.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(space);
    }
    words
}

/// As [`words`], from the end.
fn words_from_the_end(text: &str, most: usize) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_end_matches(space);
    while !rest.is_empty() {
        if words.len() == most {
            words.push(rest);
            break;
        }
        let start = rest
            .char_indices()
            .rev()
            .find(|(_, c)| space(*c))
            .map_or(0, |(at, c)| at + c.len_utf8());
        words.push(&rest[start..]);
        rest = rest[..start].trim_end_matches(space);
    }
    reversed(words)
}

/// `text` with `fill` around it.
pub(super) fn padded(text: &str, how: &str, width: i64, fill: &str) -> Result<String, Error> {
    if fill.chars().count() != 1 {
        return Err(wrong("a text to fill with that is not one character"));
    }
    let length = text.chars().count();
    let width = usize::try_from(width).unwrap_or(0);
    let more = width.saturating_sub(length);
    room(more.saturating_mul(fill.len()))?;
    let left = match how {
        "ljust" => 0,
        "rjust" => more,
        _ => more / 2 + (more & width & 1),
    };
    Ok(format!("{}{text}{}", fill.repeat(left), fill.repeat(more - left)))
}

fn expanded(text: &str, size: usize) -> Result<String, Error> {
    let mut written = String::with_capacity(text.len());
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' => {
                let blanks = if size == 0 { 0 } else { size - column % size };
                room(written.len().saturating_add(blanks))?;
                written.push_str(&" ".repeat(blanks));
                column += blanks;
            }
            '\n' | '\r' => {
                written.push(c);
                column = 0;
            }
            c => {
                written.push(c);
                column += 1;
            }
        }
    }
    Ok(written)
}
