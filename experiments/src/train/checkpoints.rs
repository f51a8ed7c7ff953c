//! Checkpoints of the trained part, the optimizer and the schedule: `checkpoints/{model,optim,scheduler}-N.bpk`,
//! each written beside its place and renamed, so that a cut run finds whole files only.

use std::path::{Path, PathBuf};

use burn::lr_scheduler::LrSchedulerRecord;
use burn::optim::OptimizerRecord;
use burn::store::ModuleRecord;
use burn::train::TrainingError;
use burn::train::checkpoint::{
    Checkpoint, Checkpointer, CheckpointerError, CheckpointingAction, CheckpointingStrategy,
};
use burn::train::metric::store::EventStoreClient;

use crate::run::files::replace;
use crate::train::watch::SharedWatch;

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
        replace(&self.path(epoch), &bytes).map_err(CheckpointerError::Unknown)
    }

    fn delete(&self, epoch: usize) -> Result<(), CheckpointerError> {
        files::remove_file(&self.path(epoch)).map_err(CheckpointerError::IOError)
    }

    fn restore(&self, epoch: usize) -> Result<R, CheckpointerError> {
        R::load(self.path(epoch))
    }
}

/// Saves every round; of those in the folder, whoever wrote them, the last two stay (so that a whole one is left if the
/// program is killed while the next one is written), and the best one where `best` asks for it.
pub struct LastTwo {
    saved: Vec<usize>,
    best: Option<SharedWatch>,
}

impl LastTwo {
    /// The rounds that `folder` holds, and those to come.
    pub fn new(folder: &Path, best: Option<SharedWatch>) -> Self {
        let mut saved = saved(folder);
        saved.reverse();
        Self { saved, best }
    }
}

impl CheckpointingStrategy for LastTwo {
    fn checkpointing(&mut self, round: usize, _store: &EventStoreClient) -> Vec<CheckpointingAction> {
        let best = self.best.as_ref().and_then(SharedWatch::best).map(|(round, _)| round);
        self.saved.retain(|saved| *saved != round);
        // What a cut run left of later rounds is none of this one.
        let before = self.saved.iter().copied().filter(|saved| *saved < round).max();
        let stays = |saved: &usize| Some(*saved) == before || Some(*saved) == best;
        let (stay, go): (Vec<usize>, Vec<usize>) = self.saved.iter().copied().partition(stays);
        self.saved = stay;
        self.saved.push(round);
        let deleted = go.into_iter().map(CheckpointingAction::Delete);
        // Saved before others are deleted: there is always a whole one.
        [CheckpointingAction::Save].into_iter().chain(deleted).collect()
    }
}

/// What stopped a training, without burn-train's words around a sentence that is complete.
pub fn sentence(error: &TrainingError) -> String {
    match error {
        TrainingError::Checkpoint(CheckpointerError::Unknown(message)) => message.clone(),
        other => other.to_string(),
    }
}

/// The last epoch in `folder` of which all three records can be read, and the model's of them; `None` if there is no
/// checkpoint. An epoch with a record that is missing or damaged does not count: two are kept.
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
            "{message}, and there is no whole checkpoint beside it; remove {} to start anew",
            folder.display()
        )),
        None => Ok(None),
    }
}

/// The model's record of an epoch, if all three can be read.
fn whole(folder: &Path, epoch: usize) -> Result<ModuleRecord, String> {
    let path = |record| RecordFiles::new(folder, record).path(epoch);
    let damaged =
        |record: &'static str| move |e: CheckpointerError| format!("{} is damaged ({e})", path(record).display());
    let [model, optim, scheduler] = RECORDS;
    <OptimizerRecord as Checkpoint>::load(path(optim)).map_err(damaged(optim))?;
    <LrSchedulerRecord as Checkpoint>::load(path(scheduler)).map_err(damaged(scheduler))?;
    <ModuleRecord as Checkpoint>::load(path(model)).map_err(damaged(model))
}

/// The epochs of which all three records are there, the last one first.
fn epochs(folder: &Path) -> Vec<usize> {
    let mut epochs = saved(folder);
    epochs.retain(|epoch| {
        RECORDS
            .iter()
            .all(|record| RecordFiles::new(folder, record).path(*epoch).is_file())
    });
    epochs
}

/// The epochs of which a model's record is there, the last one first.
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
        std::fs::write(dir.path().join("optim-9.bpk"), "torn").unwrap();
        let message = last().unwrap_err();
        assert!(
            message.contains("-10.bpk is damaged") && message.contains("start anew"),
            "{message}"
        );
    }
}
