//! Ensures that only one process at a time makes a task's folder: an advisory lock on a file next to it, which ends
//! with the process.

use std::fs::TryLockError;
use std::io;
use std::path::{Path, PathBuf};

use files::File;

/// A lock; it is released and its file removed when it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    /// Holds the lock as long as it is open.
    _file: File,
    path: PathBuf,
}

impl Lock {
    /// Waits for the lock on `path`; `waiting` is called first if another process has it.
    pub(super) fn wait(path: &Path, waiting: impl Fn()) -> io::Result<Self> {
        loop {
            let file = open(path)?;
            match file.system().try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    waiting();
                    file.system().lock()?;
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // The previous holder may have removed the file, and another process may hold a new one.
            if is_at(&file, path) {
                return Ok(Self::of(file, path));
            }
        }
    }

    /// The lock on `path`; `None` if another process has it.
    pub(super) fn try_now(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        match file.system().try_lock() {
            Ok(()) if is_at(&file, path) => Ok(Some(Self::of(file, path))),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn of(file: File, path: &Path) -> Self {
        Self {
            _file: file,
            path: path.to_path_buf(),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while still held: a waiting process notices that the file is a different one and tries again.
        let _ = files::remove_file(&self.path);
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::update(path)
}

/// True if `file` is the file at `path`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let same = |a: &std::fs::Metadata, b: &std::fs::Metadata| a.dev() == b.dev() && a.ino() == b.ino();
    matches!((file.system().metadata(), std::fs::metadata(path)), (Ok(ours), Ok(there)) if same(&ours, &there))
}

/// On other systems, an open file cannot be removed.
#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.is_file()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_holder_at_a_time_and_nothing_stays_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".t.lock");
        let (now, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let lock = Lock::wait(&path, || {}).unwrap();
                        assert_eq!(now.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                        done.fetch_add(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert_eq!(done.load(Ordering::SeqCst), 200);
        assert!(!path.exists());
        let held = Lock::try_now(&path).unwrap().unwrap();
        assert!(Lock::try_now(&path).unwrap().is_none());
        drop(held);
        assert!(Lock::try_now(&path).unwrap().is_some());
    }
}
