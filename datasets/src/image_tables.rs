//! Images whose labels stand in a table beside them, as in Hugging Face's ImageFolder: `metadata.csv`, `metadata.jsonl`
//! or `metadata.parquet`, with a column `file_name` (or one that ends in `_file_name`) of paths that start at the table,
//! and a column of labels (`label`), or those that [`Columns`] names.
//!
//! If there is a folder `train`, it and those of validation and test are the parts, with tables of their own or one above
//! them. A part without rows is split off the training images as in [`crate::class_folders`].

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::class_folders::{self, note, part_of};
use crate::error::DataError;
use crate::image_files::{self, subfolders};
use crate::images::{ImageSource, Images, Task};
use crate::parquet_images::Columns;
use crate::paths;
use crate::resize::Resize;
use crate::split::take_of_each;
use crate::texts::{self, Classes, RawTexts, TextFields, rows};

/// Names of the tables.
const TABLES: [&str; 3] = ["metadata.csv", "metadata.jsonl", "metadata.parquet"];

/// The column of paths.
const FILE: &str = "file_name";

/// What the names of other columns of paths end in.
const OF_FILES: &str = "_file_name";

/// The table directly in `folder`.
pub(crate) fn in_folder(folder: &Path) -> Option<PathBuf> {
    TABLES.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

/// True if a part of `root` has a table of its own.
pub(crate) fn is_in_parts(root: &Path) -> bool {
    let mut folders = subfolders(root).unwrap_or_default().into_iter();
    folders.any(|folder| part_of(&folder).is_some() && in_folder(&folder).is_some())
}

/// True if two readings of the same images have the same classes, whatever their names.
pub(crate) fn agree(first: &Task, second: &Task) -> bool {
    fn labels(task: &Task) -> impl Iterator<Item = (&Path, usize)> {
        [&task.train, &task.valid, &task.test].into_iter().flat_map(|part| {
            let images = part.sources.iter().zip(&part.labels);
            images.filter_map(|(image, label)| Some((image.path()?, *label)))
        })
    }
    let second: HashMap<&Path, usize> = labels(second).collect();
    let both = labels(first).filter_map(|(path, label)| Some((label, *second.get(path)?)));
    let pairs: BTreeSet<(usize, usize)> = both.collect();
    let of_first: BTreeSet<usize> = pairs.iter().map(|(first, _)| *first).collect();
    let of_second: BTreeSet<usize> = pairs.iter().map(|(_, second)| *second).collect();
    !pairs.is_empty() && of_first.len() == pairs.len() && of_second.len() == pairs.len()
}

/// The parts of a folder.
struct Parts(Vec<(PathBuf, usize)>);

impl Parts {
    fn of(root: &Path) -> Result<Self, DataError> {
        let folders = subfolders(root)?.into_iter();
        let parts: Vec<(PathBuf, usize)> = folders
            .filter_map(|folder| part_of(&folder).map(|part| (folder, part)))
            .collect();
        match parts.iter().any(|(_, part)| *part == 0) {
            true => Ok(Self(parts)),
            false if is_in_parts(root) => Err(DataError::read(
                root,
                "no folder in it is named train; expected one to train on",
            )),
            false => Ok(Self(Vec::new())),
        }
    }

    /// The part that a file belongs to.
    fn part(&self, path: &Path) -> Option<usize> {
        match &self.0[..] {
            [] => Some(0),
            parts => parts
                .iter()
                .find(|(folder, _)| path.starts_with(folder))
                .map(|(_, part)| *part),
        }
    }
}

/// An image with a row.
struct Row {
    path: PathBuf,
    class: String,
    /// Which table, and which of its rows.
    place: (usize, usize),
}

/// The task of the images under `root`; the images are not read yet.
///
/// # Errors
/// A table that cannot be read or lacks one of the two columns, a row whose file is missing, lies elsewhere or has
/// another row, a class that the training part lacks, fewer than two classes, a class with too few images.
pub fn task(root: &Path, size: usize, resize: Resize, columns: &Columns) -> Result<Task, DataError> {
    let parts = Parts::of(root)?;
    let found = image_files::within(root)?;
    let is_table = |path: &&PathBuf| {
        TABLES
            .iter()
            .any(|name| path.file_name().is_some_and(|file| file == *name))
    };
    let is_of_part = |path: &&PathBuf| path.parent() == Some(root) || parts.part(path).is_some();
    let mut notes = Vec::new();
    let mut tables = Vec::new();
    let (mut rows, mut outside) = ([(); 3].map(|()| Vec::new()), Vec::new());
    let mut seen = HashSet::new();
    for path in found.others.iter().filter(is_table).filter(is_of_part) {
        let table = read(path, columns, &mut notes)?;
        for row in listed(path, &table, tables.len())? {
            if !seen.insert(row.path.clone()) {
                let message = format!("'{}' already has a row; remove one of them", row.path.display());
                return Err(table.error(row.place.1, message).into());
            }
            match parts.part(&row.path) {
                Some(part) => rows[part].push(row),
                None => outside.push(row.path),
            }
        }
        tables.push(table);
    }
    note(&mut notes, "image of no part", "images of no part", &outside);
    let unlisted: Vec<PathBuf> = found.images.into_iter().filter(|path| !seen.contains(path)).collect();
    let without = ["image without a row in metadata", "images without a row in metadata"];
    note(&mut notes, without[0], without[1], &unlisted);
    let classes = classes(&tables, &rows[0]);
    let [train, valid, test] = rows;
    let mut train = with_labels(&tables, train, &classes)?;
    let valid = with_labels(&tables, valid, &classes)?;
    let test = with_labels(&tables, test, &classes)?;
    let trained: BTreeSet<usize> = train.iter().map(|(_, label)| *label).collect();
    let or_taken = |given: Vec<_>, parts: usize, train: &mut Vec<_>| match given.is_empty() {
        true => take_of_each(train, parts),
        false => given,
    };
    let test = or_taken(test, 5, &mut train);
    let valid = or_taken(valid, 10, &mut train);
    if trained.len() < 2 {
        let message = format!(
            "its tables name {} classes to train on; it takes two or more",
            trained.len()
        );
        return Err(DataError::read(root, message));
    }
    let left: HashSet<usize> = train.iter().map(|(_, label)| *label).collect();
    if let Some(class) = trained.iter().find(|class| !left.contains(class)) {
        let message = format!(
            "class '{}' has too few images to train, validate and test on; it takes 3 or more",
            classes[*class]
        );
        return Err(DataError::read(root, message));
    }
    let images = |labelled: Vec<(PathBuf, usize)>| {
        let mut images = Images::new(size, resize);
        for (path, label) in labelled {
            images.push(ImageSource::File(path.into()), label);
        }
        images
    };
    Ok(Task {
        name: class_folders::name(root),
        group: "other".into(),
        classes,
        train: images(train),
        valid: images(valid),
        test: images(test),
        notes,
    })
}

/// Files and labels of the table at `path`.
fn read(path: &Path, columns: &Columns, notes: &mut Vec<String>) -> Result<RawTexts, DataError> {
    let rows = rows::read(path, &[FILE])?;
    let (mut names, mut seen): (Vec<&str>, HashSet<&str>) = Default::default();
    let mut known: &[String] = &[];
    for row in &rows {
        // Most rows share them.
        if !std::ptr::eq(known, row.columns()) {
            known = row.columns();
            names.extend(known.iter().map(String::as_str).filter(|name| seen.insert(*name)));
        }
    }
    let missing = |name: &str, flag: &str| {
        let message = format!(
            "it has no column '{name}'; found: {} ({flag} names it)",
            names.join(", ")
        );
        DataError::read(path, message)
    };
    let is_meant = |name: &&str| match columns.image.as_deref() {
        // Hugging Face's datasets call the column of images as that of files without the ending.
        Some(asked) => {
            *name == asked || name.strip_suffix(OF_FILES) == Some(asked) || (asked == "image" && *name == FILE)
        }
        None => *name == FILE || (name.ends_with(OF_FILES) && !seen.contains(FILE)),
    };
    let of_files: Vec<&str> = names.iter().copied().filter(is_meant).collect();
    let asked = columns.image.as_deref();
    let file = of_files
        .first()
        .ok_or_else(|| missing(asked.unwrap_or(FILE), "--image-field"))?;
    if asked.is_none() && of_files.len() > 1 {
        let said = format!(
            "of the columns {} the first is read; --image-field chooses another",
            of_files.join(", ")
        );
        if !notes.contains(&said) {
            notes.push(said);
        }
    }
    let label = columns.label.as_deref().unwrap_or("label");
    if !seen.contains(label) {
        return Err(missing(label, "--label-field"));
    }
    let fields = TextFields {
        text: file.to_string(),
        pair: None,
        label: Some(label.into()),
    };
    drop(rows);
    let table = texts::read_labelled(path, &fields)?;
    notes.extend(table.describe_left_out());
    Ok(table)
}

/// The images that a table lists.
fn listed(path: &Path, table: &RawTexts, number: usize) -> Result<Vec<Row>, DataError> {
    let folder = path.parent().unwrap_or(path);
    let (mut listed, mut missing) = (Vec::new(), Vec::new());
    for (index, (item, class)) in table.items.iter().zip(table.class_labels()).enumerate() {
        // Tables that were written on Windows.
        let file = item.text.replace('\\', "/");
        let path = paths::within(folder, &file).map_err(|message| table.error(index, message))?;
        if !path.is_file() {
            missing.push((index, file));
            continue;
        }
        listed.push(Row {
            path,
            class: class.unwrap_or_default(),
            place: (number, index),
        });
    }
    let Some((index, file)) = missing.first() else {
        return Ok(listed);
    };
    let more = match missing.len() {
        1 => String::new(),
        2 => ", nor is the file of 1 more row".into(),
        count => format!(", nor are the files of {} more rows", count - 1),
    };
    let message = format!("'{}' is not there{more}; paths start at the table", file.escape_debug());
    Err(table.error(*index, message).into())
}

/// The classes that the tables name if they agree, else those of the training rows.
fn classes(tables: &[RawTexts], rows: &[Row]) -> Vec<String> {
    let used: BTreeSet<usize> = rows.iter().map(|row| row.place.0).collect();
    let named: BTreeSet<&[String]> = used.iter().map(|table| tables[*table].named_classes()).collect();
    match named.first() {
        Some(names) if named.len() == 1 && !names.is_empty() => names.to_vec(),
        _ => texts::sorted_names(rows.iter().map(|row| row.class.clone()).collect()),
    }
}

/// The rows, sorted by path, with the numbers of their classes.
fn with_labels(tables: &[RawTexts], rows: Vec<Row>, classes: &[String]) -> Result<Vec<(PathBuf, usize)>, DataError> {
    let classes = Classes::new(classes);
    let mut labelled = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(label) = classes.find(&row.class) else {
            let (table, index) = row.place;
            let message = format!("label '{}' is a class that the training part lacks", row.class);
            return Err(tables[table].error(index, message).into());
        };
        labelled.push((row.path, label));
    }
    labelled.sort();
    Ok(labelled)
}
