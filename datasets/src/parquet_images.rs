//! Pictures in Hugging Face's parquet files: `train-00000-of-00001.parquet` and so on, in the folder itself or in `data`
//! in it. A column of pictures (`image`, a struct of `bytes` and `path`) and one of labels (`label`, whole numbers), or
//! those that the file's own `huggingface` note calls an Image and a ClassLabel, which also names the classes.
//!
//! Parts: train, test, and validation (`valid`, `val`, `dev`). A part that is missing is split off the training
//! pictures as for [`crate::class_folders`]. The pictures' files stay in memory, not decoded.

use std::fs;
use std::path::{Path, PathBuf};

use parquet::record::{Field, Row};
use serde_json::Value;

use crate::class_folders;
use crate::error::DataError;
use crate::images::{Images, Picture, Task};
use crate::parquet_rows::ParquetFile;
use crate::resize::Resize;
use crate::split::take_of_each;

type Labelled = Vec<(Picture, usize)>;

/// Labels beyond this are a mistake: they would reserve a head of millions of rows.
const MOST_CLASSES: usize = 100_000;

/// True if there are parquet files to train on in `root`, or in `data` in it.
pub fn is_one(root: &Path) -> bool {
    !files(root, &["train"]).is_empty()
}

/// The task of the files under `root`, named as the folder is.
///
/// # Errors
/// A file that cannot be read, lacks one of the two columns, or holds a label that is none of the classes.
pub fn task(root: &Path, size: usize, resize: Resize) -> Result<Task, DataError> {
    let train_files = files(root, &["train"]);
    let mut classes = Classes::default();
    let mut train = read(&train_files, &mut classes)?;
    if classes.names.is_empty() {
        let greatest = train.iter().map(|(_, label)| *label).max().unwrap_or(0);
        classes.names = (0..=greatest).map(|class| class.to_string()).collect();
    }
    let mut part = |names: &[&str]| match files(root, names) {
        files if files.is_empty() => Ok(None),
        files => read(&files, &mut classes).map(Some),
    };
    let (valid, test) = (part(&["validation", "valid", "val", "dev"])?, part(&["test"])?);
    let test = test.unwrap_or_else(|| take_of_each(&mut train, 5));
    let valid = valid.unwrap_or_else(|| take_of_each(&mut train, 10));
    if classes.names.len() < 2 || train.is_empty() || valid.is_empty() || test.is_empty() {
        let message = format!(
            "{} pictures to train on, {} to validate, {} to test, of {} classes; it takes at least one each, and two classes",
            train.len(),
            valid.len(),
            test.len(),
            classes.names.len()
        );
        return Err(DataError::read(&train_files[0], message));
    }
    let images = |labelled: Labelled| {
        let mut images = Images::new(size, resize);
        for (picture, label) in labelled {
            images.push(picture, label);
        }
        images
    };
    Ok(Task {
        name: class_folders::name(root),
        group: "other".into(),
        classes: classes.names,
        train: images(train),
        valid: images(valid),
        test: images(test),
    })
}

/// The files of a part, sorted: its name, alone or with a number after a dash, and `.parquet`.
fn files(root: &Path, parts: &[&str]) -> Vec<PathBuf> {
    let is_of_part = |path: &PathBuf| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let part = stem.split_once('-').map_or(&*stem, |(part, _)| part);
        path.extension().is_some_and(|extension| extension == "parquet") && parts.contains(&part)
    };
    for folder in [root.to_path_buf(), root.join("data")] {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_of_part).collect();
        if !found.is_empty() {
            found.sort();
            return found;
        }
    }
    Vec::new()
}

/// Names of the classes; none until they are known.
#[derive(Default)]
struct Classes {
    names: Vec<String>,
}

