//! Checkpoints of the trained part, the optimizer and the schedule: `checkpoints/{model,optim,scheduler}-N.bpk`. Each
//! file is written under a temporary name and renamed, so that an interrupted run leaves only complete files, and it
//! ends with a checksum, so that even a flipped bit is detected.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::lr_scheduler::LrSchedulerRecord;
use burn::optim::OptimizerRecord;
use burn::store::ModuleRecord;
use burn::tensor::Bytes;
use burn::train::TrainingError;
use burn::train::checkpoint::{
    Checkpoint, Checkpointer, CheckpointerError, CheckpointingAction, CheckpointingStrategy,
};
use burn::train::metric::store::{Aggregate, EventStoreClient, Split};
use wegeft::storage::read_tensors;

use crate::run::files::replace;
use crate::train::loss_scale::{self, LossScale};
use crate::train::ranks::{self, Ranks};
use crate::train::settings::Keep;
use crate::train::watch::SharedWatch;

/// The three records of an epoch.
pub const RECORDS: [&str; 3] = ["model", "optim", "scheduler"];

/// The end of a complete file, after its CRC-32C.
const END: &[u8; 8] = b"checksum";

/// What some trainings save beside the three records.
#[derive(Clone, Default)]
pub struct Beside {
    /// Statistics of AdaLoRA.
    pub ranks: Option<Arc<Ranks>>,
    /// Of f16.
    pub loss_scale: Option<LossScale>,
}

impl Beside {
    /// Records what is to be written with the checkpoint of the round that ends now.
    fn note(&self, round: usize) {
        if let Some(ranks) = &self.ranks {
            ranks.note(round);
        }
        if let Some(loss_scale) = &self.loss_scale {
            loss_scale.note(round);
        }
    }

    fn write(&self, folder: &Path, round: usize) -> Result<(), String> {
        if let Some(ranks) = &self.ranks {
            ranks.write(folder, round)?;
        }
        match &self.loss_scale {
            Some(loss_scale) => loss_scale.write(folder, round),
            None => Ok(()),
        }
    }

    fn remove(&self, folder: &Path, round: usize) -> std::io::Result<()> {
        if self.ranks.is_some() {
            files::remove_file(&ranks::path(folder, round))?;
        }
        match &self.loss_scale {
            Some(loss_scale) => loss_scale.remove(folder, round),
            None => Ok(()),
        }
    }
}

/// Writes and reads one kind of record.
pub struct RecordFiles {
    folder: PathBuf,
    record: &'static str,
    beside: Beside,
}

impl RecordFiles {
    /// The files of `record` in the existing `folder`.
    pub fn new(folder: &Path, record: &'static str) -> Self {
        Self {
            folder: folder.to_path_buf(),
            record,
            beside: Beside::default(),
        }
    }

    /// Also writes what is saved `beside` it.
    pub fn with(self, beside: Beside) -> Self {
        Self { beside, ..self }
    }

    /// The file for an epoch.
    pub fn path(&self, epoch: usize) -> PathBuf {
        self.folder.join(format!("{}-{epoch}.bpk", self.record))
    }

    /// The record of an epoch.
    ///
    /// # Errors
    /// A file that is missing or damaged, in one sentence.
    pub fn read<R: Checkpoint>(&self, epoch: usize) -> Result<R, String> {
        let path = self.path(epoch);
        let damaged = |why: &dyn std::fmt::Display| format!("{} is damaged ({why})", path.display());
        let mut bytes = files::read_regular(&path).map_err(|e| damaged(&e))?;
        let (rest, end) = bytes
            .split_last_chunk::<12>()
            .ok_or_else(|| damaged(&"it is too short"))?;
        let (sum, mark) = end
            .split_first_chunk::<4>()
            .ok_or_else(|| damaged(&"it is too short"))?;
        if mark != END || u32::from_le_bytes(*sum) != crc32c::crc32c(rest) {
            return Err(damaged(&"its checksum does not match"));
        }
        let length = rest.len();
        bytes.truncate(length);
        R::checkpoint_from_bytes(Bytes::from_bytes_vec(bytes)).map_err(|e| damaged(&e))
    }
}

impl<R: Checkpoint> Checkpointer<R> for RecordFiles {
    fn save(&self, epoch: usize, record: R) -> Result<(), CheckpointerError> {
        self.beside
            .write(&self.folder, epoch)
            .map_err(CheckpointerError::Unknown)?;
        let bytes = record.checkpoint_into_bytes().map_err(CheckpointerError::Record)?;
        let mut file = bytes.to_vec();
        file.extend(crc32c::crc32c(&bytes).to_le_bytes());
        file.extend(END);
        replace(&self.path(epoch), &file).map_err(CheckpointerError::Unknown)
    }

    fn delete(&self, epoch: usize) -> Result<(), CheckpointerError> {
        let removed = self.beside.remove(&self.folder, epoch);
        removed
            .and_then(|()| files::remove_file(&self.path(epoch)))
            .map_err(CheckpointerError::IOError)
    }

    fn restore(&self, epoch: usize) -> Result<R, CheckpointerError> {
        self.read(epoch).map_err(CheckpointerError::Unknown)
    }
}

/// Saves a checkpoint after every round. Of all checkpoints in the folder, the last two are kept, so that a complete
/// one is left if the program is killed while writing the next one; with `--keep best`, the best one is kept, too.
pub struct LastTwo {
    saved: Vec<usize>,
    watch: SharedWatch,
    keep: Keep,
    beside: Beside,
}

impl LastTwo {
    /// For the rounds that are in `folder` already, and those to come.
    pub fn new(folder: &Path, watch: SharedWatch, keep: Keep, beside: Beside) -> Self {
        let mut saved = saved(folder);
        saved.reverse();
        Self {
            saved,
            watch,
            keep,
            beside,
        }
    }
}

