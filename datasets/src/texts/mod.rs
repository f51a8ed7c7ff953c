//! Labelled texts and pairs of texts from any CSV, TSV, JSON, JSONL or parquet file.
//!
//! [`read`] reads the fields by name; [`with_classes`] and [`with_scores`] convert the contents of the label field to
//! labels.

mod labels;
pub(crate) mod rows;
pub mod sample;

pub use labels::{class_names, with_classes, with_scores};
pub use rows::Row;

use std::path::{Path, PathBuf};

use crate::language::TextError;

/// Names of the fields to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFields {
    /// The text, or the first of a pair.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// The label; `None` to read files for prediction.
    pub label: Option<String>,
}

impl TextFields {
    /// `text` is one field, or two separated by a comma, as on the command line.
    ///
    /// # Errors
    /// No field, or more than two.
    pub fn parse(text: &str, label: Option<&str>) -> Result<Self, String> {
        let names: Vec<&str> = text.split(',').map(str::trim).collect();
        let (first, second) = match names[..] {
            [first] if !first.is_empty() => (first, None),
            [first, second] if !first.is_empty() && !second.is_empty() => (first, Some(second)),
            _ => return Err(format!("'{text}' is no field or pair of fields; expected a or a,b")),
        };
        if Some(first) == second || label == Some(first) || (label.is_some() && label == second) {
            let of_label = label.map_or(String::new(), |label| format!(" with the label '{label}'"));
            return Err(format!("'{text}'{of_label} names a field twice"));
        }
        Ok(Self {
            text: first.to_string(),
            pair: second.map(String::from),
            label: label.map(String::from),
        })
    }
}

/// A text or a pair, with a label of type `L`.
#[derive(Debug, Clone, PartialEq)]
pub struct TextItem<L> {
    /// The text, or the first of a pair.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// Its label, if the file has one.
    pub label: Option<L>,
}

/// The texts of a file with their labels as written there, each with its position.
#[derive(Debug, Clone, PartialEq)]
pub struct RawTexts {
    /// The texts.
    pub items: Vec<TextItem<String>>,
    /// Position of each, for messages.
    places: Vec<rows::Place>,
    path: PathBuf,
}

impl RawTexts {
    /// An error that names the file and the position of item `index`.
    pub fn error(&self, index: usize, message: String) -> TextError {
        self.places[index].error(&self.path, message)
    }
}

/// Reads the file at `path`: CSV with a header (quoted as in RFC 4180), TSV with a header (never quoted), a JSON array
/// of objects, JSONL, or parquet, recognized by its extension. An empty label counts as missing.
///
/// # Errors
/// A file that cannot be read or is malformed, or a row without one of the fields, with its position.
pub fn read(path: &Path, fields: &TextFields) -> Result<RawTexts, TextError> {
    let rows = rows::read(path)?;
    let mut texts = RawTexts {
        items: Vec::with_capacity(rows.len()),
        places: Vec::with_capacity(rows.len()),
        path: path.to_path_buf(),
    };
    for row in rows {
        let label = match &fields.label {
            Some(field) => row.text(field)?,
            None => None,
        };
        texts.items.push(TextItem {
            text: row.required(&fields.text)?,
            pair: fields.pair.as_ref().map(|field| row.required(field)).transpose()?,
            label: label.filter(|label| !label.is_empty()),
        });
        texts.places.push(row.place());
    }
    Ok(texts)
}
