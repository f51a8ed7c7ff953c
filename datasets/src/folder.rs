//! The usual layout of VTAB: `ROOT/<task>/{images/…, train800.txt, val200.txt, test.txt}`, with lines `path label`. If
//! the first two lists are missing, `train800val200.txt` is read instead. Labels are numbers or names in classes.txt.
//! The images of VTAB's own tasks are read as its loaders read them, ignoring the EXIF orientation.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::decode::Decoder;
use crate::error::DataError;
use crate::images::{ImageSource, Images, Task};
use crate::lists::{self, Entry};
use crate::resize::Resize;
use crate::{class_folders, paths, text_file, vtab};

const TRAIN: &str = "train800.txt";
const VALID: &str = "val200.txt";
const BOTH: &str = "train800val200.txt";
const TEST: &str = "test.txt";

/// A mistyped label must not reserve a head of millions of rows.
const MOST_CLASSES: usize = 100_000;

/// Names of the task folders under `root`, that is, those with one of the lists, sorted; may be empty. A root that has
/// a list itself is the only task.
///
/// # Errors
/// A root that is missing, a folder in it that cannot be read or whose name is not UTF-8.
pub fn tasks(root: &Path) -> Result<Vec<String>, DataError> {
    let error = |e| DataError::read(root, e);
    let mut names = Vec::new();
    if has_list(root)? {
        return Ok(vec![class_folders::name(root)]);
    }
    for entry in fs::read_dir(root).map_err(error)? {
        let entry = entry.map_err(error)?;
        let name = entry.file_name();
        // Unfinished tasks of `vtab-prepare`.
        if name.as_encoded_bytes().starts_with(b".") || !has_list(&entry.path())? {
            continue;
        }
        let named = name.into_string();
        names.push(named.map_err(|_| DataError::read(&entry.path(), "its name is no UTF-8; rename it"))?);
    }
    names.sort();
    Ok(names)
}

/// True if `folder` contains a list, readable or not: an unreadable task must be reported, not skipped.
fn has_list(folder: &Path) -> Result<bool, DataError> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    for list in [TRAIN, VALID, BOTH, TEST].map(|list| folder.join(list)) {
        match fs::symlink_metadata(&list) {
            Ok(_) => return Ok(true),
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => {}
            Err(error) => return Err(DataError::read(&list, error)),
        }
    }
    Ok(false)
}

/// Task `name`, without reading its images.
///
/// # Errors
/// A missing folder or list, a malformed line, a label out of range, a line that occurs twice, fewer than two classes,
/// lists whose length differs from what vtab-prepare wrote.
pub fn task(root: &Path, name: &str, size: usize, resize: Resize) -> Result<Task, DataError> {
    let folder = match has_list(root)? {
        true => root.to_path_buf(),
        false => root.join(name),
    };
    if !folder.is_dir() {
        return Err(DataError::read(&folder, "no such task folder"));
    }
    let names = class_names(&folder)?;
    let read = |list: &str| lists::read_with(&folder.join(list), &names);
    let lists = match folder.join(TRAIN).is_file() || !folder.join(BOTH).is_file() {
        true => [(TRAIN, read(TRAIN)?), (VALID, read(VALID)?), (TEST, read(TEST)?)],
        false => {
            let mut train = read(BOTH)?;
            if train.len() <= 800 {
                let message = format!("{} lines; the first 800 train, so that it needs more", train.len());
                return Err(DataError::read(&folder.join(BOTH), message));
            }
            let valid = train.split_off(800);
            [(BOTH, train), (BOTH, valid), (TEST, read(TEST)?)]
        }
    };
    vtab::prepare::check_lengths(&folder, lists.each_ref().map(|(_, entries)| entries.len()))?;
    let classes = match names.is_empty() {
        false => names,
        true => numbered(&folder.join(lists[0].0), &lists[0].1)?,
    };
    for (part, entries) in &lists {
        lists::check_labels(&folder.join(part), entries, classes.len())?;
    }
    if classes.len() < 2 {
        let message = "every label is 0: there is one class, and a task needs two or more; name them all in classes.txt \
                       if this list lacks some";
        return Err(DataError::read(&folder.join(lists[0].0), message));
    }
    let decoder = match vtab::info(name) {
        Some(_) => Decoder::of_benchmarks(),
        None => Decoder::default(),
    };
    let mut parts = [(); 3].map(|()| Images::new(size, resize));
    for (images, (list, entries)) in parts.iter_mut().zip(&lists) {
        for entry in entries {
            let path = paths::within(&folder, &entry.path);
            let path = path.map_err(|message| DataError::Line {
                path: folder.join(list),
                line: entry.line,
                message,
            })?;
            images.push(ImageSource::File(path.into()), entry.label);
        }
    }
    let [train, valid, test] = parts;
    Ok(Task {
        name: name.into(),
        group: vtab::group(name).into(),
        classes,
        train,
        valid,
        test,
        notes: Vec::new(),
    }
    .with_decoder(decoder))
}

/// The lines of classes.txt; empty if there is no such file.
fn class_names(folder: &Path) -> Result<Vec<String>, DataError> {
    let path = folder.join("classes.txt");
    let text = text_file::read_if_there(&path).map_err(|message| DataError::read(&path, message))?;
    let Some(text) = text else { return Ok(Vec::new()) };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let names: Vec<String> = lines.map(String::from).collect();
    if names.is_empty() {
        return Err(DataError::read(&path, "it is empty; expected one class name per line"));
    }
    if names.len() > MOST_CLASSES {
        let message = format!("it names {} classes; a task has at most {MOST_CLASSES}", names.len());
        return Err(DataError::read(&path, message));
    }
    let mut seen = HashSet::new();
    if let Some(name) = names.iter().find(|name| !seen.insert(*name)) {
        let message = format!("class '{name}' has two lines");
        return Err(DataError::read(&path, message));
    }
    Ok(names)
}

/// The numbers up to the greatest training label as names: a label that occurs only in a test list could never be
/// predicted and is far more likely a mistake.
fn numbered(path: &Path, train: &[Entry]) -> Result<Vec<String>, DataError> {
    let greatest = train.iter().map(|entry| entry.label).max().unwrap_or(0);
    if greatest >= MOST_CLASSES {
        let message = format!(
            "label {greatest} is out of range; labels count from 0 to {}",
            MOST_CLASSES - 1
        );
        return Err(DataError::read(path, message));
    }
    Ok((0..=greatest).map(|class| class.to_string()).collect())
}
