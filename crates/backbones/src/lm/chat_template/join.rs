//! Values put together as text: the filter `join` and the operator `~`. The engine's own write numbers otherwise than Python.

use minijinja::value::{Kwargs, Rest, Value};
use minijinja::{AutoEscape, Error, State, filters};

use super::arguments::Arguments;
use super::characters::escaped;
use super::python::{room, string};

/// Bytes that an item takes beside its text.
const ITEM: usize = 32;
/// Bytes of a list or object that cost one unit of fuel to write.
const BYTES_PER_FUEL: usize = 64;

pub(super) fn join(state: &mut State, value: &Value, given: &[Value]) -> Result<Value, Error> {
    let given = Arguments::new("join", ["d", "attribute"], given)?;
    let items = match given.value(1) {
        Some(attribute) => {
            let named = Kwargs::from_iter([("attribute", attribute.clone()), ("default", Value::from(""))]);
            Value::from_function(filters::map).call(state, &[value.clone(), named.into()])?
        }
        None => value.clone(),
    };
    // The engine says what is wrong with a value that has no items.
    let Ok(iter) = items.try_iter() else {
        return Value::from_function(filters::join).call(state, &[items]);
    };
    let mut texts = Vec::new();
    let mut size = 0;
    for item in iter {
        let text = text(item)?;
        size += ITEM + text.as_str().map_or(0, str::len);
        room(size)?;
        texts.push(text);
    }
    let between = match given.argument(0) {
        Some(between) => text(between.clone())?,
        None => Value::from(""),
    };
    Value::from_function(filters::join).call(state, &[Value::from(texts), between])
}

/// `a ~ b ~ …`: safe if all are, and if some are where texts are escaped.
pub(super) fn concat(state: &State, values: Rest<Value>) -> Result<Value, Error> {
    let escapes = *state.auto_escape() != AutoEscape::None && values.iter().any(Value::is_safe);
    let safe = escapes || values.iter().all(Value::is_safe);
    let mut written = String::new();
    for value in values.iter() {
        let text = text(value.clone())?;
        let text = text.as_str().unwrap_or_default();
        room(written.len().saturating_add(text.len()))?;
        match escapes && !value.is_safe() {
            true => written.push_str(&escaped(text)),
            false => written.push_str(text),
        }
        if value.as_object().is_some() {
            state.consume_fuel((text.len() / BYTES_PER_FUEL) as u64)?;
        }
    }
    Ok(match safe {
        true => Value::from_safe_string(written),
        false => Value::from(written),
    })
}

/// `value` itself if it is a text, which may be marked as safe, or else as Python writes it.
fn text(value: Value) -> Result<Value, Error> {
    match value.as_str() {
        Some(_) => Ok(value),
        None => string(value).map(Value::from),
    }
}
