//! An open file whose every write passes the gate.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::gate::{pass, pass_write, power};
use crate::operation::Operation;
use crate::path::folder_of;
use crate::sync::sync_folder;

/// An open file.
#[derive(Debug)]
pub struct File {
    file: fs::File,
    path: PathBuf,
}

impl File {
    /// Opens `path` to append lines, made if absent.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn append(path: &Path) -> io::Result<Self> {
        Self::open(path, OpenOptions::new().create(true).append(true))
    }

    /// Opens `path` to read and write anywhere, made if absent, its content kept.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn update(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        Self::open(path, options.read(true).write(true).create(true).truncate(false))
    }

    /// Makes `path`, or empties it.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Self::open(path, OpenOptions::new().create(true).write(true).truncate(true))
    }

    fn open(path: &Path, options: &OpenOptions) -> io::Result<Self> {
        if path.is_symlink() {
            return Err(io::Error::other("it is a link, which is not followed; remove it"));
        }
        let there = fs::metadata(path).ok();
        if there.as_ref().is_some_and(|data| !data.is_file() && !data.is_dir()) {
            // Opened, a pipe waits for its other end.
            return Err(io::Error::other(
                "it is a pipe or a device, which is not written to; choose another file",
            ));
        }
        let is_new = there.is_none();
        let file = pass(Operation::Create, path, || options.open(path))?;
        if is_new {
            power::created(path);
        }
        Ok(Self::of(file, path))
    }

    pub(crate) fn of(file: fs::File, path: &Path) -> Self {
        Self {
            file,
            path: path.to_path_buf(),
        }
    }

    /// Writes `line` and a line break in one piece, so that what a full disk leaves is the start of one line.
    ///
    /// # Errors
    /// A line that cannot be written; what was written of it is cut off again where that works.
    pub fn write_line(&mut self, line: &str) -> io::Result<()> {
        let before = self.file.metadata()?.len();
        let written = self.write_all(format!("{line}\n").as_bytes());
        if written.is_err() {
            // The next start cuts it off, should this fail too.
            let _ = self.file.set_len(before);
        }
        written
    }

    /// Waits until the content is on the disk; the entry of a new file in its folder too.
    ///
    /// # Errors
    /// A disk that cannot be written.
    pub fn sync(&mut self) -> io::Result<()> {
        pass(Operation::Sync, &self.path, || self.file.sync_all())?;
        power::synced(&self.path);
        sync_folder(folder_of(&self.path))
    }

    /// Waits until the content is on the disk.
    pub(crate) fn sync_content(&self) -> io::Result<()> {
        pass(Operation::Sync, &self.path, || self.file.sync_all())?;
        power::synced(&self.path);
        Ok(())
    }

    /// Cuts or extends it to `length` bytes.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn set_len(&mut self, length: u64) -> io::Result<()> {
        pass(Operation::Resize, &self.path, || self.file.set_len(length))
    }

    /// The file of the system, for locks.
    pub fn system(&self) -> &fs::File {
        &self.file
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        power::written(&self.path);
        pass_write(&self.path, bytes, |bytes| self.file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Read for File {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
