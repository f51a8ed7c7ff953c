//! Many files at once, brought to the disk together.

use std::fs;
use std::io;
use std::path::Path;

use crate::gate::{pass, power};
use crate::operation::Operation;
use crate::path::folder_of;
use crate::sync::sync_folder;

/// Waits until all files below `folder`, which [`crate::write`] made, and their names are on the disk. A file system does
/// that at once in a fraction of the time that it takes for each file.
///
/// # Errors
/// A disk that cannot be written.
pub fn sync_tree(folder: &Path) -> io::Result<()> {
    pass(Operation::Sync, folder, || sync_below(folder))?;
    power::tree_synced(folder);
    Ok(())
}

#[cfg(target_os = "linux")]
fn sync_below(folder: &Path) -> io::Result<()> {
    rustix::fs::syncfs(fs::File::open(folder)?)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn sync_below(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => sync_below(&entry.path())?,
            false => fs::OpenOptions::new().write(true).open(entry.path())?.sync_all()?,
        }
    }
    sync_folder(folder)
}

/// Gives the file `from`, whose content is on the disk, its name `to`.
///
/// # Errors
/// A file that cannot be moved.
pub fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    power::before_rename(from, to);
    pass(Operation::Rename, to, || fs::rename(from, to))?;
    sync_folder(folder_of(to))
}
