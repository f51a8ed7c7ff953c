//! Labelled texts and pairs of texts from any CSV, TSV, JSON, JSONL or parquet file.
//!
//! [`read`] reads the fields by name; [`with_classes`] and [`with_scores`] convert the contents of the label field to
//! labels.

mod labels;
pub(crate) mod rows;
pub mod sample;

pub(crate) use labels::{Classes, sorted_names};
pub use labels::{class_names, with_classes, with_scores};
pub use rows::Row;

use std::path::{Path, PathBuf};

use crate::language::TextError;
use crate::language::record::Place;
use crate::parquet_rows::ParquetFile;

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

    /// The names.
    fn names(&self) -> Vec<&str> {
        let names = [Some(&self.text), self.pair.as_ref(), self.label.as_ref()];
        names.into_iter().flatten().map(String::as_str).collect()
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
    /// Number of rows left out by [`read_labelled`].
    pub left_out: usize,
    /// Why the first of them is.
    first_left_out: Option<String>,
    /// Names of the classes that labels count, if the file has them.
    classes: Vec<String>,
    /// Position of each, for messages.
    places: Vec<Place>,
    path: PathBuf,
}

impl RawTexts {
    /// An error that names the file and the position of item `index`.
    pub fn error(&self, index: usize, message: String) -> TextError {
        self.places[index].error(&self.path, message)
    }

    /// Names of the classes, if the file has them.
    pub(crate) fn named_classes(&self) -> &[String] {
        &self.classes
    }

    /// The labels, as the names of their classes if the file has them.
    pub(crate) fn class_labels(&self) -> impl Iterator<Item = Option<String>> {
        self.items.iter().map(|item| {
            let label = item.label.as_ref()?;
            let number = label.parse::<usize>().ok();
            let named = number.and_then(|number| self.classes.get(number));
            Some(named.unwrap_or(label).clone())
        })
    }

    /// How many rows are left out and why the first is; `None` if none is.
    pub fn describe_left_out(&self) -> Option<String> {
        let first = self.first_left_out.as_ref()?;
        Some(match self.left_out {
            1 => format!("1 row is left out: {first}"),
            several => format!("{several} rows are left out, the first: {first}"),
        })
    }
}

/// Reads the file at `path`: CSV with a header (quoted as in RFC 4180), TSV with a header (never quoted), a JSON array
/// of objects, JSONL, or parquet, recognized by its extension. An empty label counts as missing, and so do, in CSV and
/// TSV, the words that pandas reads as missing.
///
/// # Errors
/// A file that cannot be read or is malformed, or a row without one of the fields, with its position.
pub fn read(path: &Path, fields: &TextFields) -> Result<RawTexts, TextError> {
    let mut texts = empty(path, fields)?;
    for row in rows::read(path, &fields.names())? {
        texts.items.push(item(&row, fields, &texts.classes)?);
        texts.places.push(row.place());
    }
    Ok(texts)
}

/// Same as [`read`], but rows without a text or a label are left out and counted.
///
/// # Errors
/// A file that cannot be read or is malformed, or one without a row that has text and label, with the reason for the first.
pub fn read_labelled(path: &Path, fields: &TextFields) -> Result<RawTexts, TextError> {
    let mut texts = empty(path, fields)?;
    let mut first = None;
    for row in rows::read(path, &fields.names())? {
        match whole(&row, fields, &texts.classes) {
            Ok(item) => {
                texts.items.push(item);
                texts.places.push(row.place());
            }
            Err(error) => {
                texts.left_out += 1;
                first.get_or_insert(error);
            }
        }
    }
    match first {
        Some(error) if texts.items.is_empty() => Err(error),
        first => {
            texts.first_left_out = first.map(|error| error.to_string());
            Ok(texts)
        }
    }
}

/// No texts yet, of the file at `path`.
fn empty(path: &Path, fields: &TextFields) -> Result<RawTexts, TextError> {
    let classes = match &fields.label {
        Some(label)
            if path
                .extension()
                .is_some_and(|ending| ending.eq_ignore_ascii_case("parquet")) =>
        {
            let file = ParquetFile::open(path).map_err(|e| TextError::read(path, e))?;
            file.class_names(label)
        }
        _ => Vec::new(),
    };
    Ok(RawTexts {
        items: Vec::new(),
        left_out: 0,
        first_left_out: None,
        classes,
        places: Vec::new(),
        path: path.to_path_buf(),
    })
}

fn item(row: &Row, fields: &TextFields, classes: &[String]) -> Result<TextItem<String>, TextError> {
    let label = match &fields.label {
        Some(field) => row.text(field)?,
        None => None,
    };
    // The number that Hugging Face's datasets have for no class.
    let is_unlabelled = |label: &str| label == "-1" && !classes.is_empty();
    Ok(TextItem {
        text: row.required(&fields.text)?,
        pair: fields.pair.as_ref().map(|field| row.required(field)).transpose()?,
        label: label.filter(|label| !(label.is_empty() || row.is_missing(label) || is_unlabelled(label))),
    })
}

/// The item of a row that lacks nothing.
fn whole(row: &Row, fields: &TextFields, classes: &[String]) -> Result<TextItem<String>, TextError> {
    let item = item(row, fields, classes)?;
    let texts = [
        (Some(&fields.text), Some(&item.text)),
        (fields.pair.as_ref(), item.pair.as_ref()),
    ];
    for (field, text) in texts.into_iter().filter_map(|(field, text)| field.zip(text)) {
        if row.is_missing(text) {
            return Err(row.error(format!("field '{field}' is '{text}', which stands for a missing text")));
        }
    }
    match (&fields.label, &item.label) {
        (Some(field), None) => Err(row.error(format!("field '{field}' holds no label"))),
        _ => Ok(item),
    }
}
