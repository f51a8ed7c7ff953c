//! Objects from JSON, JSONL, CSV and parquet files, each with its position for messages.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::language::{TextError, json_text, packed};
use crate::parquet_rows::{ParquetFile, object};
use crate::text_file;

/// An object in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its fields, in the file's order; without the empty cells of a text table.
    pub fields: Map<String, Value>,
    /// Names of the columns of a text table, shared by its rows.
    columns: Arc<[String]>,
    path: PathBuf,
    place: Place,
}

/// Position of a record in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Line number.
    Line(usize),
    /// Index in a list or a table.
    Item(usize),
}

impl Place {
    /// An error about the record at this position of the file at `path`.
    pub(super) fn error(self, path: &Path, message: String) -> TextError {
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
        self.fields.contains_key(name) || self.columns.iter().any(|column| column == name)
    }

    /// Names of its fields, in the file's order.
    pub(super) fn names(&self) -> Vec<&str> {
        match self.columns.is_empty() {
            true => self.fields.keys().map(String::as_str).collect(),
            false => self.columns.iter().map(String::as_str).collect(),
        }
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

/// The file of test questions in a suite's folder: test.json or, if that is missing, test.jsonl or test.parquet.
pub fn test_file(folder: &Path) -> PathBuf {
    let others = ["test.jsonl", "test.parquet"].map(|name| folder.join(name));
    let usual = folder.join("test.json");
    match usual.is_file() {
        true => usual,
        false => others.into_iter().find(|path| path.is_file()).unwrap_or(usual),
    }
}

/// All objects in `path`: a JSON array of objects, JSONL (one object per line; empty lines are skipped), the rows of a
/// .parquet file, or those of a .csv or .tsv file with a header (an empty cell is null). All formats except parquet may
/// be compressed (.gz). A byte order mark is skipped; NaN is read as null, and an integer beyond 64 bits as text.
///
/// # Errors
/// A file that cannot be read, is malformed (with the line), or is empty.
pub fn read(path: &Path) -> Result<Vec<Record>, TextError> {
    read_each(path)?.into_iter().collect()
}

/// Same as [`read`], but with an error for each line or item that is not an object, so that the others can still be
/// used.
///
/// # Errors
/// A file that cannot be read, is a malformed array (with the line), or is empty.
pub fn read_each(path: &Path) -> Result<Vec<Result<Record, TextError>>, TextError> {
    let extension = |path: &Path| path.extension().unwrap_or_default().to_ascii_lowercase();
    let compressed = extension(path) == "gz";
    let bytes = || {
        let mut bytes = fs::read(path).map_err(|e| TextError::read(path, e))?;
        if compressed {
            bytes = packed::unpacked(&bytes).map_err(|e| TextError::read(path, e))?;
        }
        Ok(text_file::utf8(bytes))
    };
    let extension = match compressed {
        true => extension(&path.with_extension("")),
        false => extension(path),
    };
    let records = match extension.to_str() {
        Some("parquet") => rows(path)?,
        Some("csv") => cells(path, &bytes()?, b',')?,
        Some("tsv") => cells(path, &bytes()?, b'\t')?,
        _ => {
            let bytes = bytes()?;
            match bytes.trim_ascii_start().starts_with(b"[") {
                true => array(path, &bytes)?,
                false => lines(path, &bytes),
            }
        }
    };
    if records.is_empty() {
        let path = path.to_path_buf();
        return Err(TextError::Empty { path, what: "object" });
    }
    Ok(records)
}

fn rows(path: &Path) -> Result<Vec<Result<Record, TextError>>, TextError> {
    let mut records = Vec::new();
    let none: Arc<[String]> = Arc::default();
    let file = ParquetFile::open(path).map_err(|e| TextError::read(path, e))?;
    let read = file.rows::<String>(&[], |row| {
        records.push(Ok(Record {
            fields: object(row),
            columns: none.clone(),
            path: path.to_path_buf(),
            place: Place::Item(records.len() + 1),
        }));
        Ok(())
    });
    read.map_err(|e| TextError::read(path, e))?;
    Ok(records)
}

/// The rows of a text table. A row whose number of cells differs from the header gets its own error.
fn cells(path: &Path, bytes: &[u8], delimiter: u8) -> Result<Vec<Result<Record, TextError>>, TextError> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(bytes);
    let names = reader.headers().map_err(|e| TextError::read(path, e))?;
    let names: Arc<[String]> = names.iter().map(String::from).collect();
    let (mut counted, mut line) = (0, 1);
    let mut line_of = |position: Option<&csv::Position>| {
        // The crate's own count is one too low after a Windows line break.
        let start = position.map_or(counted, |position| position.byte() as usize);
        let breaks = bytes[start..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
        let start = (start + breaks.count()).max(counted);
        line += bytes[counted..start].iter().filter(|byte| **byte == b'\n').count();
        counted = start;
        line
    };
    let mut records = Vec::new();
    for row in reader.byte_records() {
        let (line, row) = match row {
            Ok(row) => (line_of(row.position()), Ok(row)),
            Err(error) => (line_of(error.position()), Err(error.to_string())),
        };
        let row = row.and_then(|row| csv::StringRecord::from_byte_record(row).map_err(|_| NOT_UTF8.to_string()));
        let path = path.to_path_buf();
        records.push(match row {
            Err(message) => Err(TextError::Line { path, line, message }),
            Ok(row) => Ok(Record {
                // Wide tables are empty for the most part.
                fields: names
                    .iter()
                    .zip(&row)
                    .filter(|(_, cell)| !cell.is_empty())
                    .map(|(name, cell)| (name.clone(), cell.into()))
                    .collect(),
                columns: names.clone(),
                path,
                place: Place::Line(line),
            }),
        });
    }
    Ok(records)
}

fn array(path: &Path, bytes: &[u8]) -> Result<Vec<Result<Record, TextError>>, TextError> {
    let malformed = |line: usize, message: String| TextError::Line {
        path: path.to_path_buf(),
        line,
        message,
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes[..error.valid_up_to()].iter();
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        malformed(line, NOT_UTF8.into())
    })?;
    let items: Vec<Value> = serde_json::from_str(&json_text::standard(text))
        .map_err(|e| malformed(e.line(), format!("malformed JSON ({e})")))?;
    let records = items.into_iter().enumerate();
    Ok(records
        .map(|(index, value)| record(path, value, Place::Item(index + 1)))
        .collect())
}

fn lines(path: &Path, bytes: &[u8]) -> Vec<Result<Record, TextError>> {
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    lines
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(index, line)| {
            let malformed = |message: String| TextError::Line {
                path: path.to_path_buf(),
                line: index + 1,
                message,
            };
            let text = std::str::from_utf8(line).map_err(|_| malformed(NOT_UTF8.into()))?;
            let value = serde_json::from_str(&json_text::standard(text));
            let value = value.map_err(|e| malformed(format!("malformed JSON ({e})")))?;
            record(path, value, Place::Line(index + 1))
        })
        .collect()
}

