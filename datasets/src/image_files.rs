//! The image files in a folder.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::DataError;

/// File name extensions of supported images, in lower case.
const READ: [&str; 15] = [
    "jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "dib", "webp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm",
];

/// Extensions of unsupported images: in a folder of images they are probably an oversight and must not be skipped
/// silently.
const NOT_READ: [&str; 14] = [
    "avif", "heic", "heif", "jp2", "j2k", "jxl", "tga", "ico", "psd", "exr", "hdr", "dng", "cr2", "svg",
];

/// Folders that tools leave in data folders.
const OF_TOOLS: [&str; 2] = ["__MACOSX", "__pycache__"];

/// Contents of a folder of images.
#[derive(Debug, Default)]
pub struct Found {
    /// The images, sorted by path.
    pub images: Vec<PathBuf>,
    /// Other files that are not hidden, sorted by path.
    pub others: Vec<PathBuf>,
}

/// The image files directly in `folder`, by their extensions, sorted; other files and hidden ones are skipped.
///
/// # Errors
/// A folder that cannot be read, an image in an unsupported format.
pub fn in_folder(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut found = Found::default();
    for path in entries(folder)? {
        if !path.is_dir() {
            sort(path, &mut found)?;
        }
    }
    Ok(found.images)
}

/// The files in `folder` and its subfolders, as torchvision's ImageFolder finds them. Hidden files and those of tools
/// (`__MACOSX`) are skipped, and a folder that is linked twice is read once.
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
    // A link may lead to a parent folder.
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

/// The folders in `root`, sorted, without hidden ones and those of tools.
///
/// # Errors
/// A root that cannot be read.
pub(crate) fn subfolders(root: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut found = entries(root)?;
    found.retain(|path| path.is_dir());
    Ok(found)
}

/// The entries of `folder`, sorted, without hidden ones and those of tools.
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
