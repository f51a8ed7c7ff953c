//! Allows only one process per run folder: an advisory lock on its `.lock`, which ends with the process that holds it.
//! It works on network file systems with locks (NFS from version 4, SMB); without locks, a message says so and the run
//! continues.

use std::fs::TryLockError;
use std::io::{Read, Seek, Write};
use std::path::Path;

use files::File;

use crate::cli::output::{note, tell};

const FILE: &str = ".lock";

/// The lock of a run folder, which only this process uses until the lock is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock of the existing folder `out`: a child process of a killed run first finishes its step.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn wait(out: &Path) -> Result<Self, String> {
        let path = out.join(FILE);
        let file = File::update(&path).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        match file.system().try_lock() {
            Err(TryLockError::WouldBlock) => {
                tell(format_args!("waiting for another process in {} to end", out.display()));
                let locked = file.system().lock();
                locked.map_err(|e| format!("cannot lock {}: {e}", path.display()))?;
            }
            // If there are no locks, the lock of the run folder has already said so.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        Ok(Self { _file: file })
    }

    /// Locks the existing folder `out`.
    ///
    /// # Errors
    /// A folder that another process uses, or that cannot be written.
    pub fn take(out: &Path) -> Result<Self, String> {
        let path = out.join(FILE);
        let mut file =
            File::update(&path).map_err(|e| format!("cannot write {}: {e}; choose another --out", path.display()))?;
        match file.system().try_lock() {
            Ok(()) => {
                // For the message in a second process; the lock does not depend on it.
                let _ = file
                    .set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| write!(file, "{}", std::process::id()));
                Ok(Self { _file: file })
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let holder = match file.read_to_string(&mut holder) {
                    Ok(1..) => format!("process {}", holder.trim()),
                    _ => "another process".to_string(),
                };
                Err(format!(
                    "{} is in use by {holder}; wait until it ends, or choose another --out",
                    out.display()
                ))
            }
            Err(TryLockError::Error(error)) => {
                note(format_args!(
                    "{} cannot be locked ({error}); start no other run in it",
                    out.display()
                ));
                Ok(Self { _file: file })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_until_its_holder_ends() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let message = Lock::take(dir.path()).unwrap_err();
        assert!(
            message.contains("in use by process") && message.contains("another --out"),
            "{message}"
        );
        drop(first);
        let second = Lock::take(dir.path()).unwrap();
        std::thread::scope(|scope| {
            let third = scope.spawn(|| Lock::wait(dir.path()).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!third.is_finished());
            drop(second);
            third.join().unwrap();
        });
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_its_place_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        std::fs::write(&precious, "old").unwrap();
        std::os::unix::fs::symlink(&precious, dir.path().join(FILE)).unwrap();
        for message in [Lock::take(dir.path()).unwrap_err(), Lock::wait(dir.path()).unwrap_err()] {
            assert!(message.contains("is a link"), "{message}");
        }
        assert_eq!(std::fs::read(precious).unwrap(), b"old");
    }
}
