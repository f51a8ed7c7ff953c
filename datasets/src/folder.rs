//! The layout VTAB users have: `ROOT/<task>/{images/…, train800.txt, val200.txt, test.txt}`, lines `path label`.
//! `train800val200.txt` stands in for the first two lists where they are missing.

use std::fs;
use std::path::Path;

use crate::error::DataError;
use crate::images::{Images, Picture, Task};
use crate::lists::{self, Entry};
use crate::resize::Resize;
use crate::vtab;

const TRAIN: &str = "train800.txt";
const VALID: &str = "val200.txt";
const BOTH: &str = "train800val200.txt";
const TEST: &str = "test.txt";

/// Names of the task folders under `root`, sorted; none if there is none.
///
/// # Errors
/// A root that is missing.
pub fn tasks(root: &Path) -> Result<Vec<String>, DataError> {
    let mut names: Vec<String> = fs::read_dir(root)
        .map_err(|e| DataError::read(root, e))?
        .flatten()
        .filter(|entry| [TRAIN, BOTH].iter().any(|list| entry.path().join(list).is_file()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        // What `vtab-prepare` has not finished.
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    Ok(names)
}

/// Task `name`, its pictures not yet read.
///
/// # Errors
/// A missing folder or list, a malformed line, a label out of range, a line that occurs twice.
pub fn task(root: &Path, name: &str, size: usize, resize: Resize) -> Result<Task, DataError> {
    let folder = root.join(name);
    if !folder.is_dir() {
        return Err(DataError::read(&folder, "no such task folder"));
    }
    let lists = match folder.join(TRAIN).is_file() || !folder.join(BOTH).is_file() {
        true => [
            (TRAIN, lists::read(&folder.join(TRAIN))?),
            (VALID, lists::read(&folder.join(VALID))?),
            (TEST, lists::read(&folder.join(TEST))?),
        ],
        false => {
            let mut train = lists::read(&folder.join(BOTH))?;
            if train.len() <= 800 {
                let message = format!("{} lines; the first 800 train, so that it needs more", train.len());
                return Err(DataError::read(&folder.join(BOTH), message));
            }
            let valid = train.split_off(800);
            [(BOTH, train), (BOTH, valid), (TEST, lists::read(&folder.join(TEST))?)]
        }
    };
    let classes = class_names(&folder, &lists[0].1)?;
    for (part, entries) in &lists {
        lists::check_labels(&folder.join(part), entries, classes.len())?;
    }
    let [train, valid, test] = lists.map(|(_, entries)| {
        let mut images = Images::new(size, resize);
        for entry in entries {
            images.push(Picture::File(folder.join(&entry.path).into()), entry.label);
        }
        images
    });
    Ok(Task {
        name: name.into(),
        group: vtab::group(name).into(),
        classes,
        train,
        valid,
        test,
    })
}

/// The lines of classes.txt if there is one, otherwise the numbers up to the greatest training label: a label
/// that occurs in a test list alone could never be predicted and is far more likely a mistake.
fn class_names(folder: &Path, train: &[Entry]) -> Result<Vec<String>, DataError> {
    let path = folder.join("classes.txt");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let names: Vec<String> = text
                .lines()
                .map(|line| line.trim().to_string())
                .filter(|line| !line.is_empty())
                .collect();
            if names.is_empty() {
                return Err(DataError::read(&path, "it is empty; expected a class name a line"));
            }
            Ok(names)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let greatest = train.iter().map(|entry| entry.label).max().unwrap_or(0);
            // A mistyped label must not reserve a head of millions of rows.
            if greatest >= 100_000 {
                let message = format!("label {greatest} is out of range; labels count from 0 to 99999");
                return Err(DataError::read(&folder.join(TRAIN), message));
            }
            Ok((0..=greatest).map(|class| class.to_string()).collect())
        }
        Err(error) => Err(DataError::read(&path, error)),
    }
}
