//! Rows of tables and objects in JSON files, each with its position for messages.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use csv::ReaderBuilder;
use serde_json::{Map, Value};

use crate::language::record::{self, Place, Record};
use crate::language::{TextError, records};
use crate::text_file;

/// What pandas reads as a missing value.
const MISSING: [&str; 19] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
];

/// A row: its fields by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Those that were asked for, without the empty cells of a text table.
    fields: Map<String, Value>,
    /// Names of all columns or fields, shared by the rows that have them.
    columns: Arc<[String]>,
    /// Number of cells; a short row of a text table lacks the last columns.
    cells: usize,
    /// True for a row of a text table, where nothing tells a missing cell from an empty one.
    is_text: bool,
    path: Arc<Path>,
    place: Place,
}

impl From<Record> for Row {
    /// A row of JSON or parquet.
    fn from(record: Record) -> Self {
        Self {
            fields: record.fields,
            cells: record.columns.len(),
            columns: record.columns,
            is_text: false,
            path: record.path,
            place: record.place,
        }
    }
}

impl Row {
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// An error that names this row's file and position.
    pub fn error(&self, message: String) -> TextError {
        self.place.error(&self.path, message)
    }

    /// Names of the columns of the file, or of the fields of this object.
    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// True if the row has that field, empty or not.
    pub fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name) || self.is_empty_cell(name)
    }

    fn is_empty_cell(&self, name: &str) -> bool {
        let cells = &self.columns[..self.cells.min(self.columns.len())];
        self.is_text && !self.fields.contains_key(name) && cells.iter().any(|column| column == name)
    }

    /// The text of field `name`: a string unchanged, a number or boolean as in JSON; `None` if it is null.
    ///
    /// # Errors
    /// A row without the field, a list or an object.
    pub fn text(&self, name: &str) -> Result<Option<String>, TextError> {
        match self.fields.get(name) {
            None if self.is_empty_cell(name) => Ok(Some(String::new())),
            None => {
                let names: Vec<_> = self.columns.iter().take(self.cells).map(String::as_str).collect();
                Err(self.error(format!("no field '{name}'; found: {}", names.join(", "))))
            }
            Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(value.to_string())),
            Some(value) => {
                let kind = record::kind(value);
                Err(self.error(format!("field '{name}' is {kind}, expected a string")))
            }
        }
    }

    /// True for a cell of a text table that stands for a missing value, as pandas reads it.
    pub(super) fn is_missing(&self, cell: &str) -> bool {
        self.is_text && MISSING.contains(&cell)
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

/// All rows of the file at `path`, read according to its extension, with the fields in `wanted`; with all fields if it is
/// empty.
pub(crate) fn read(path: &Path, wanted: &[&str]) -> Result<Vec<Row>, TextError> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    match ending.to_ascii_lowercase().as_str() {
        "csv" => table(path, b',', true, None, wanted),
        "tsv" => table(path, b'\t', false, None, wanted),
        "json" | "jsonl" | "parquet" => {
            let records = records::read_fields(path, wanted)?.into_iter();
            Ok(records.map(Row::from).collect())
        }
        "arrow" => Err(TextError::read(
            path,
            "Arrow files are not read; write it as parquet, in Python: \
             datasets.Dataset.from_file(FILE).to_parquet('data.parquet')",
        )),
        _ => Err(TextError::read(
            path,
            "its ending is none of .csv, .tsv, .json, .jsonl and .parquet; rename it to what it is",
        )),
    }
}