fn read(files: &[PathBuf], classes: &mut Classes) -> Result<Labelled, DataError> {
    let mut labelled = Vec::new();
    for path in files {
        let file = ParquetFile::open(path).map_err(|e| DataError::read(path, e))?;
        let columns = Columns::of(&file).map_err(|e| DataError::read(path, e))?;
        if classes.names.is_empty() {
            classes.names = columns.classes.clone();
        }
        let limit = match classes.names.len() {
            0 => MOST_CLASSES,
            known => known,
        };
        let mut number = 0;
        let taken = file.rows::<String>(&[&columns.image, &columns.label], |row| {
            number += 1;
            let place = || format!("row {number}");
            let label = label(&row, &columns.label).map_err(|e| format!("{}: {e}", place()))?;
            let label = usize::try_from(label)
                .ok()
                .filter(|label| *label < limit)
                .ok_or(format!(
                    "{}: field '{}' is {label}; the classes count from 0 to {}",
                    place(),
                    columns.label,
                    limit - 1
                ))?;
            let bytes = bytes(row, &columns.image).map_err(|e| format!("{}: {e}", place()))?;
            let name = PathBuf::from(format!("{}, row {number}", path.display()));
            let picture = Picture::Encoded {
                name: name.into(),
                bytes: bytes.into(),
            };
            labelled.push((picture, label));
            Ok(())
        });
        taken.map_err(|e| DataError::read(path, e))?;
    }
    Ok(labelled)
}

/// The columns that matter, and the names of the classes if the file has them.
struct Columns {
    image: String,
    label: String,
    classes: Vec<String>,
}

impl Columns {
    fn of(file: &ParquetFile) -> Result<Self, String> {
        let note: Value = file
            .note("huggingface")
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let features = note["info"]["features"].as_object();
        // The first column of that kind; `usual` where the file has no note.
        let column = |kind: &str, usual: &str| -> Result<String, String> {
            let mut named = features.into_iter().flatten();
            let noted = named.find(|(_, feature)| feature["_type"] == kind);
            let name = noted.map_or(usual, |(name, _)| name.as_str());
            match file.columns().contains(&name) {
                true => Ok(name.to_string()),
                false => Err(format!(
                    "it has no column '{name}'; found: {}",
                    file.columns().join(", ")
                )),
            }
        };
        let (image, label) = (column("Image", "image")?, column("ClassLabel", "label")?);
        let names = features.and_then(|features| features.get(&label)?["names"].as_array());
        let names = names.into_iter().flatten().filter_map(Value::as_str);
        Ok(Self {
            classes: names.map(String::from).collect(),
            image,
            label,
        })
    }
}

fn label(row: &Row, name: &str) -> Result<i64, String> {
    let field = row.get_column_iter().find(|(column, _)| *column == name);
    match field.map(|(_, field)| field) {
        Some(Field::Byte(value)) => Ok((*value).into()),
        Some(Field::Short(value)) => Ok((*value).into()),
        Some(Field::Int(value)) => Ok((*value).into()),
        Some(Field::Long(value)) => Ok(*value),
        Some(Field::UByte(value)) => Ok((*value).into()),
        Some(Field::UShort(value)) => Ok((*value).into()),
        Some(Field::UInt(value)) => Ok((*value).into()),
        other => Err(format!(
            "field '{name}' is {}, expected a whole number",
            other.map_or("missing".into(), Field::to_string)
        )),
    }
}

/// The picture's file.
fn bytes(row: Row, name: &str) -> Result<Vec<u8>, String> {
    let field = row.into_columns().into_iter().find(|(column, _)| column == name);
    match field.map(|(_, field)| field) {
        Some(Field::Bytes(bytes)) => Ok(bytes.data().to_vec()),
        Some(Field::Group(picture)) => {
            let mut columns = picture.into_columns().into_iter();
            match columns.find(|(column, _)| column == "bytes") {
                Some((_, Field::Bytes(bytes))) => Ok(bytes.data().to_vec()),
                _ => Err(format!(
                    "field '{name}' holds no bytes; the picture lies elsewhere, write the data set with its pictures in it"
                )),
            }
        }
        _ => Err(format!(
            "field '{name}' is no picture; expected bytes, or a struct that has them"
        )),
    }
}
