//! Jinja's functions that the engine does not have, or has with other results; views of objects.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, Rest, Tuple, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State};

use super::arguments::{Arguments, split, wrong};

/// Adds them to `environment`.
pub(super) fn add(environment: &mut Environment) {
    environment.add_global("dict", Value::from_object(Dict));
    environment.add_global("cycler", Value::from_object(NewCycler));
    environment.add_global("joiner", Value::from_object(NewJoiner));
    environment.add_global("range", Value::from_object(NewRange));
    // The engine's takes values either by name or in an object.
    let namespace = Value::from_function(minijinja::functions::namespace);
    environment.add_function("namespace", move |state: &mut State, given: Rest<ValueOrKwargs>| {
        namespace.call(state, &[dict("namespace", &given.into_values())?])
    });
    environment.add_function("lipsum", || -> Result<Value, Error> {
        Err(wrong(
            "the function 'lipsum', by which a prompt would be another each time",
        ))
    });
}

/// `dict`.
#[derive(Debug)]
struct Dict;

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _state: &mut State, args: &[Value]) -> Result<Value, Error> {
        dict("dict", args)
    }

    fn call_method(self: &Arc<Self>, _state: &mut State, method: &str, args: &[Value]) -> Result<Value, Error> {
        if method != "fromkeys" {
            return Err(Error::from(ErrorKind::UnknownMethod));
        }
        let given = Arguments::new("dict.fromkeys", ["iterable", "value"], args)?;
        let value = given.value(1).cloned().unwrap_or(Value::from(()));
        let keys = given.needed(0)?.try_iter()?;
        Ok(Value::from_pairs(keys.map(|key| (key, value.clone()))))
    }
}

/// An object of the items, pairs and named values that `what` is given.
fn dict(what: &str, args: &[Value]) -> Result<Value, Error> {
    let (placed, named) = split(args)?;
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    match placed {
        [] => {}
        [value] if value.kind() == ValueKind::Map => {
            for key in value.try_iter()? {
                let item = value.get_item(&key)?;
                pairs.push((key, item));
            }
        }
        [value] => {
            for pair in value.try_iter()? {
                let items: Vec<Value> = pair.try_iter()?.take(3).collect();
                let [key, item] =
                    <[Value; 2]>::try_from(items).map_err(|_| wrong(format!("{what} of what is no pair")))?;
                put(&mut pairs, key, item);
            }
        }
        _ => return Err(wrong(format!("{what} with more than one argument by place"))),
    }
    for (name, value) in named {
        put(&mut pairs, Value::from(name), value);
    }
    Ok(Value::from_pairs(pairs))
}

fn put(pairs: &mut Vec<(Value, Value)>, key: Value, value: Value) {
    match pairs.iter_mut().find(|(known, _)| *known == key) {
        Some((_, known)) => *known = value,
        None => pairs.push((key, value)),
    }
}

/// `cycler`.
#[derive(Debug)]
struct NewCycler;

impl Object for NewCycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _state: &mut State, args: &[Value]) -> Result<Value, Error> {
        let (items, named) = split(args)?;
        if items.is_empty() || !named.is_empty() {
            return Err(wrong("cycler without items, or with named arguments"));
        }
        Ok(Value::from_object(Cycler {
            items: items.to_vec(),
            at: AtomicUsize::new(0),
        }))
    }
}

