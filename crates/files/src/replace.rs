//! Whole files: beside their place first, then renamed.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use tempfile::TempPath;

use crate::file::File;
use crate::gate::{pass, power};
use crate::operation::Operation;
use crate::path::folder_of;
use crate::read::open_regular;
use crate::sync::sync_folder;

/// Bytes copied at once.
const PIECE: usize = 1 << 16;

/// Writes `bytes` to `path`: the old file is there until the new one is whole and on the disk. A link in its place is
/// replaced, not followed.
///
/// # Errors
/// A file that cannot be written; what was there is as it was.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(path, |file| file.write_all(bytes))
}

/// [`replace`] with what `content` writes.
///
/// # Errors
/// As [`replace`], and those of `content`.
pub fn replace_with(path: &Path, content: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let (file, temporary) = beside(path)?;
    let mut file = File::of(file, &temporary);
    content(&mut file)?;
    file.sync_content()?;
    put(temporary, path)
}

/// [`replace`] by a library that writes files itself: `content` gets the path of a file beside `path` to write to.
///
/// # Errors
/// As [`replace`], and those of `content`.
pub fn replace_by<E: From<io::Error>>(path: &Path, content: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let (made, temporary) = beside(path)?;
    let permissions = made.metadata()?.permissions();
    drop(made);
    power::written(&temporary);
    content(&temporary)?;
    // It may have put a file of its own there.
    pass(Operation::Sync, &temporary, || {
        fs::set_permissions(&temporary, permissions.clone())?;
        fs::OpenOptions::new().write(true).open(&temporary)?.sync_all()
    })?;
    power::synced(&temporary);
    Ok(put(temporary, path)?)
}

/// A temporary file beside `path`, removed when its path is dropped.
fn beside(path: &Path) -> io::Result<(fs::File, TempPath)> {
    let mut builder = tempfile::Builder::new();
    // A temporary file is private by default; a result is as readable as the umask says.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let made = pass(Operation::Create, path, || builder.tempfile_in(folder_of(path))).map_err(plain)?;
    let (file, temporary) = made.into_parts();
    power::created(&temporary);
    Ok((file, temporary))
}

/// Renames a file that is on the disk to `path`.
fn put(temporary: TempPath, path: &Path) -> io::Result<()> {
    power::before_rename(&temporary, path);
    // It is removed if the rename fails.
    let mut temporary = Some(temporary);
    pass(Operation::Rename, path, || match temporary.take() {
        Some(from) => from.persist(path).map_err(|error| {
            temporary = Some(error.path);
            error.error
        }),
        None => Ok(()),
    })?;
    sync_folder(folder_of(path))
}

/// [`replace`] where a link is followed; a device or a pipe, which no file may replace, is written into.
///
/// # Errors
/// As [`replace`].
pub fn write_through(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::canonicalize(path) {
        Ok(target) if !target.is_file() => {
            let mut file = pass(Operation::Create, path, || {
                fs::OpenOptions::new().write(true).open(&target)
            })?;
            file.write_all(bytes)
        }
        Ok(target) => replace(&target, bytes),
        // A link to nothing yet.
        Err(_) if path.is_symlink() => {
            let target = folder_of(path).join(fs::read_link(path)?);
            replace(&target, bytes)
        }
        Err(_) => replace(path, bytes),
    }
}

/// Writes a file of a folder that gets its name once all of it is on the disk ([`crate::sync_tree`],
/// [`crate::move_folder`]): no rename of its own.
///
/// # Errors
/// A file that cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    File::create(path)?.write_all(bytes)
}

/// [`replace`]s `to` with the content of `from`.
///
/// # Errors
/// A file that cannot be read or written.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = open_regular(from)?;
    replace_with(to, |file| {
        let mut piece = vec![0; PIECE];
        loop {
            match source.read(&mut piece)? {
                0 => return Ok(()),
                count => file.write_all(&piece[..count])?,
            }
        }
    })
}

/// What the system says; tempfile adds the name of a file that is gone by then.
pub(crate) fn plain(error: io::Error) -> io::Error {
    let message = error.to_string();
    match message.split_once(" at path \"") {
        Some((message, _)) => io::Error::new(error.kind(), message.to_string()),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_does_not_name_the_temporary_file() {
        let message = replace(Path::new("/nowhere/at/all"), b"new").unwrap_err().to_string();
        assert!(
            message.contains("No such file") && !message.contains("nowhere"),
            "{message}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_replaced_and_what_it_leads_to_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("precious"), "old").unwrap();
        std::os::unix::fs::symlink(path("precious"), path("link")).unwrap();
        replace(&path("link"), b"new").unwrap();
        assert_eq!(fs::read(path("precious")).unwrap(), b"old");
        assert!(!path("link").is_symlink());
        assert_eq!(fs::read(path("link")).unwrap(), b"new");
    }

    #[test]
    fn content_that_fails_leaves_the_old_file_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        replace(&path, b"old").unwrap();
        let failed = replace_with(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("no more"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no more");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        copy(&path, &dir.path().join("copy")).unwrap();
        assert_eq!(fs::read(dir.path().join("copy")).unwrap(), b"old");
    }

    #[cfg(unix)]
    #[test]
    fn a_result_is_as_readable_as_the_umask_says() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        fs::write(dir.path().join("usual"), "").unwrap();
        replace(&dir.path().join("ours"), b"").unwrap();
        assert_eq!(mode("ours"), mode("usual"));
    }
}
