//! Lists with lines `path label`; the label is a number or a class name.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::error::DataError;
use crate::text_file;

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

/// Reads a list whose labels are numbers; blank lines and a byte order mark are skipped.
///
/// # Errors
/// A list that is missing or empty, a line that is not `path label`, a path that occurs twice, which would count twice
/// in a score or have two labels.
pub fn read(path: &Path) -> Result<Vec<Entry>, DataError> {
    read_with(path, &[])
}

/// Reads a list whose labels are all numbers or all names in `classes`. Names may contain spaces.
///
/// # Errors
/// Same as [`read`]; also a list that has both numbers and names, or that can be read either way with different
/// meanings.
pub fn read_with(path: &Path, classes: &[String]) -> Result<Vec<Entry>, DataError> {
    let text = text_file::read(path).map_err(|message| DataError::read(path, message))?;
    let lines: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty())
        .collect();
    if lines.is_empty() {
        return Err(DataError::Empty {
            path: path.to_path_buf(),
        });
    }
    let error = |line: usize, message: String| DataError::Line {
        path: path.to_path_buf(),
        line,
        message,
    };
    if let Some((line, text)) = lines.iter().find(|(_, text)| !text.contains(char::is_whitespace)) {
        return Err(error(*line, format!("found '{text}', expected 'path label'")));
    }
    let numbers: Vec<Option<(&str, usize)>> = lines.iter().map(|(_, line)| by_number(line)).collect();
    let known = Names::new(classes);
    let names: Vec<Option<(&str, usize)>> = lines.iter().map(|(_, line)| known.by_name(line)).collect();
    let whole = |read: &[Option<(&str, usize)>]| read.iter().all(Option::is_some);
    // A number that is not a class index does not count as a number if the names fit better.
    let in_range = classes.is_empty() || numbers.iter().flatten().all(|(_, label)| *label < classes.len());
    let chosen = match (whole(&numbers), whole(&names)) {
        (true, true) if in_range && numbers != names => {
            let at = numbers
                .iter()
                .zip(&names)
                .position(|(number, name)| number != name)
                .unwrap_or(0);
            let (number, name) = (
                numbers[at].map_or(0, |(_, label)| label),
                names[at].map_or(0, |(_, label)| label),
            );
            let message = format!(
                "every label of the list is a class number and a class name: on this line class {number} ('{}') or class \
                 {name} ('{}'); list an image of each class, or name the classes otherwise",
                classes[number], classes[name]
            );
            return Err(error(lines[at].0, message));
        }
        (_, true) => names,
        (true, false) => numbers,
        (false, false) => {
            // The first line of the less frequent kind, or the first line of neither kind.
            let count = |read: &[Option<(&str, usize)>]| read.iter().flatten().count();
            let (kind, read) = match count(&numbers) > count(&names) {
                true => ("a whole number of 0 or more", &numbers),
                false => ("a class name", &names),
            };
            let at = read.iter().position(Option::is_none).unwrap_or(0);
            let label = lines[at].1.rsplit(char::is_whitespace).next().unwrap_or_default();
            let message = match classes {
                [] => format!("label '{label}' is not a whole number of 0 or more"),
                _ => format!(
                    "label '{label}' is not {kind}, as the labels of the other lines are; a list has numbers or names \
                     throughout ({} classes: {}, …)",
                    classes.len(),
                    classes[0]
                ),
            };
            return Err(error(lines[at].0, message));
        }
    };
    let mut entries = Vec::with_capacity(lines.len());
    let mut seen = HashMap::new();
    for ((line, _), (image, label)) in lines.iter().zip(chosen.into_iter().flatten()) {
        if let Some(first) = seen.insert(image, *line) {
            let message = format!("'{image}' is already on line {first}; remove one of the lines");
            return Err(error(*line, message));
        }
        entries.push(Entry {
            path: image.to_string(),
            label,
            line: *line,
        });
    }
    Ok(entries)
}

/// The path and the number at the end of `line`.
fn by_number(line: &str) -> Option<(&str, usize)> {
    let (path, label) = line.rsplit_once(char::is_whitespace)?;
    Some((path.trim_end(), label.parse().ok()?))
}

/// Class names, so that a line need not be compared with each.
struct Names<'a> {
    labels: HashMap<&'a str, usize>,
    /// Their lengths.
    lengths: HashSet<usize>,
}

impl<'a> Names<'a> {
    fn new(classes: &'a [String]) -> Self {
        Self {
            labels: classes.iter().map(String::as_str).zip(0..).collect(),
            lengths: classes.iter().map(String::len).collect(),
        }
    }

    /// The path, and the class whose name ends `line`; the longest name if several match.
    fn by_name<'l>(&self, line: &'l str) -> Option<(&'l str, usize)> {
        let mut blanks = line.char_indices().filter(|(_, c)| c.is_whitespace());
        blanks.find_map(|(at, blank)| {
            let (path, name) = line.split_at(at + blank.len_utf8());
            if !self.lengths.contains(&name.len()) {
                return None;
            }
            let label = *self.labels.get(name)?;
            let path = path.trim_end();
            (!path.is_empty()).then_some((path, label))
        })
    }
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
                classes.saturating_sub(1)
            ),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str, classes: &[&str]) -> Result<Vec<usize>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("l.txt");
        std::fs::write(&path, text).unwrap();
        let classes: Vec<String> = classes.iter().map(|name| name.to_string()).collect();
        let entries = read_with(&path, &classes).map_err(|e| e.to_string())?;
        Ok(entries.into_iter().map(|entry| entry.label).collect())
    }

    #[test]
    fn one_reading_for_a_whole_list() {
        let classes = ["1", "2", "3"];
        assert_eq!(labels("a 0\nb 1\nc 2\n", &classes).unwrap(), [0, 1, 2]);
        assert_eq!(labels("a 1\nb 2\nc 3\n", &classes).unwrap(), [0, 1, 2]);
        let either = labels("a 1\nb 2\n", &classes).unwrap_err();
        assert!(
            either.contains("l.txt, line 1") && either.contains("class 1 ('2') or class 0 ('1')"),
            "{either}"
        );
        assert_eq!(labels("a 0\nb 1\n", &["0", "1"]).unwrap(), [0, 1]);
        let mixed = labels("a cat\nb dog\nc 1\n", &["cat", "dog"]).unwrap_err();
        assert!(mixed.contains("line 3: label '1' is not a class name"), "{mixed}");
        let unknown = labels("a 1\nb 0\nc cow\n", &["cat", "dog"]).unwrap_err();
        assert!(
            unknown.contains("line 3: label 'cow' is not a whole number"),
            "{unknown}"
        );
        assert!(
            labels("a cat\n", &[])
                .unwrap_err()
                .contains("'cat' is not a whole number")
        );
    }

    #[test]
    fn names_and_paths_may_have_spaces_and_a_mark_is_skipped() {
        let classes = ["cat", "big cat", "dog"];
        assert_eq!(
            labels(
                "\u{feff}big cat/0.png big cat\r\nmy dog.png\tcat\n\nx  dog \n",
                &classes
            )
            .unwrap(),
            [1, 0, 2]
        );
        assert_eq!(labels("\u{feff}a b.png 1\n", &[]).unwrap(), [1]);
        assert!(
            labels("catcat\n", &classes)
                .unwrap_err()
                .contains("expected 'path label'")
        );
    }
}
