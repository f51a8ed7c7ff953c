//! Images in Hugging Face's parquet files: `train-00000-of-00001.parquet` and so on, in the folder itself or in `data`
//! in it, or `train/0000.parquet` and so on, in the folder itself or in `default` in it. The columns are an image column
//! (`image`, a struct of `bytes` and `path`) and a label column (`label`, integers, names or truth values), or those that
//! the file's `huggingface` metadata declares as Image and ClassLabel (which also names the classes), or those that
//! [`Columns`] names.
//!
//! Parts: train, test, and validation (`valid`, `val`, `dev`). A missing part is split off the training images as in
//! [`crate::class_folders`]. The encoded image files stay in memory.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use parquet::data_type::ByteArray;
use parquet::record::{Field, Row};

use crate::class_folders;
use crate::error::DataError;
use crate::image_files::subfolders;
use crate::images::{ImageSource, Images, Task};
use crate::parquet_rows::ParquetFile;
use crate::resize::Resize;
use crate::split::take_of_each;

type Labelled = Vec<(ImageSource, usize)>;

/// Larger labels must be a mistake; they would allocate a head with millions of rows.
const MOST_CLASSES: usize = 100_000;

/// Names of the columns to read; if absent, those in the file's metadata or the usual names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// The column of images (`--image-field`).
    pub image: Option<String>,
    /// The column of labels (`--label-field`).
    pub label: Option<String>,
}

/// True if `root` or its `data` folder contains parquet files with training data.
pub fn is_one(root: &Path) -> bool {
    let ([train, ..], _) = files(root);
    !train.is_empty()
}

/// The task of the files under `root`, named after the folder.
///
/// # Errors
/// A file that cannot be read, lacks one of the two columns, or has a label outside the classes; a part with missing
/// numbered files; parts with different class names.
pub fn task(root: &Path, size: usize, resize: Resize, columns: &Columns) -> Result<Task, DataError> {
    let ([train_files, valid_files, test_files], left_out) = files(root);
    let mut classes = Classes::default();
    let mut notes = Vec::new();
    if let [first, ..] = &left_out[..] {
        notes.push(format!(
            "{} parquet files of other parts than train, validation and test left out, the first: {}",
            left_out.len(),
            first.display()
        ));
    }
    let mut read = |files: &[PathBuf]| match files {
        [] => Ok(None),
        files => read(files, columns, &mut classes, &mut notes).map(Some),
    };
    let (train, valid, test) = (read(&train_files)?, read(&valid_files)?, read(&test_files)?);
    let mut train = train.unwrap_or_default();
    let test = test.unwrap_or_else(|| take_of_each(&mut train, 5));
    let valid = valid.unwrap_or_else(|| take_of_each(&mut train, 10));
    if classes.names.len() < 2 || train.is_empty() || valid.is_empty() || test.is_empty() {
        let message = format!(
            "{} images to train on, {} to validate, {} to test, of {} classes; it takes at least one each, and two classes",
            train.len(),
            valid.len(),
            test.len(),
            classes.names.len()
        );
        let first = train_files.first().map_or(root, PathBuf::as_path);
        return Err(DataError::read(first, message));
    }
    let images = |labelled: Labelled| {
        let mut images = Images::new(size, resize);
        for (image, label) in labelled {
            images.push(image, label);
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
        notes,
    })
}

/// Names of the parts: training, validation and test.
const PARTS: [&[&str]; 3] = [&["train"], &["validation", "valid", "val", "dev"], &["test"]];

/// The files of the three parts, sorted, and all other parquet files. The file name determines the part: the part's
/// name, optionally with a dash and a number, and `.parquet`; or the folder, in which files are numbered.
fn files(root: &Path) -> ([Vec<PathBuf>; 3], Vec<PathBuf>) {
    for folder in [root.to_path_buf(), root.join("data")] {
        let mut found = parquet_files(&folder);
        let parts = [0, 1, 2].map(|part| {
            let of_part = found.iter().filter(|path| part_of(path) == Some(part));
            of_part.cloned().collect::<Vec<_>>()
        });
        if !parts[0].is_empty() {
            found.retain(|path| part_of(path).is_none());
            return (parts, found);
        }
    }
    for folder in [root.to_path_buf(), root.join("default")] {
        let folders = subfolders(&folder).unwrap_or_default();
        let parts = [0, 1, 2].map(|part| {
            let folder = folders.iter().find(|folder| part_of(folder) == Some(part));
            let mut found = folder.map(|folder| parquet_files(folder)).unwrap_or_default();
            // A parquet file beside class folders may be anything.
            found.retain(|path| is_numbered(path) || part_of(path) == Some(part));
            found
        });
        if !parts[0].is_empty() {
            let others = folders.iter().filter(|folder| part_of(folder).is_none());
            return (parts, others.flat_map(|folder| parquet_files(folder)).collect());
        }
    }
    Default::default()
}

/// The parquet files in `folder`, sorted.
fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "parquet"))
        .collect();
    found.sort();
    found
}