impl CheckpointingStrategy for LastTwo {
    fn checkpointing(&mut self, round: usize, store: &EventStoreClient) -> Vec<CheckpointingAction> {
        // The store writes metrics.jsonl in its own thread. It answers any query only after the lines of this round are
        // on disk, and the checkpoint depends on them.
        store.find_metric("", round, Aggregate::Mean, &Split::Train);
        if self.watch.get().failure.is_some() {
            return Vec::new();
        }
        // Now, because other threads write the files while the training continues.
        self.beside.note(round);
        let best = match self.keep {
            Keep::Best => self.watch.best().map(|(round, _)| round),
            Keep::Last => None,
        };
        self.saved.retain(|saved| *saved != round);
        // Checkpoints of later rounds from an interrupted run do not belong to this run.
        let before = self.saved.iter().copied().filter(|saved| *saved < round).max();
        let stays = |saved: &usize| Some(*saved) == before || Some(*saved) == best;
        let (stay, go): (Vec<usize>, Vec<usize>) = self.saved.iter().copied().partition(stays);
        self.saved = stay;
        self.saved.push(round);
        let deleted = go.into_iter().map(CheckpointingAction::Delete);
        // Saved before others are deleted, so that there is always a complete one.
        [CheckpointingAction::Save].into_iter().chain(deleted).collect()
    }
}

/// The reason why a training stopped, without burn-train's text around a complete sentence.
pub fn sentence(error: &TrainingError) -> String {
    match error {
        TrainingError::Checkpoint(CheckpointerError::Unknown(message)) => message.clone(),
        other => other.to_string(),
    }
}

/// The last epoch in `folder` for which all three records can be read, and its model record; `None` if there is no
/// checkpoint. An epoch with a missing or damaged record does not count, which is why two are kept.
///
/// # Errors
/// Checkpoints that are all damaged.
pub fn last_whole(folder: &Path) -> Result<Option<(usize, ModuleRecord)>, String> {
    let mut damage = None;
    for epoch in epochs(folder) {
        match whole(folder, epoch) {
            Ok(model) => return Ok(Some((epoch, model))),
            Err(message) => damage = damage.or(Some(message)),
        }
    }
    match damage {
        Some(message) => Err(format!(
            "{message}, and there is no other intact checkpoint; remove {} to start anew",
            folder.display()
        )),
        None => Ok(None),
    }
}

/// The model record of an epoch, if all three records can be read.
fn whole(folder: &Path, epoch: usize) -> Result<ModuleRecord, String> {
    let [model, optim, scheduler] = RECORDS;
    RecordFiles::new(folder, optim).read::<OptimizerRecord>(epoch)?;
    RecordFiles::new(folder, scheduler).read::<LrSchedulerRecord>(epoch)?;
    let ranks = ranks::path(folder, epoch);
    if ranks.exists() {
        read_tensors(&ranks).map_err(|e| format!("{} is damaged ({e})", ranks.display()))?;
    }
    loss_scale::read(folder, epoch)?;
    RecordFiles::new(folder, model).read(epoch)
}

/// The epochs for which all three records exist, the last one first.
fn epochs(folder: &Path) -> Vec<usize> {
    let mut epochs = saved(folder);
    epochs.retain(|epoch| {
        RECORDS
            .iter()
            .all(|record| RecordFiles::new(folder, record).path(*epoch).is_file())
    });
    epochs
}

/// The epochs for which a model record exists, the last one first.
fn saved(folder: &Path) -> Vec<usize> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut epochs: Vec<usize> = files
        .filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            name.strip_prefix("model-")?.strip_suffix(".bpk")?.parse().ok()
        })
        .collect();
    epochs.sort_unstable_by(|a, b| b.cmp(a));
    epochs
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::nn::LinearConfig;
    use burn::tensor::Device;

    use super::*;

    fn write(folder: &Path, epoch: usize) {
        let save = |record: &'static str| RecordFiles::new(folder, record);
        let model = LinearConfig::new(1, 1).init(&Device::flex());
        save("model").save(epoch, model.into_record()).unwrap();
        save("optim").save(epoch, OptimizerRecord::default()).unwrap();
        save("scheduler").save(epoch, LrSchedulerRecord::new()).unwrap();
    }

    #[test]
    fn an_epoch_with_a_record_missing_or_damaged_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let last = || last_whole(dir.path()).map(|found| found.map(|(epoch, _)| epoch));
        assert_eq!(last(), Ok(None));
        for epoch in [9, 10, 11] {
            write(dir.path(), epoch);
        }
        assert_eq!(last(), Ok(Some(11)));
        std::fs::remove_file(dir.path().join("scheduler-11.bpk")).unwrap();
        assert_eq!(last(), Ok(Some(10)));
        for record in RECORDS {
            write(dir.path(), 10);
            std::fs::write(dir.path().join(format!("{record}-10.bpk")), "torn").unwrap();
            assert_eq!(last(), Ok(Some(9)), "{record}");
        }
        // Flips one bit; the record can still be parsed.
        let path = dir.path().join("model-9.bpk");
        let whole = std::fs::read(&path).unwrap();
        for at in [0, whole.len() / 2, whole.len() - 14, whole.len() - 10, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, flipped).unwrap();
            assert!(last().is_err(), "byte {at}");
        }
        std::fs::write(&path, whole).unwrap();
        std::fs::write(dir.path().join("optim-9.bpk"), "torn").unwrap();
        let message = last().unwrap_err();
        assert!(
            message.contains("-10.bpk is damaged") && message.contains("start anew"),
            "{message}"
        );
    }
}
