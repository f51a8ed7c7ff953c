//! A user's own pictures: one sub-folder a class, with or without `train`, `val` and `test` above them.
//!
//! Where `test` is missing, a fifth of each class (rounded up) tests; where `val` is missing, a tenth of what is left
//! to train on (rounded up) validates. `val` or `validation` alone beside `train` validates, and a test part is split
//! off as above.

use std::fs;
use std::path::{Path, PathBuf};

use crate::decode;
use crate::error::DataError;
use crate::images::{Images, Picture, Task};
use crate::resize::Resize;
use crate::split::take_of_each;

type Labelled = Vec<(PathBuf, usize)>;

/// True if `root` looks like this layout: a `train` folder, or a sub-folder with a picture in it.
pub fn is_one(root: &Path) -> bool {
    root.join("train").is_dir() || subfolders(root).is_ok_and(|found| found.iter().any(|f| has_pictures(f)))
}

/// The task of the pictures under `root`, not yet read.
///
/// # Errors
/// Fewer than two classes, a class of too few pictures, a picture of a kind that is not read, a class of one part that
/// another lacks.
pub fn task(root: &Path, size: usize, resize: Resize) -> Result<Task, DataError> {
    let part = |names: &[&str]| names.iter().map(|name| root.join(name)).find(|path| path.is_dir());
    let train_root = part(&["train"]).unwrap_or(root.to_path_buf());
    let classes = class_names(&train_root)?;
    let mut train = labelled(&train_root, &classes)?;
    let given = |names: &[&str]| match (train_root == root, part(names)) {
        (false, Some(path)) => labelled(&path, &classes).map(Some),
        _ => Ok(None),
    };
    let (valid, test) = (given(&["val", "valid", "validation"])?, given(&["test"])?);
    let test = test.unwrap_or_else(|| take_of_each(&mut train, 5));
    let valid = valid.unwrap_or_else(|| take_of_each(&mut train, 10));
    for (label, class) in classes.iter().enumerate() {
        if !train.iter().any(|(_, of)| *of == label) {
            return Err(DataError::read(
                &train_root.join(class),
                "too few pictures to train, validate and test on; it takes 3 or more",
            ));
        }
    }
    let images = |labelled: Labelled| {
        let mut images = Images::new(size, resize);
        for (path, label) in labelled {
            images.push(Picture::File(path.into()), label);
        }
        images
    };
    Ok(Task {
        name: name(root),
        group: "other".into(),
        classes,
        train: images(train),
        valid: images(valid),
        test: images(test),
    })
}

/// The task's name: the folder's.
pub fn name(root: &Path) -> String {
    let full = fs::canonicalize(root).unwrap_or(root.to_path_buf());
    full.file_name()
        .map_or("pictures".into(), |name| name.to_string_lossy().into_owned())
}

fn class_names(root: &Path) -> Result<Vec<String>, DataError> {
    let folders = subfolders(root)?;
    let names: Vec<String> = folders
        .iter()
        .filter_map(|folder| Some(folder.file_name()?.to_string_lossy().into_owned()))
        .collect();
    if names.len() < 2 {
        let message = format!(
            "{} class folder in it; expected one sub-folder a class, two or more",
            names.len()
        );
        return Err(DataError::read(root, message));
    }
    Ok(names)
}

/// The pictures of every class, sorted by path.
fn labelled(root: &Path, classes: &[String]) -> Result<Labelled, DataError> {
    let mut labelled = Vec::new();
    for folder in subfolders(root)? {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let label = classes
            .binary_search(&name)
            .map_err(|_| DataError::read(&folder, "this class has no folder under train"))?;
        let found = decode::in_folder(&folder)?;
        if found.is_empty() {
            return Err(DataError::read(
                &folder,
                "there is no .jpg, .jpeg or .png picture in it",
            ));
        }
        labelled.extend(found.into_iter().map(|path| (path, label)));
    }
    Ok(labelled)
}

/// The folders in `root`, sorted, those with a leading dot left out.
fn subfolders(root: &Path) -> Result<Vec<PathBuf>, DataError> {
    let entries = fs::read_dir(root).map_err(|e| DataError::read(root, e))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    Ok(found)
}

/// True if there is a picture in `folder`, also one of a kind that is not read: the reader says so then.
fn has_pictures(folder: &Path) -> bool {
    !decode::in_folder(folder).is_ok_and(|found| found.is_empty())
}