/// Rows of a table, with the columns in `wanted`, or all. Without `header`, the first line has the column names. A row that
/// is shorter than the header lacks the last fields.
pub(crate) fn table(
    path: &Path,
    delimiter: u8,
    quoted: bool,
    header: Option<&[&str]>,
    wanted: &[&str],
) -> Result<Vec<Row>, TextError> {
    let bytes = files::read_regular(path).map_err(|e| TextError::read(path, e))?;
    if let Some(advice) = files::pointer(&bytes) {
        return Err(TextError::read(path, advice));
    }
    // Some of GLUE's files begin with a byte order mark, and spreadsheets write UTF-16.
    let bytes = text_file::utf8(bytes);
    let path: Arc<Path> = path.into();
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .quoting(quoted)
        .has_headers(false)
        .flexible(true)
        .from_reader(&bytes[..]);
    let mut kept = header.map(|names| indices(names.iter().copied(), wanted));
    let mut names: Option<Arc<[String]>> = header.map(|names| names.iter().map(|name| (*name).into()).collect());
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| {
            let line = e.position().map_or(1, |position| position.line() as usize);
            let message = match e.kind() {
                csv::ErrorKind::Utf8 { .. } => "not UTF-8 text; convert the file".to_string(),
                _ => e.to_string(),
            };
            Place::Line(line).error(&path, message)
        })?;
        let line = record.position().map_or(1, |position| position.line() as usize);
        let Some(names) = &names else {
            let found: Vec<String> = record.iter().map(|name| name.trim().to_string()).collect();
            let mut seen = HashSet::new();
            let twice = found.iter().find(|name| !seen.insert(name.as_str()));
            if let Some(name) = twice.filter(|name| !name.is_empty()) {
                let message = format!("the header names '{name}' twice; rename one of the columns");
                return Err(Place::Line(line).error(&path, message));
            }
            kept = Some(indices(found.iter().map(String::as_str), wanted));
            names = Some(found.into());
            continue;
        };
        if record.len() > names.len() {
            let message = format!("{} fields, but the header names {}", record.len(), names.len());
            return Err(Place::Line(line).error(&path, message));
        }
        // Wide tables are empty for the most part.
        let cell = |index: &usize| {
            let cell = record.get(*index).filter(|cell| !cell.is_empty())?;
            Some((names[*index].clone(), cell.into()))
        };
        rows.push(Row {
            // A short row ends before most columns of a wide table.
            fields: kept
                .iter()
                .flatten()
                .take_while(|index| **index < record.len())
                .filter_map(cell)
                .collect(),
            columns: names.clone(),
            cells: record.len(),
            is_text: true,
            path: path.clone(),
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

/// Where the columns in `wanted` are; all, if it is empty.
fn indices<'a>(names: impl Iterator<Item = &'a str>, wanted: &[&str]) -> Vec<usize> {
    let is_wanted = |(_, name): &(usize, &str)| wanted.is_empty() || wanted.contains(name);
    names.enumerate().filter(is_wanted).map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_keeps_the_wanted_columns_and_knows_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, "id,text,more,label\n1,good,x,pos\n2,bad,,neg\n3,none\n").unwrap();
        let rows = read(&path, &["text", "label"]).unwrap();
        let kept: Vec<Vec<_>> = rows.iter().map(|row| row.fields.keys().collect()).collect();
        assert_eq!(kept, [vec!["text", "label"], vec!["text", "label"], vec!["text"]]);
        assert_eq!(rows[0].text("label").unwrap().as_deref(), Some("pos"));
        let short = rows[2].text("label").unwrap_err().to_string();
        assert!(short.ends_with("a.csv:4: no field 'label'; found: id, text"), "{short}");
        assert_eq!(read(&path, &[]).unwrap()[0].fields.len(), 4);
    }

    #[test]
    fn utf_16_and_every_spelling_of_an_ending_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.TSV");
        let wide = "\u{feff}text\tlabel\r\ngrün\ta\r\n"
            .encode_utf16()
            .flat_map(u16::to_le_bytes);
        std::fs::write(&path, wide.collect::<Vec<u8>>()).unwrap();
        assert_eq!(read(&path, &[]).unwrap()[0].required("text").unwrap(), "grün");
        let path = folder.path().join("a.JSONL");
        std::fs::write(&path, "\u{feff}\n{\"text\": \"a\"}\n").unwrap();
        let row = read(&path, &["text"]).unwrap().remove(0);
        assert!(
            row.required("label")
                .unwrap_err()
                .to_string()
                .ends_with("a.JSONL:2: no field 'label'; found: text")
        );
        let arrow = read(&folder.path().join("a.arrow"), &[]).unwrap_err().to_string();
        assert!(arrow.contains("to_parquet"), "{arrow}");
    }
}
