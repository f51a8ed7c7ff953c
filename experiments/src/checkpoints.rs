//! Checkpoints of the trained part, the optimizer and the schedule: `checkpoints/{model,optim,scheduler}-N.bpk`,
//! each written beside its place and renamed, so that a cut run finds whole files only.

use std::path::{Path, PathBuf};

use burn::train::checkpoint::{Checkpoint, Checkpointer, CheckpointerError};
use wegeft::storage::write_then_rename;

/// The three records of an epoch.
pub const RECORDS: [&str; 3] = ["model", "optim", "scheduler"];

/// Writes and reads one kind of record.
pub struct RecordFiles {
    folder: PathBuf,
    record: &'static str,
}

impl RecordFiles {
    /// Files of `record` in `folder`, which exists.
    pub fn new(folder: &Path, record: &'static str) -> Self {
        Self {
            folder: folder.to_path_buf(),
            record,
        }
    }

    /// The file of an epoch.
    pub fn path(&self, epoch: usize) -> PathBuf {
        self.folder.join(format!("{}-{epoch}.bpk", self.record))
    }
}

impl<R: Checkpoint> Checkpointer<R> for RecordFiles {
    fn save(&self, epoch: usize, record: R) -> Result<(), CheckpointerError> {
        let bytes = record.checkpoint_into_bytes().map_err(CheckpointerError::Record)?;
        write_then_rename(&self.path(epoch), &bytes).map_err(|e| CheckpointerError::Unknown(e.to_string()))
    }

    fn delete(&self, epoch: usize) -> Result<(), CheckpointerError> {
        match std::fs::remove_file(self.path(epoch)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(CheckpointerError::IOError(error)),
            _ => Ok(()),
        }
    }

    fn restore(&self, epoch: usize) -> Result<R, CheckpointerError> {
        R::load(self.path(epoch))
    }
}

/// The last epoch of which all three records are in `folder`.
pub fn last_epoch(folder: &Path) -> Option<usize> {
    let files = std::fs::read_dir(folder).ok()?;
    files
        .flatten()
        .filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            name.strip_prefix("model-")?.strip_suffix(".bpk")?.parse().ok()
        })
        .filter(|epoch| {
            RECORDS
                .iter()
                .all(|record| RecordFiles::new(folder, record).path(*epoch).is_file())
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_with_a_record_missing_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(last_epoch(dir.path()), None);
        for (epoch, records) in [(9, &RECORDS[..]), (10, &RECORDS[..]), (11, &RECORDS[..2])] {
            for record in records {
                std::fs::write(dir.path().join(format!("{record}-{epoch}.bpk")), "").unwrap();
            }
        }
        assert_eq!(last_epoch(dir.path()), Some(10));
    }
}
