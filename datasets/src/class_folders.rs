//! A user's own images: one sub-folder per class, with or without `train`, `val` and `test` above them.
//!
//! If `test` is missing, a fifth of each class (rounded up) is used for testing; if `val` is missing, a tenth of the
//! remaining training images (rounded up) is used for validation. If there is only `val` or `validation` besides
//! `train`, it is used for validation, and a test part is split off as above. Subfolders of a class folder belong to
//! the class. A folder `train` that directly contains images is a class, unless all folders beside it are named like
//! parts too; if they all are, `Training`, `test_set` and the like name them as well.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::image_files::{self, Found, subfolders};
use crate::images::{ImageSource, Images, Task};
use crate::resize::Resize;
use crate::split::take_of_each;

type Labelled = Vec<(PathBuf, usize)>;

/// Names of the parts' folders in lower case, the usual name first.
const PARTS: [&[&str]; 3] = [
    &["train", "training", "train_set", "training_set"],
    &["val", "valid", "validation", "val_set", "valid_set", "validation_set"],
    &["test", "testing", "test_set", "testing_set"],
];

/// True if `root` looks like this layout: a `train` folder, or a sub-folder with an image in it.
pub fn is_one(root: &Path) -> bool {
    root.join("train").is_dir() || subfolders(root).is_ok_and(|found| found.iter().any(|f| has_images(f)))
}

/// True if the folders under `root` name two classes or more, each with images.
pub(crate) fn is_laid_out(root: &Path) -> bool {
    let train = match parts(root) {
        Ok(Some([Some(train), ..])) => train,
        Ok(_) => root.to_path_buf(),
        Err(_) => return false,
    };
    subfolders(&train).is_ok_and(|classes| classes.len() > 1 && classes.iter().all(|class| has_images(class)))
}

/// The part that `folder` is named after: training, validation or test.
pub(crate) fn part_of(folder: &Path) -> Option<usize> {
    PARTS.iter().position(|names| rank(folder, names).is_some())
}

/// Where the name of `folder` stands in `names`.
fn rank(folder: &Path, names: &[&str]) -> Option<usize> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = name.replace(['-', ' '], "_");
    names.iter().position(|known| *known == name)
}

/// The folders of the parts: training, validation and test.
type Parts = [Option<PathBuf>; 3];

/// The folders under `root` that are parts, each with class folders in it; `None` if they are classes.
///
/// # Errors
/// Folders that are all named like parts, but have no training part or no class folders.
fn parts(root: &Path) -> Result<Option<Parts>, DataError> {
    let folders = subfolders(root)?;
    let part = |names: &[&str]| {
        let named = folders.iter().filter(|folder| rank(folder, names).is_some());
        named.min_by_key(|folder| rank(folder, names)).cloned()
    };
    if folders.is_empty() || !folders.iter().all(|folder| part_of(folder).is_some()) {
        let train = root.join("train");
        let is_parted = train.is_dir() && image_files::in_folder(&train)?.is_empty();
        let exact = |names: &[&str]| names.iter().map(|name| root.join(name)).find(|path| path.is_dir());
        return Ok(is_parted.then(|| PARTS.map(exact)));
    }
    let found = PARTS.map(part);
    let Some(train) = &found[0] else {
        let hold_classes = folders
            .iter()
            .all(|folder| subfolders(folder).is_ok_and(|found| !found.is_empty()));
        return match hold_classes {
            true => Err(DataError::read(
                root,
                "no folder in it is named train; expected one to train on",
            )),
            false => Ok(None),
        };
    };
    if subfolders(train)?.is_empty() {
        return Err(DataError::read(
            train,
            "no class folder in it; expected one sub-folder per class, or a metadata.csv with the columns file_name and \
             label",
        ));
    }
    Ok(Some(found))
}