/// The part that a file or folder is named after.
fn part_of(path: &Path) -> Option<usize> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let part = stem.split_once('-').map_or(&*stem, |(part, _)| part);
    PARTS.iter().position(|names| names.contains(&part))
}

fn is_numbered(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().as_encoded_bytes();
    !stem.is_empty() && stem.iter().all(u8::is_ascii_digit)
}

/// Refuses a part with missing files, according to their names (`train-00000-of-00003.parquet`).
fn check_shards(files: &[PathBuf]) -> Result<(), DataError> {
    // The number of the file and of all files, followed by a checksum in older data.
    let numbers = |path: &PathBuf| -> Option<(usize, usize)> {
        let stem = path.file_stem()?.to_str()?;
        let mut parts = stem.split('-').skip(1);
        let (number, of, count) = (parts.next()?, parts.next()?, parts.next()?);
        (of == "of").then_some((number.parse().ok()?, count.parse().ok()?))
    };
    let numbered: Vec<(&PathBuf, usize, usize)> = files
        .iter()
        .filter_map(|path| numbers(path).map(|(number, count)| (path, number, count)))
        .collect();
    let Some((first, _, count)) = numbered.first() else {
        return Ok(());
    };
    if let Some((path, _, other)) = numbered.iter().find(|(_, _, other)| other != count) {
        let message = format!(
            "it is one of {other} files, {} one of {count}; keep those of one version",
            first.display()
        );
        return Err(DataError::read(path, message));
    }
    let known: BTreeSet<usize> = numbered.iter().map(|(_, number, _)| *number).collect();
    if known.len() != files.len() || known.len() > *count {
        let message = format!(
            "it is one of {count} files, and {} are there; take the others away",
            files.len()
        );
        return Err(DataError::read(first, message));
    }
    match (0..*count).find(|number| !known.contains(number)) {
        None => Ok(()),
        Some(number) => {
            let message = format!(
                "it is one of {count} files, of which {} there: number {number:05} is missing, fetch it too",
                match known.len() {
                    1 => "one is".to_string(),
                    several => format!("{several} are"),
                }
            );
            Err(DataError::read(first, message))
        }
    }
}

/// Class names; `None` until they are known.
#[derive(Default)]
struct Classes {
    names: Vec<String>,
    /// True if the labels of the training part are the names.
    are_labels: bool,
}

impl Classes {
    /// Adopts the class names in the metadata of the file at `path`.
    fn note(&mut self, path: &Path, names: &[String]) -> Result<(), DataError> {
        if names.is_empty() || self.names == names {
            return Ok(());
        }
        if self.names.is_empty() {
            self.names = names.to_vec();
            return Ok(());
        }
        let at = (0..).find(|at| self.names.get(*at) != names.get(*at)).unwrap_or(0);
        let named = |names: &[String]| names.get(at).map_or("none".to_string(), |name| format!("'{name}'"));
        let message = format!(
            "class {at} is {} in it and {} in the files before; all parts must name the same classes",
            named(names),
            named(&self.names)
        );
        Err(DataError::read(path, message))
    }
}

fn read(
    files: &[PathBuf],
    wanted: &Columns,
    classes: &mut Classes,
    notes: &mut Vec<String>,
) -> Result<Labelled, DataError> {
    check_shards(files)?;
    let mut labelled = Vec::new();
    // Names in the order in which they are found.
    let mut named: HashMap<String, usize> = HashMap::new();
    for path in files {
        let file = ParquetFile::open(path).map_err(|e| DataError::read(path, e))?;
        let columns = Found::of(&file, wanted).map_err(|e| DataError::read(path, e))?;
        for note in &columns.notes {
            if !notes.contains(note) {
                notes.push(note.clone());
            }
        }
        if named.is_empty() {
            classes.note(path, &columns.classes)?;
        }
        let limit = match classes.names.len() {
            0 => MOST_CLASSES,
            known => known,
        };
        // Of a name that is there twice, the first.
        let known: HashMap<&str, usize> = {
            let names = classes.names.iter().enumerate().rev();
            names.map(|(label, name)| (name.as_str(), label)).collect()
        };
        let mut number = 0;
        let taken = file.rows::<String>(&[&columns.image, &columns.label], |row| {
            number += 1;
            let place = || format!("row {number}");
            let label = match label(&row, &columns.label).map_err(|e| format!("{}: {e}", place()))? {
                Given::Number(_) if classes.are_labels || !named.is_empty() => Err(UNLIKE.to_string()),
                Given::Number(number) => usize::try_from(number)
                    .ok()
                    .filter(|label| *label < limit)
                    .ok_or(format!("is {number}; the classes count from 0 to {}", limit - 1)),
                Given::Name(_) if classes.names.is_empty() && named.is_empty() && !labelled.is_empty() => {
                    Err(UNLIKE.to_string())
                }
                Given::Name(name) if classes.names.is_empty() => {
                    let next = named.len();
                    match named.len() > MOST_CLASSES {
                        true => Err(format!("has more than {MOST_CLASSES} names")),
                        false => Ok(*named.entry(name).or_insert(next)),
                    }
                }
                Given::Name(name) => {
                    let found = known.get(name.as_str()).copied();
                    found.ok_or_else(|| format!("is '{name}', a class that the training part lacks"))
                }
            };
            let label = label.map_err(|e| format!("{}: field '{}' {e}", place(), columns.label))?;
            let bytes = bytes(row, &columns.image).map_err(|e| format!("{}: {e}", place()))?;
            let name = PathBuf::from(format!("{}, row {number}", path.display()));
            let image = ImageSource::Encoded {
                name: name.into(),
                bytes: bytes.into(),
            };
            labelled.push((image, label));
            Ok(())
        });
        taken.map_err(|e| DataError::read(path, e))?;
    }
    if !named.is_empty() {
        classes.are_labels = true;
        classes.names = named.keys().cloned().collect();
        classes.names.sort();
        let mut sorted = vec![0; named.len()];
        for (label, name) in classes.names.iter().enumerate() {
            sorted[named[name]] = label;
        }
        labelled.iter_mut().for_each(|(_, label)| *label = sorted[*label]);
    }
    if classes.names.is_empty() {
        // The training part is read first, because a label that it lacks could never be predicted.
        let greatest = labelled.iter().map(|(_, label)| *label).max().unwrap_or(0);
        classes.names = (0..=greatest).map(|class| class.to_string()).collect();
    }
    Ok(labelled)
}

