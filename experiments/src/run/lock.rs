//! One run folder, one process: an advisory lock on `.lock` in it, which ends with the process that holds it. It holds on a
//! network file system that has locks (NFS from version 4 on, SMB); where there are none, that is said and the run goes on.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::cli::output::note;

const FILE: &str = ".lock";

/// A run folder that this process alone works in, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Locks the folder `out`, which exists.
    ///
    /// # Errors
    /// A folder that another process works in, or that cannot be written.
    pub fn take(out: &Path) -> Result<Self, String> {
        let path = out.join(FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut file = file.map_err(|e| format!("cannot write {}: {e}; choose another --out", path.display()))?;
        match file.try_lock() {
            Ok(()) => {
                // For the message of whoever comes second; the lock does not depend on it.
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
        Lock::take(dir.path()).unwrap();
    }
}
