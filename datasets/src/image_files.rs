//! The image files in a folder.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::DataError;

/// File name endings of the images that are read, in lower case.
const READ: [&str; 15] = [
    "jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "dib", "webp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm",
];

/// Endings of images that are not: among images of a folder they are an oversight, not to be passed over.
const NOT_READ: [&str; 14] = [
    "avif", "heic", "heif", "jp2", "j2k", "jxl", "tga", "ico", "psd", "exr", "hdr", "dng", "cr2", "svg",
];

/// Folders that tools leave beside data.
const OF_TOOLS: [&str; 2] = ["__MACOSX", "__pycache__"];

/// What lies in a folder of images.
#[derive(Debug, Default)]
pub struct Found {
    /// The images, sorted by path.
    pub images: Vec<PathBuf>,
    /// Other files that are not hidden, sorted by path.
    pub others: Vec<PathBuf>,
}

/// The image files in `folder` itself, by the endings of their names, sorted; other files and hidden ones are passed over.
///
/// # Errors
/// A folder that cannot be read, an image of a kind that is not read.
pub fn in_folder(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut found = Found::default();
    for path in entries(folder)? {
        if !path.is_dir() {
            sort(path, &mut found)?;
        }
    }
    Ok(found.images)
}

/// The files in `folder` and in the folders within it, as torchvision's ImageFolder walks them; hidden ones and those
/// that tools leave (`__MACOSX`) are passed over, and a folder that links lead to twice is read once.
///
/// # Errors
/// As [`in_folder`].
pub fn within(folder: &Path) -> Result<Found, DataError> {
    let mut found = Found::default();
    walk(folder, &mut HashSet::new(), &mut found)?;
    found.images.sort();
    found.others.sort();
    Ok(found)
}

fn walk(folder: &Path, seen: &mut HashSet<PathBuf>, found: &mut Found) -> Result<(), DataError> {
    // A link may lead back up.
    let full = folder.canonicalize().map_err(|e| DataError::read(folder, e))?;
    if !seen.insert(full) {
        return Ok(());
    }
    for path in entries(folder)? {
        match path.is_dir() {
            true => walk(&path, seen, found)?,
            false => sort(path, found)?,
        }
    }
    Ok(())
}

fn sort(path: PathBuf, found: &mut Found) -> Result<(), DataError> {
    let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
    if READ.iter().any(|known| ending == *known) {
        found.images.push(path);
    } else if NOT_READ.iter().any(|known| ending == *known) {
        let message = "images of this kind are not read; convert it to .jpg or .png, or take it away";
        return Err(DataError::read(&path, message));
    } else {
        found.others.push(path);
    }
    Ok(())
}

/// The folders in `root`, sorted; hidden ones and those of tools are left out.
///
/// # Errors
/// A root that cannot be read.
pub(crate) fn subfolders(root: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut found = entries(root)?;
    found.retain(|path| path.is_dir());
    Ok(found)
}

/// What lies in `folder`, sorted; hidden entries and those of tools are left out.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let error = |e| DataError::read(folder, e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(error)? {
        let entry = entry.map_err(error)?;
        let name = entry.file_name();
        let hidden = name.as_encoded_bytes().starts_with(b".");
        if !hidden && !OF_TOOLS.iter().any(|tool| name == OsStr::new(tool)) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