#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match key {
            "current" => Some(self.items[self.at.load(Ordering::Relaxed)].clone()),
            "pos" => Some(Value::from(self.at.load(Ordering::Relaxed))),
            "items" => Some(Value::from(Tuple::from(self.items.clone()))),
            _ => None,
        }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn call_method(self: &Arc<Self>, _state: &mut State, method: &str, args: &[Value]) -> Result<Value, Error> {
        match method {
            "next" => {
                Arguments::<0>::new("next", [], args)?;
                let at = self.at.load(Ordering::Relaxed);
                self.at.store((at + 1) % self.items.len(), Ordering::Relaxed);
                Ok(self.items[at].clone())
            }
            "reset" => {
                self.at.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// `joiner`.
#[derive(Debug)]
struct NewJoiner;

impl Object for NewJoiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _state: &mut State, args: &[Value]) -> Result<Value, Error> {
        let given = Arguments::new("joiner", ["sep"], args)?;
        Ok(Value::from_object(Joiner {
            separator: given.value(0).cloned().unwrap_or(Value::from(", ")),
            used: AtomicBool::new(false),
        }))
    }
}

#[derive(Debug)]
struct Joiner {
    separator: Value,
    used: AtomicBool,
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _state: &mut State, _args: &[Value]) -> Result<Value, Error> {
        Ok(match self.used.swap(true, Ordering::Relaxed) {
            true => self.separator.clone(),
            false => Value::from(""),
        })
    }
}

/// `range`: Jinja's sandbox gives at most this many numbers.
const MOST: i128 = 100_000;

#[derive(Debug)]
struct NewRange;

impl Object for NewRange {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _state: &mut State, args: &[Value]) -> Result<Value, Error> {
        let given = Arguments::new("range", ["start", "stop", "step"], args)?;
        given.needed(0)?;
        let number = |index: usize| given.whole(index);
        let (start, stop) = match (number(0)?.unwrap_or(0), number(1)?) {
            (start, Some(stop)) => (start, stop),
            (stop, None) => (0, stop),
        };
        let step = number(2)?.unwrap_or(1);
        if step == 0 {
            return Err(wrong("range with a step of 0"));
        }
        let [wide, low, high] = [step, start, stop].map(i128::from);
        let length = match wide > 0 {
            true => (high - low + wide - 1) / wide,
            false => (low - high - wide - 1) / -wide,
        };
        if length > MOST {
            return Err(wrong(format!("range of {length} numbers; expected at most {MOST}")));
        }
        Ok(Value::from_object(Range {
            start,
            stop,
            step,
            length: usize::try_from(length.max(0)).unwrap_or(0),
        }))
    }
}

#[derive(Debug)]
struct Range {
    start: i64,
    stop: i64,
    step: i64,
    length: usize,
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let index = key.as_i64()?;
        let index = if index < 0 { index + self.length as i64 } else { index };
        let inside = usize::try_from(index).is_ok_and(|index| index < self.length);
        inside.then(|| Value::from(self.start + index * self.step))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.length)
    }
}

/// How Python writes a range.
pub(super) fn range_repr(value: &Value) -> Option<String> {
    let range = value.downcast_object_ref::<Range>()?;
    let (start, stop, step) = (range.start, range.stop, range.step);
    Some(match step {
        1 => format!("range({start}, {stop})"),
        _ => format!("range({start}, {stop}, {step})"),
    })
}

/// Keys, values or both of an object, with the name Python gives them.
#[derive(Debug)]
struct View {
    name: &'static str,
    object: DynObject,
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let pairs = self.object.try_iter_pairs().into_iter().flatten();
        Enumerator::Values(match self.name {
            "dict_keys" => pairs.map(|(key, _)| key).collect(),
            "dict_values" => pairs.map(|(_, value)| value).collect(),
            _ => pairs
                .map(|(key, value)| Value::from(Tuple::from([key, value])))
                .collect(),
        })
    }
}

/// `object.keys()`, `.values()` or `.items()`.
pub(super) fn view(object: &DynObject, method: &str) -> Option<Value> {
    let name = match method {
        "keys" => "dict_keys",
        "values" => "dict_values",
        "items" => "dict_items",
        _ => return None,
    };
    Some(Value::from_object(View {
        name,
        object: object.clone(),
    }))
}

/// The name of a view, or nothing.
pub(super) fn view_name(value: &Value) -> &'static str {
    value.downcast_object_ref::<View>().map_or("", |view| view.name)
}
