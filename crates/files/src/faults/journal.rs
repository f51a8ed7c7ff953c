//! What has not been brought to the disk, so that a power loss can take it back. By the rules of POSIX: a file's content is
//! on the disk once the file was synced, its name once its folder was.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// One change, and what takes it back.
enum Change {
    /// A file is there that was not.
    Created(PathBuf),
    /// A file had this length when it was last on the disk.
    Written(PathBuf, u64),
    /// A file or folder has another name; the file that had the name before.
    Renamed(PathBuf, PathBuf, Option<Vec<u8>>),
    /// A file is gone.
    Removed(PathBuf, Vec<u8>),
    /// A folder is there that was not.
    FolderMade(PathBuf),
}

static CHANGES: Mutex<Vec<Change>> = Mutex::new(Vec::new());

/// The journal, where a power loss is asked for.
fn changes() -> Option<MutexGuard<'static, Vec<Change>>> {
    static WANTED: OnceLock<bool> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| std::env::var("WEGEFT_FAULT").is_ok_and(|fault| fault.ends_with(":POWER")));
    wanted.then(|| CHANGES.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The same file has one path here, whether it was named from the current folder or from the root.
fn full(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

pub(crate) fn created(path: &Path) {
    if let Some(mut changes) = changes() {
        changes.push(Change::Created(full(path)));
    }
}

/// Before the first write since the file was synced.
pub(crate) fn written(path: &Path) {
    let Some(mut changes) = changes() else { return };
    let path = full(path);
    let known = changes
        .iter()
        .any(|change| matches!(change, Change::Written(known, _) if *known == path));
    if !known {
        let length = fs::metadata(&path).map_or(0, |data| data.len());
        changes.push(Change::Written(path, length));
    }
}

pub(crate) fn synced(path: &Path) {
    if let Some(mut changes) = changes() {
        let path = full(path);
        changes.retain(|change| !matches!(change, Change::Written(known, _) if *known == path));
    }
}

pub(crate) fn folder_made(path: &Path) {
    if let Some(mut changes) = changes() {
        changes.push(Change::FolderMade(full(path)));
    }
}

pub(crate) fn before_rename(from: &Path, to: &Path) {
    if let Some(mut changes) = changes() {
        changes.push(Change::Renamed(full(from), full(to), fs::read(to).ok()));
    }
}

/// Of a file, or of all files of a folder.
pub(crate) fn before_removal(path: &Path) {
    let Some(mut changes) = changes() else { return };
    let mut waiting = vec![full(path)];
    while let Some(path) = waiting.pop() {
        if let Ok(entries) = fs::read_dir(&path) {
            waiting.extend(entries.flatten().map(|entry| entry.path()));
        } else if let Ok(bytes) = fs::read(&path) {
            changes.push(Change::Removed(path, bytes));
        }
    }
}

/// The names in `folder` are on the disk.
pub(crate) fn folder_synced(folder: &Path) {
    let Some(mut changes) = changes() else { return };
    let folder = full(folder);
    let here = |path: &Path| crate::path::folder_of(path) == folder;
    let mut at = 0;
    while at < changes.len() {
        let done = match &changes[at] {
            Change::Created(path) | Change::FolderMade(path) | Change::Removed(path, _) => here(path),
            Change::Renamed(_, to, _) => here(to),
            Change::Written(..) => false,
        };
        if !done {
            at += 1;
            continue;
        }
        if let Change::Renamed(from, to, _) = changes.remove(at) {
            // What was done to it before is now to be taken back under its new name.
            for earlier in &mut changes[..at] {
                earlier.rename(&from, &to);
            }
        }
    }
}

/// Everything below `folder` is on the disk.
pub(crate) fn tree_synced(folder: &Path) {
    let Some(mut changes) = changes() else { return };
    let folder = &full(folder);
    changes.retain(|change| {
        let (Change::Created(path) | Change::Written(path, _) | Change::FolderMade(path) | Change::Removed(path, _)) =
            change
        else {
            return true;
        };
        path == folder || !path.starts_with(folder)
    });
}

impl Change {
    fn rename(&mut self, from: &Path, to: &Path) {
        let (Self::Created(path) | Self::Written(path, _) | Self::FolderMade(path) | Self::Removed(path, _)) = self
        else {
            return;
        };
        if let Ok(rest) = path.strip_prefix(from) {
            *path = match rest.as_os_str().is_empty() {
                true => to.to_path_buf(),
                false => to.join(rest),
            };
        }
    }
}

/// Takes back what is not on the disk, the last change first. Until the result is dropped nothing else is changed.
pub(crate) fn undo() -> Option<impl Sized> {
    let mut changes = changes()?;
    for change in changes.drain(..).rev() {
        match change {
            Change::Created(path) => {
                let _ = fs::remove_file(&path);
            }
            Change::Written(path, length) => {
                if let Ok(file) = fs::OpenOptions::new().write(true).open(&path) {
                    let _ = file.set_len(length);
                }
            }
            // It is noted before it is done.
            Change::Renamed(from, ..) if from.exists() => {}
            Change::Renamed(from, to, before) => {
                let _ = fs::rename(&to, &from);
                if let Some(bytes) = before {
                    let _ = fs::write(&to, bytes);
                }
            }
            Change::Removed(path, bytes) => {
                if let Some(folder) = path.parent() {
                    let _ = fs::create_dir_all(folder);
                }
                let _ = fs::write(&path, bytes);
            }
            Change::FolderMade(path) => {
                let _ = fs::remove_dir_all(&path);
            }
        }
    }
    Some(changes)
}
