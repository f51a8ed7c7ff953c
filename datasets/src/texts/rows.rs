//! Rows of tables and objects in JSON files, each with its position for messages.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csv::ReaderBuilder;
use serde_json::{Map, Value};

use crate::language::{TextError, records};

/// Position of a row in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Line, from 1.
    Line(usize),
    /// Item of a JSON array or row of a parquet file, from 1.
    Item(usize),
}

impl Place {
    pub(crate) fn error(self, path: &Path, message: String) -> TextError {
        let path = path.to_path_buf();
        match self {
            Self::Line(line) => TextError::Line { path, line, message },
            Self::Item(item) => TextError::Item { path, item, message },
        }
    }
}

/// What pandas reads as a missing value.
const MISSING: [&str; 19] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
];

/// A row: its fields by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Without the empty cells of a text table.
    fields: Map<String, Value>,
    /// Names of the columns of a text table, shared by its rows.
    columns: Arc<[String]>,
    /// Number of its cells; a short row lacks the last columns.
    cells: usize,
    path: PathBuf,
    place: Place,
}

impl Row {
    /// A row of JSON or parquet.
    fn object(fields: Map<String, Value>, path: &Path, place: Place) -> Self {
        Self {
            fields,
            columns: Arc::default(),
            cells: 0,
            path: path.to_path_buf(),
            place,
        }
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// An error that names this row's file and position.
    pub fn error(&self, message: String) -> TextError {
        self.place.error(&self.path, message)
    }

    /// True if the row has that field, empty or not.
    pub fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name) || self.is_empty_cell(name)
    }

    fn is_empty_cell(&self, name: &str) -> bool {
        let cells = &self.columns[..self.cells.min(self.columns.len())];
        !self.fields.contains_key(name) && cells.iter().any(|column| column == name)
    }

    /// The text of field `name`: a string unchanged, a number or boolean as in JSON; `None` if it is null.
    ///
    /// # Errors
    /// A row without the field, a list or an object.
    pub fn text(&self, name: &str) -> Result<Option<String>, TextError> {
        match self.fields.get(name) {
            None if self.is_empty_cell(name) => Ok(Some(String::new())),
            None => {
                let names: Vec<_> = match self.columns.is_empty() {
                    true => self.fields.keys().map(String::as_str).collect(),
                    false => self.columns.iter().take(self.cells).map(String::as_str).collect(),
                };
                Err(self.error(format!("no field '{name}'; found: {}", names.join(", "))))
            }
            Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(value.to_string())),
            Some(value) => {
                let kind = records::kind(value);
                Err(self.error(format!("field '{name}' is {kind}, expected a string")))
            }
        }
    }

    /// True for a cell of a text table that stands for a missing value, as pandas reads it.
    pub(super) fn is_missing(&self, cell: &str) -> bool {
        !self.columns.is_empty() && MISSING.contains(&cell)
    }

    /// The text of field `name`, which must not be null.
    ///
    /// # Errors
    /// See [`Row::text`].
    pub fn required(&self, name: &str) -> Result<String, TextError> {
        self.text(name)?
            .ok_or_else(|| self.error(format!("field '{name}' is null, expected a string")))
    }
}

/// All rows of the file at `path`, read according to its extension.
pub(crate) fn read(path: &Path) -> Result<Vec<Row>, TextError> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    match ending.to_ascii_lowercase().as_str() {
        "csv" => table(path, b',', true, None),
        "tsv" => table(path, b'\t', false, None),
        "json" | "jsonl" | "parquet" => objects(path),
        _ => Err(TextError::read(
            path,
            "its ending is none of .csv, .tsv, .json, .jsonl and .parquet; rename it to what it is",
        )),
    }
}

fn objects(path: &Path) -> Result<Vec<Row>, TextError> {
    let records = records::read(path)?;
    let places = places(path, records.len())?.into_iter();
    let rows = records.into_iter().zip(places);
    Ok(rows
        .map(|(record, place)| Row::object(record.fields, path, place))
        .collect())
}

/// Positions of the `count` objects in a file: lines, or items of an array or table.
fn places(path: &Path, count: usize) -> Result<Vec<Place>, TextError> {
    let items = (1..=count).map(Place::Item).collect();
    if path.extension().is_some_and(|ending| ending == "parquet") {
        return Ok(items);
    }
    let text = std::fs::read_to_string(path).map_err(|e| TextError::read(path, e))?;
    if text.trim_start().starts_with('[') {
        return Ok(items);
    }
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    Ok(lines.map(|(_, number)| Place::Line(number)).collect())
}

/// Rows of a table. Without `header`, the first line has the column names. A row that is shorter than the header lacks
/// the last fields.
pub(crate) fn table(path: &Path, delimiter: u8, quoted: bool, header: Option<&[&str]>) -> Result<Vec<Row>, TextError> {
    let bytes = std::fs::read(path).map_err(|e| TextError::read(path, e))?;
    // Some of GLUE's files begin with a byte order mark.
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .quoting(quoted)
        .has_headers(false)
        .flexible(true)
        .from_reader(bytes);
    let mut names: Option<Arc<[String]>> = header.map(|names| names.iter().map(|name| (*name).into()).collect());
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| {
            let line = e.position().map_or(1, |position| position.line() as usize);
            let message = match e.kind() {
                csv::ErrorKind::Utf8 { .. } => "not UTF-8 text; convert the file".to_string(),
                _ => e.to_string(),
            };
            Place::Line(line).error(path, message)
        })?;
        let line = record.position().map_or(1, |position| position.line() as usize);
        let Some(names) = &names else {
            let found: Vec<String> = record.iter().map(|name| name.trim().to_string()).collect();
            let mut seen = HashSet::new();
            let twice = found.iter().find(|name| !seen.insert(name.as_str()));
            if let Some(name) = twice.filter(|name| !name.is_empty()) {
                let message = format!("the header names '{name}' twice; rename one of the columns");
                return Err(Place::Line(line).error(path, message));
            }
            names = Some(found.into());
            continue;
        };
        if record.len() > names.len() {
            let message = format!("{} fields, but the header names {}", record.len(), names.len());
            return Err(Place::Line(line).error(path, message));
        }
        // Wide tables are empty for the most part.
        let cells = names.iter().zip(&record).filter(|(_, cell)| !cell.is_empty());
        rows.push(Row {
            fields: cells.map(|(name, cell)| (name.clone(), cell.into())).collect(),
            columns: names.clone(),
            cells: record.len(),
            path: path.to_path_buf(),
            place: Place::Line(line),
        });
    }
    match rows.is_empty() {
        true => Err(TextError::Empty {
            path: path.to_path_buf(),
            what: "row",
        }),
        false => Ok(rows),
    }
}
