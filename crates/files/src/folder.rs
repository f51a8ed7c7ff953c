//! Folders: made, moved and removed.

use std::fs;
use std::io;
use std::path::Path;

use crate::gate::{pass, power};
use crate::operation::Operation;
use crate::path::folder_of;
use crate::sync::sync_folder;
use crate::tree::sync_tree;

/// Makes `path` and the folders above it, where they are missing; their names are on the disk then.
///
/// # Errors
/// A folder that cannot be made, a file in its place.
pub fn create_folder(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let above = folder_of(path);
    create_folder(above)?;
    match pass(Operation::MakeFolder, path, || fs::create_dir(path)) {
        Ok(()) => {
            power::folder_made(path);
            sync_folder(above)
        }
        // Another process was quicker.
        Err(_) if path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Gives the finished folder `from` its name `to`, which nothing has: all that is in it is on the disk before, the name
/// after.
///
/// # Errors
/// A folder that cannot be moved.
pub fn move_folder(from: &Path, to: &Path) -> io::Result<()> {
    sync_tree(from)?;
    power::before_rename(from, to);
    pass(Operation::Rename, to, || fs::rename(from, to))?;
    sync_folder(folder_of(to))
}

/// Removes a file, if there is one.
///
/// # Errors
/// A file that cannot be removed.
pub fn remove_file(path: &Path) -> io::Result<()> {
    power::before_removal(path);
    missing_is_fine(pass(Operation::Remove, path, || fs::remove_file(path)))
}

/// Removes a folder and all that is in it, if there is one.
///
/// # Errors
/// A folder that cannot be removed.
pub fn remove_folder(path: &Path) -> io::Result<()> {
    power::before_removal(path);
    missing_is_fine(pass(Operation::Remove, path, || fs::remove_dir_all(path)))
}

/// Removes a folder if nothing is in it; false if something is, if it is a link, or if it may not be removed or is in use.
///
/// # Errors
/// A disk that fails.
pub(crate) fn remove_empty_folder(path: &Path) -> io::Result<bool> {
    match pass(Operation::Remove, path, || fs::remove_dir(path)) {
        Ok(()) => sync_folder(folder_of(path)).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ResourceBusy
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn missing_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
