//! Arguments as Python takes them: by place or by name.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// An error that says `message`.
pub(super) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// The arguments of `what` in the order of `names`; `None` for what is not given.
pub(super) struct Arguments<const N: usize> {
    what: &'static str,
    names: [&'static str; N],
    values: [Option<Value>; N],
}

/// Arguments with their names.
pub(super) type Named = Vec<(String, Value)>;

/// `given` without the named arguments, and these.
pub(super) fn split(given: &[Value]) -> Result<(&[Value], Named), Error> {
    let Some((last, before)) = given.split_last().filter(|(last, _)| last.is_kwargs()) else {
        return Ok((given, Vec::new()));
    };
    let named = Kwargs::try_from(last.clone())?;
    let pairs = named
        .args()
        .map(|name| Ok((name.to_string(), named.get::<Value>(name)?)));
    Ok((before, pairs.collect::<Result<_, Error>>()?))
}

impl<const N: usize> Arguments<N> {
    /// Those of `given`.
    pub(super) fn new(what: &'static str, names: [&'static str; N], given: &[Value]) -> Result<Self, Error> {
        let (placed, named) = split(given)?;
        if placed.len() > N {
            let found = placed.len();
            return Err(wrong(format!("{what} with {found} arguments; expected at most {N}")));
        }
        let mut values = [const { None }; N];
        for (value, place) in placed.iter().zip(&mut values) {
            *place = Some(value.clone());
        }
        for (name, value) in named {
            match names.iter().position(|known| **known == *name) {
                Some(index) if values[index].is_none() => values[index] = Some(value),
                Some(_) => return Err(wrong(format!("{what} with two arguments '{name}'"))),
                None => {
                    return Err(wrong(format!(
                        "{what} with an argument '{name}', which it does not have"
                    )));
                }
            }
        }
        Ok(Self { what, names, values })
    }

    /// Argument `index`, if it is given.
    pub(super) fn argument(&self, index: usize) -> Option<&Value> {
        self.values[index].as_ref()
    }

    /// Argument `index`, unless it is none.
    pub(super) fn value(&self, index: usize) -> Option<&Value> {
        self.values[index].as_ref().filter(|value| !value.is_none())
    }

    /// Argument `index`, which must be there.
    pub(super) fn needed(&self, index: usize) -> Result<&Value, Error> {
        let missing = || wrong(format!("{} without its argument '{}'", self.what, self.names[index]));
        self.values[index].as_ref().ok_or_else(missing)
    }

    /// A text.
    pub(super) fn text(&self, index: usize) -> Result<Option<&str>, Error> {
        let Some(value) = self.value(index) else {
            return Ok(None);
        };
        let text = value.as_str().map(Some);
        text.ok_or_else(|| self.kind(index, value, "a text"))
    }

    /// A whole number.
    pub(super) fn whole(&self, index: usize) -> Result<Option<i64>, Error> {
        let Some(value) = self.value(index) else {
            return Ok(None);
        };
        match value.kind() {
            ValueKind::Bool => Ok(Some(i64::from(value.is_true()))),
            ValueKind::Number if value.is_integer() => match value.as_i64() {
                Some(whole) => Ok(Some(whole)),
                None => Err(self.kind(index, value, "a smaller number")),
            },
            _ => Err(self.kind(index, value, "a whole number")),
        }
    }

    /// Whether an argument is true.
    pub(super) fn flag(&self, index: usize, default: bool) -> bool {
        self.values[index].as_ref().map_or(default, Value::is_true)
    }

    fn kind(&self, index: usize, value: &Value, wanted: &str) -> Error {
        let (what, name, kind) = (self.what, self.names[index], value.kind());
        wrong(format!("{what} with a {kind} as '{name}'; expected {wanted}"))
    }
}
