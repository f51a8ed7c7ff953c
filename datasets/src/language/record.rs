//! An object in a file, with its position for messages.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::language::TextError;

/// An object in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its fields, in the file's order; without the empty cells of a text table, and without fields that nobody asked
    /// for.
    pub fields: Map<String, Value>,
    /// Names of all fields in the file, shared by records that have the same ones.
    pub(crate) columns: Arc<[String]>,
    pub(crate) path: Arc<Path>,
    pub(crate) place: Place,
}

/// Position of a record in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Line number, from 1.
    Line(usize),
    /// Number in a list or a table, from 1.
    Item(usize),
}

impl Place {
    /// An error about the record at this position of the file at `path`.
    pub(crate) fn error(self, path: &Path, message: String) -> TextError {
        let path = path.to_path_buf();
        match self {
            Self::Line(line) => TextError::Line { path, line, message },
            Self::Item(item) => TextError::Item { path, item, message },
        }
    }
}

impl Record {
    /// An error that names this record's file and position.
    pub fn error(&self, message: String) -> TextError {
        self.place.error(&self.path, message)
    }

    /// Its position in the file.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// The text of field `name`: a string unchanged, a number or boolean as in JSON; `None` if it is absent or null.
    ///
    /// # Errors
    /// A list or an object.
    pub fn text(&self, name: &str) -> Result<Option<String>, TextError> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(value.to_string())),
            Some(value) => Err(self.error(format!("field '{name}' is {}, expected a string", kind(value)))),
        }
    }

    /// The value of field `name`; `None` if it is absent or null, as in unused columns of joined tables.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// True if it has field `name`, null or not.
    pub(super) fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column == name)
    }

    /// Names of its fields, in the file's order.
    pub(super) fn names(&self) -> Vec<&str> {
        self.columns.iter().map(String::as_str).collect()
    }

    /// The text of field `name`, which must exist.
    ///
    /// # Errors
    /// A field that is absent or not text.
    pub fn required(&self, name: &str) -> Result<String, TextError> {
        self.text(name)?.ok_or_else(|| match self.has(name) {
            true => self.error(format!("field '{name}' is null")),
            false => self.error(format!("no field '{name}'; found: {}", self.names().join(", "))),
        })
    }
}

/// Name of a JSON value's type, for messages.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
