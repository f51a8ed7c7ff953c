//! The entries of a folder, brought to the disk.

use std::fs;
use std::io;
use std::path::Path;

use crate::gate::{pass, power};
use crate::operation::Operation;

/// Waits until the names in `folder` are on the disk, where the system can tell of them.
///
/// # Errors
/// A disk that cannot be written.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    pass(Operation::SyncFolder, folder, || {
        let synced = fs::File::open(folder)?.sync_all();
        match synced {
            // Some network and user-space file systems know no fsync of folders.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
            synced => synced,
        }
    })?;
    power::folder_synced(folder);
    Ok(())
}
