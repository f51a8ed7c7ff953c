//! Objects from JSON, JSONL and parquet files, each with its place for messages.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::language::TextError;
use crate::parquet_rows::{ParquetFile, object};

/// One object of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its fields, in the file's order.
    pub fields: Map<String, Value>,
    path: PathBuf,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Line(usize),
    Item(usize),
}

impl Record {
    /// An error that names this record's file and place.
    pub fn error(&self, message: String) -> TextError {
        let path = self.path.clone();
        match self.place {
            Place::Line(line) => TextError::Line { path, line, message },
            Place::Item(item) => TextError::Item { path, item, message },
        }
    }

    /// The text of field `name`: a string as it is, a number or truth value as JSON spells it; `None` if it is
    /// absent or null.
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

    /// The text of field `name`, which must be there.
    ///
    /// # Errors
    /// A field that is absent or no text.
    pub fn required(&self, name: &str) -> Result<String, TextError> {
        let names = || self.fields.keys().cloned().collect::<Vec<_>>().join(", ");
        self.text(name)?
            .ok_or_else(|| self.error(format!("no field '{name}'; found: {}", names())))
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

/// The test questions of a suite's folder: test.json, or test.jsonl or test.parquet where that is missing.
pub fn test_file(folder: &Path) -> PathBuf {
    let others = ["test.jsonl", "test.parquet"].map(|name| folder.join(name));
    let usual = folder.join("test.json");
    match usual.is_file() {
        true => usual,
        false => others.into_iter().find(|path| path.is_file()).unwrap_or(usual),
    }
}

/// Every object of `path`: a JSON array of objects, JSONL (an object a line; empty lines are skipped), or the rows of a
/// .parquet file.
///
/// # Errors
/// A file that cannot be read, is malformed (with the line), or holds nothing.
pub fn read(path: &Path) -> Result<Vec<Record>, TextError> {
    let records = match path.extension().is_some_and(|extension| extension == "parquet") {
        true => rows(path)?,
        false => {
            let text = fs::read_to_string(path).map_err(|e| TextError::read(path, e))?;
            match text.trim_start().starts_with('[') {
                true => array(path, &text)?,
                false => lines(path, &text)?,
            }
        }
    };
    if records.is_empty() {
        let path = path.to_path_buf();
        return Err(TextError::Empty { path, what: "object" });
    }
    Ok(records)
}

fn rows(path: &Path) -> Result<Vec<Record>, TextError> {
    let mut records = Vec::new();
    let file = ParquetFile::open(path).map_err(|e| TextError::read(path, e))?;
    let read = file.rows::<String>(&[], |row| {
        records.push(Record {
            fields: object(row),
            path: path.to_path_buf(),
            place: Place::Item(records.len() + 1),
        });
        Ok(())
    });
    read.map_err(|e| TextError::read(path, e))?;
    Ok(records)
}

fn array(path: &Path, text: &str) -> Result<Vec<Record>, TextError> {
    let items: Vec<Value> = serde_json::from_str(text).map_err(|e| TextError::Line {
        path: path.to_path_buf(),
        line: e.line(),
        message: format!("malformed JSON ({e})"),
    })?;
    let records = items.into_iter().enumerate();
    records
        .map(|(index, value)| record(path, value, Place::Item(index + 1)))
        .collect()
}

fn lines(path: &Path, text: &str) -> Result<Vec<Record>, TextError> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            let value = serde_json::from_str(line).map_err(|e| TextError::Line {
                path: path.to_path_buf(),
                line: index + 1,
                message: format!("malformed JSON ({e})"),
            })?;
            record(path, value, Place::Line(index + 1))
        })
        .collect()
}

fn record(path: &Path, value: Value, place: Place) -> Result<Record, TextError> {
    let found = kind(&value);
    let fields = match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let record = Record {
        fields,
        path: path.to_path_buf(),
        place,
    };
    match found {
        "an object" => Ok(record),
        _ => Err(record.error(format!("found {found}, expected an object"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn arrays_and_lines_give_the_same_objects() {
        let (_a, array) = written("a.json", "[{\"x\": \"1\"},\n {\"x\": 2}]");
        let (_b, lines) = written("b.jsonl", "{\"x\": \"1\"}\n\n{\"x\": 2}\n");
        for path in [array, lines] {
            let records = read(&path).unwrap();
            let texts: Vec<_> = records.iter().map(|r| r.required("x").unwrap()).collect();
            assert_eq!(texts, ["1", "2"]);
        }
    }

    #[test]
    fn what_is_malformed_is_named_with_its_place() {
        let message = |name: &str, text: &str| {
            let (_folder, path) = written(name, text);
            read(&path).unwrap_err().to_string()
        };
        assert!(message("a.jsonl", "{\"x\": 1}\n{\"x\": \n").contains("a.jsonl:2: malformed JSON"));
        assert!(message("a.json", "[{\"x\": 1},\n{\"x\" 2}]").contains("a.json:2: malformed JSON"));
        assert!(message("a.jsonl", "3\n").contains("a.jsonl:1: found a number, expected an object"));
        assert!(message("a.json", "[]").contains("holds no object"));
        assert!(
            read(Path::new("/nonexistent/a.json"))
                .unwrap_err()
                .to_string()
                .contains("/nonexistent/a.json")
        );
    }

    #[test]
    fn a_missing_field_is_named_with_what_is_there() {
        let (_folder, path) = written("a.jsonl", "{\"q\": \"x\", \"list\": []}\n");
        let record = read(&path).unwrap().remove(0);
        let message = record.required("question").unwrap_err().to_string();
        assert!(
            message.ends_with("a.jsonl:1: no field 'question'; found: q, list"),
            "{message}"
        );
        assert!(
            record
                .text("list")
                .unwrap_err()
                .to_string()
                .contains("a list, expected a string")
        );
    }
}