/// The task of the images under `root`; the images are not read yet.
///
/// # Errors
/// Fewer than two classes, a class with too few images, an image in an unsupported format, a class that is missing in
/// one of the parts.
pub fn task(root: &Path, size: usize, resize: Resize) -> Result<Task, DataError> {
    let parts = parts(root)?;
    let is_parted = parts.is_some();
    let [train_root, valid_root, test_root] = parts.unwrap_or_default();
    let train_root = train_root.unwrap_or_else(|| root.to_path_buf());
    let mut notes = Vec::new();
    if is_parted {
        let used = [Some(&train_root), valid_root.as_ref(), test_root.as_ref()];
        let other = |path: &PathBuf| !used.contains(&Some(path)) && has_images(path);
        let left_out: Vec<PathBuf> = subfolders(root)?.into_iter().filter(other).collect();
        note(
            &mut notes,
            "folder of images beside train",
            "folders of images beside train",
            &left_out,
        );
    }
    let classes = class_names(&train_root)?;
    let loose = image_files::in_folder(&train_root)?;
    note(
        &mut notes,
        "image in no class folder",
        "images in no class folder",
        &loose,
    );
    let mut others = Vec::new();
    let mut train = labelled(&train_root, &classes, &mut others)?;
    let mut given = |part: Option<PathBuf>| part.map(|path| labelled(&path, &classes, &mut others)).transpose();
    let (valid, test) = (given(valid_root)?, given(test_root)?);
    note(&mut notes, "file that is no image", "files that are no images", &others);
    let test = test.unwrap_or_else(|| take_of_each(&mut train, 5));
    let valid = valid.unwrap_or_else(|| take_of_each(&mut train, 10));
    let trained: HashSet<usize> = train.iter().map(|(_, label)| *label).collect();
    for (label, class) in classes.iter().enumerate() {
        if !trained.contains(&label) {
            return Err(DataError::read(
                &train_root.join(class),
                "too few images to train, validate and test on; it takes 3 or more",
            ));
        }
    }
    let images = |labelled: Labelled| {
        let mut images = Images::new(size, resize);
        for (path, label) in labelled {
            images.push(ImageSource::File(path.into()), label);
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
        notes,
    })
}

/// Adds a note that the files in `left_out` are not read, with the first path.
pub(crate) fn note(notes: &mut Vec<String>, one: &str, many: &str, left_out: &[PathBuf]) {
    match left_out {
        [] => {}
        [path] => notes.push(format!("1 {one} left out: {}", path.display())),
        [path, ..] => notes.push(format!(
            "{} {many} left out, the first: {}",
            left_out.len(),
            path.display()
        )),
    }
}

/// The task's name: the folder's.
pub fn name(root: &Path) -> String {
    let full = fs::canonicalize(root).unwrap_or(root.to_path_buf());
    full.file_name()
        .map_or("images".into(), |name| name.to_string_lossy().into_owned())
}

fn class_names(root: &Path) -> Result<Vec<String>, DataError> {
    let folders = subfolders(root)?;
    let mut names = Vec::with_capacity(folders.len());
    for folder in &folders {
        let name = folder.file_name().unwrap_or_default();
        let name = name
            .to_str()
            .ok_or_else(|| DataError::read(folder, "the class folder's name is not UTF-8; rename it"))?;
        names.push(name.to_string());
    }
    if names.len() < 2 {
        let message = format!(
            "{} class folder in it; expected one sub-folder per class, two or more",
            names.len()
        );
        return Err(DataError::read(root, message));
    }
    Ok(names)
}

/// The images of all classes, sorted by path; other files are added to `others`.
fn labelled(root: &Path, classes: &[String], others: &mut Vec<PathBuf>) -> Result<Labelled, DataError> {
    let mut labelled = Vec::new();
    let label_of: HashMap<&str, usize> = classes.iter().map(String::as_str).zip(0..).collect();
    for folder in subfolders(root)? {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let label = *label_of
            .get(&*name)
            .ok_or_else(|| DataError::read(&folder, "this class has no folder under train"))?;
        let Found { images, others: left } = image_files::within(&folder)?;
        if images.is_empty() {
            return Err(DataError::read(
                &folder,
                "there is no .jpg, .jpeg, .png, .gif, .bmp, .webp or .tif image in it",
            ));
        }
        labelled.extend(images.into_iter().map(|path| (path, label)));
        others.extend(left);
    }
    Ok(labelled)
}

/// True if there is an image in `folder` or its subfolders, even in an unsupported format, which the reader will then
/// report.
fn has_images(folder: &Path) -> bool {
    !image_files::within(folder).is_ok_and(|found| found.images.is_empty())
}