const NOT_UTF8: &str = "it is not UTF-8; save the file as UTF-8";

fn record(path: &Path, value: Value, place: Place) -> Result<Record, TextError> {
    let found = kind(&value);
    let fields = match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let record = Record {
        fields,
        columns: Arc::default(),
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
    fn marks_nan_great_numbers_and_bad_lines() {
        let text = b"\xEF\xBB\xBF{\"x\": 123456789012345678901234567890, \"y\": NaN}\r\n{\"x\": \"\xFF\"}\n{\"x\": 1}";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        fs::write(&path, text).unwrap();
        let records = read_each(&path).unwrap();
        let [Ok(first), Err(second), Ok(third)] = &records[..] else {
            panic!("{records:?}")
        };
        assert_eq!(first.required("x").unwrap(), "123456789012345678901234567890");
        assert_eq!((first.value("y"), third.required("x").unwrap().as_str()), (None, "1"));
        assert!(second.to_string().contains("a.jsonl:2: it is not UTF-8"), "{second}");
        assert!(
            first
                .required("y")
                .unwrap_err()
                .to_string()
                .ends_with("a.jsonl:1: field 'y' is null")
        );
    }

    #[test]
    fn tables_of_text_are_read_by_their_names() {
        let text = "\u{feff}instruction,output,note\r\n\"a, \"\"b\"\"\",3,\r\nshort\r\n\"two\nlines\",4,x\r\n";
        let (_folder, path) = written("a.csv", text);
        let records = read_each(&path).unwrap();
        let [Ok(first), Err(second), Ok(third)] = &records[..] else {
            panic!("{records:?}")
        };
        assert_eq!(first.required("instruction").unwrap(), "a, \"b\"");
        assert_eq!(
            (first.value("note"), third.required("instruction").unwrap().as_str()),
            (None, "two\nlines")
        );
        assert!(second.to_string().contains("a.csv:3: "), "{second}");
        let null = first.required("note").unwrap_err().to_string();
        assert!(null.ends_with("a.csv:2: field 'note' is null"), "{null}");
        // An empty cell takes no memory.
        assert_eq!(first.fields.len(), 2);
        assert!(
            third
                .required("none")
                .unwrap_err()
                .to_string()
                .contains("a.csv:4: no field 'none'; found: instruction, output, note")
        );
        let (_folder, path) = written("a.tsv", "q\ta\n1 + 1\t2\n");
        assert_eq!(read(&path).unwrap()[0].required("a").unwrap(), "2");
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