/// The columns to read in a file, and the class names if the file has them.
struct Found {
    image: String,
    label: String,
    classes: Vec<String>,
    notes: Vec<String>,
}

impl Found {
    fn of(file: &ParquetFile, wanted: &Columns) -> Result<Self, String> {
        let features = file.features();
        let mut notes = Vec::new();
        // The requested column; otherwise the first one of that kind; `usual` if the file has no metadata.
        let mut column = |asked: &Option<String>, flag: &str, kind: &str, usual: &str| -> Result<String, String> {
            let noted: Vec<&str> = features
                .iter()
                .filter(|(_, feature)| feature["_type"] == kind)
                .map(|(name, _)| name.as_str())
                .collect();
            let name = asked.as_deref().or(noted.first().copied()).unwrap_or(usual);
            if !file.columns().contains(&name) {
                return Err(format!(
                    "it has no column '{name}'; found: {} ({flag} names it)",
                    file.columns().join(", ")
                ));
            }
            if asked.is_none() && noted.len() > 1 {
                notes.push(format!(
                    "of the columns {} the first is read; {flag} chooses another",
                    noted.join(", ")
                ));
            }
            Ok(name.to_string())
        };
        let image = column(&wanted.image, "--image-field", "Image", "image")?;
        let label = column(&wanted.label, "--label-field", "ClassLabel", "label")?;
        Ok(Self {
            classes: file.class_names(&label),
            image,
            label,
            notes,
        })
    }
}

/// A label as it stands in a file.
enum Given {
    Number(i64),
    Name(String),
}

/// What is wrong with a label that is a number where others are names.
const UNLIKE: &str = "is a number in some of the files and a name in others";

fn label(row: &Row, name: &str) -> Result<Given, String> {
    let field = row.get_column_iter().find(|(column, _)| *column == name);
    let field = field.map(|(_, field)| field);
    let text = |bytes: &ByteArray| std::str::from_utf8(bytes.data()).map(String::from).ok();
    Ok(match field {
        Some(Field::Byte(value)) => Given::Number((*value).into()),
        Some(Field::Short(value)) => Given::Number((*value).into()),
        Some(Field::Int(value)) => Given::Number((*value).into()),
        Some(Field::Long(value)) => Given::Number(*value),
        Some(Field::UByte(value)) => Given::Number((*value).into()),
        Some(Field::UShort(value)) => Given::Number((*value).into()),
        Some(Field::UInt(value)) => Given::Number((*value).into()),
        Some(Field::Bool(value)) => Given::Name(value.to_string()),
        Some(Field::Str(name)) => Given::Name(name.clone()),
        Some(Field::Bytes(bytes)) if text(bytes).is_some() => Given::Name(text(bytes).unwrap_or_default()),
        other => {
            let found = other.map_or("missing".into(), Field::to_string);
            return Err(format!(
                "field '{name}' is {found}, expected a whole number or a class name"
            ));
        }
    })
}

/// The image's file.
fn bytes(row: Row, name: &str) -> Result<Vec<u8>, String> {
    let field = row.into_columns().into_iter().find(|(column, _)| column == name);
    match field.map(|(_, field)| field) {
        Some(Field::Bytes(bytes)) => Ok(bytes.data().to_vec()),
        Some(Field::Group(image)) => {
            let mut columns = image.into_columns().into_iter();
            match columns.find(|(column, _)| column == "bytes") {
                Some((_, Field::Bytes(bytes))) => Ok(bytes.data().to_vec()),
                _ => Err(format!(
                    "field '{name}' holds no bytes; the image lies elsewhere, write the dataset with its images in it"
                )),
            }
        }
        _ => Err(format!(
            "field '{name}' is no image; expected bytes, or a struct that has them"
        )),
    }
}
