//! Lists of lines `path label`.

use std::collections::HashMap;
use std::path::Path;

use crate::error::DataError;

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path, relative to the task's folder.
    pub path: String,
    /// Label, from 0.
    pub label: usize,
    /// Line number, from 1.
    pub line: usize,
}

/// Reads a list; blank lines are skipped.
///
/// # Errors
/// A list that is missing or has no line, a line that is not `path label`, a path that occurs twice: it would count
/// twice in a score, or have two labels.
pub fn read(path: &Path) -> Result<Vec<Entry>, DataError> {
    let text = std::fs::read_to_string(path).map_err(|e| DataError::read(path, e))?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut seen = HashMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let number = index + 1;
        let error = |message: String| DataError::Line {
            path: path.to_path_buf(),
            line: number,
            message,
        };
        let (picture, label) = line
            .trim()
            .rsplit_once(char::is_whitespace)
            .ok_or_else(|| error(format!("found '{line}', expected 'path label'")))?;
        let picture = picture.trim();
        let label = label
            .parse()
            .map_err(|_| error(format!("label '{label}' is not a whole number of 0 or more")))?;
        if let Some(first) = seen.insert(picture, number) {
            return Err(error(format!(
                "'{picture}' is already on line {first}; remove one of the lines"
            )));
        }
        entries.push(Entry {
            path: picture.to_string(),
            label,
            line: number,
        });
    }
    if entries.is_empty() {
        return Err(DataError::Empty {
            path: path.to_path_buf(),
        });
    }
    Ok(entries)
}

/// Checks that every label of the list at `path` is below `classes`.
///
/// # Errors
/// The first line whose label is not.
pub fn check_labels(path: &Path, entries: &[Entry], classes: usize) -> Result<(), DataError> {
    match entries.iter().find(|entry| entry.label >= classes) {
        Some(entry) => Err(DataError::Line {
            path: path.to_path_buf(),
            line: entry.line,
            message: format!(
                "label {} is out of range; the task has {classes} classes (0 to {})",
                entry.label,
                classes - 1
            ),
        }),
        None => Ok(()),
    }
}
