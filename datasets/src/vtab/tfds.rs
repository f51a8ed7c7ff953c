//! A dataset as TFDS stores it: dataset_info.json (splits and the length of each shard), features.json, TFRecord
//! shards, and a file of class names per feature.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::error::DataError;
use crate::paths;
use crate::vtab::tasks::{Label, Source, TaskInfo};
use crate::vtab::tfrecord::Records;

const INFO: &str = "dataset_info.json";
const FEATURES: &str = "features.json";

/// Maximum size of these files.
const MOST_BYTES: u64 = 1 << 26;

/// Default name of a shard, unless dataset_info.json says otherwise.
const TEMPLATE: &str = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    name: String,
    #[serde(default)]
    file_format: Option<String>,
    #[serde(default)]
    splits: Vec<SplitInfo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SplitInfo {
    name: String,
    /// Numbers written as strings, as protobuf writes 64-bit numbers.
    #[serde(default)]
    shard_lengths: Vec<String>,
    #[serde(default)]
    filepath_template: Option<String>,
}

/// Callback for a record: its file, its index in the file, its bytes.
pub type EachRecord<'a> = dyn FnMut(&Path, usize, &[u8]) -> Result<(), DataError> + 'a;

/// One split.
struct Split {
    name: String,
    /// Files with their number of records.
    shards: Vec<(PathBuf, usize)>,
}

/// One dataset on disk.
pub struct Tfds {
    /// Name and version, `cifar100/3.0.2`.
    pub source: String,
    folder: PathBuf,
    splits: Vec<Split>,
}

/// The folder of `source` under `root`: that of its version or, with `any_version`, the last version there.
fn folder(root: &Path, source: &Source, any_version: bool) -> Result<PathBuf, DataError> {
    let base = root.join(source.name);
    let folder = base.join(source.version);
    if folder.join(INFO).is_file() {
        return Ok(folder);
    }
    let mut found: Vec<String> = std::fs::read_dir(&base)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join(INFO).is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    found.sort();
    match found.last() {
        Some(last) if any_version => Ok(base.join(last)),
        Some(_) => Err(DataError::read(
            &folder,
            format!(
                "version {} is not there, only {}; which images are the 1,000 depends on it: make it with TFDS, or \
                 take another one with --any-version",
                source.version,
                found.join(", ")
            ),
        )),
        None => Err(DataError::read(
            &folder,
            format!(
                "there is no {INFO} in it; make it with TFDS ({}:{})",
                source.name, source.version
            ),
        )),
    }
}

/// True if any version of `source` is under `root`.
pub fn is_there(root: &Path, source: &Source) -> bool {
    folder(root, source, true).is_ok()
}

impl Tfds {
    /// Opens the dataset of `task` under `root`; checks the counts against TFDS's own unless `any_version`.
    ///
    /// # Errors
    /// A file that is missing or damaged, another version, other counts, a feature that is not declared.
    pub fn open(root: &Path, task: &TaskInfo, any_version: bool) -> Result<Self, DataError> {
        let folder = folder(root, &task.source, any_version)?;
        let path = folder.join(INFO);
        let text = files::read_text(&path, MOST_BYTES).map_err(|e| DataError::read(&path, e))?;
        let info: Info = serde_json::from_str(&text).map_err(|e| DataError::read(&path, e))?;
        let format = info.file_format.as_deref().unwrap_or("tfrecord");
        if format != "tfrecord" {
            let message =
                format!("its records are in {format} files; only tfrecord can be read, make it again as such");
            return Err(DataError::read(&path, message));
        }
        let splits = info
            .splits
            .iter()
            .map(|split| Split::new(&folder, &info.name, split).map_err(|message| DataError::read(&path, message)))
            .collect::<Result<Vec<_>, _>>()?;
        let version = folder.file_name().unwrap_or_default().to_string_lossy();
        let data = Self {
            source: format!("{}/{version}", task.source.name),
            folder,
            splits,
        };
        for (name, counts) in task.source.splits {
            let found = data.count(name)?;
            if !any_version && !counts.contains(&found) {
                let message = format!("split '{name}' has {found} records, TFDS's own has {}", counts[0]);
                return Err(DataError::read(
                    &path,
                    format!("{message}; take it as it is with --any-version"),
                ));
            }
        }
        data.check_features(task)?;
        Ok(data)
    }

    fn split(&self, name: &str) -> Result<&Split, DataError> {
        self.splits.iter().find(|split| split.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.splits.iter().map(|split| split.name.as_str()).collect();
            let message = format!("there is no split '{name}'; there are: {}", names.join(", "));
            DataError::read(&self.folder.join(INFO), message)
        })
    }

    /// Number of records of split `name`.
    ///
    /// # Errors
    /// A split that does not exist.
    pub fn count(&self, name: &str) -> Result<usize, DataError> {
        let lengths = self.split(name)?.shards.iter().map(|(_, length)| *length);
        Ok(lengths.fold(0, usize::saturating_add))
    }

    /// Calls `each` with every record of split `name` in `range`, in stored order: its bytes and, for messages, its
    /// file and index there. Shards outside the range are not opened.
    ///
    /// # Errors
    /// A shard that is missing, damaged, or whose length differs from dataset_info.json; errors of `each`.
    pub fn records(&self, name: &str, range: Range<usize>, each: &mut EachRecord) -> Result<(), DataError> {
        let total = self.count(name)?;
        if range.end > total {
            let message = format!(
                "split '{name}' has {total} records; {} to {} are wanted",
                range.start, range.end
            );
            return Err(DataError::read(&self.folder, message));
        }
        let (mut start, mut bytes) = (0_usize, Vec::new());
        for (path, length) in &self.split(name)?.shards {
            let end = start.saturating_add(*length);
            if end > range.start && start < range.end {
                let mut records = Records::open(path)?;
                let last = range.end.min(end);
                let mut index = start;
                while index < last && records.next_into(&mut bytes)? {
                    if range.contains(&index) {
                        each(path, index - start, &bytes)?;
                    }
                    index += 1;
                }
                let surplus = last == end && records.next_into(&mut bytes)?;
                if index < last || surplus {
                    let message = format!("it does not hold the {length} records that {INFO} says; fetch it again");
                    return Err(DataError::read(path, message));
                }
            }
            start = end;
        }
        Ok(())
    }

    /// Checks that features.json, if it exists, declares the image and the features of the label, with the task's
    /// number of classes.
    fn check_features(&self, task: &TaskInfo) -> Result<(), DataError> {
        let path = self.folder.join(FEATURES);
        let text = match files::read_text(&path, MOST_BYTES) {
            Ok(text) => text,
            // Releases of TFDS before 2020 did not write it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(DataError::read(&path, error)),
        };
        let features: Value = serde_json::from_str(&text).map_err(|e| DataError::read(&path, e))?;
        let declared = [features.pointer("/featuresDict/features"), features.get("content")]
            .into_iter()
            .flatten()
            .find_map(Value::as_object)
            .ok_or_else(|| DataError::read(&path, "it declares no features"))?;
        let of_label = match task.label {
            Label::Given(name) | Label::Scaled(name, ..) => name,
            Label::Objects | Label::NearestObject | Label::NearestVehicle => "objects",
        };
        for name in ["image", of_label] {
            if !declared.contains_key(name) {
                let names: Vec<&str> = declared.keys().map(String::as_str).collect();
                let message = format!("there is no feature '{name}'; there are: {}", names.join(", "));
                return Err(DataError::read(&path, message));
            }
        }
        let classes = declared[of_label]
            .pointer("/classLabel/numClasses")
            .and_then(Value::as_str);
        match (task.label, classes) {
            (Label::Given(name), Some(classes)) if classes != task.classes.to_string() => {
                let message = format!(
                    "feature '{name}' has {classes} classes, task {} has {}",
                    task.name, task.classes
                );
                Err(DataError::read(&path, message))
            }
            _ => Ok(()),
        }
    }

    /// The class names that TFDS stores for feature `name`, one per line; `None` if there are none.
    pub fn class_names(&self, name: &str) -> Option<Vec<String>> {
        let text = files::read_text(&self.folder.join(format!("{name}.labels.txt")), MOST_BYTES).ok()?;
        Some(text.lines().map(|line| line.trim().to_string()).collect())
    }
}

impl Split {
    fn new(folder: &Path, dataset: &str, info: &SplitInfo) -> Result<Self, String> {
        let template = info.filepath_template.as_deref().unwrap_or(TEMPLATE);
        let count = info.shard_lengths.len();
        let shards = info.shard_lengths.iter().enumerate().map(|(index, length)| {
            let length = length
                .parse()
                .map_err(|_| format!("length '{length}' of a shard of split '{}' is no number", info.name))?;
            let file = template
                .replace("{DATASET}", dataset)
                .replace("{SPLIT}", &info.name)
                .replace("{FILEFORMAT}", "tfrecord")
                .replace("{SHARD_X_OF_Y}", &format!("{index:05}-of-{count:05}"));
            Ok((paths::within(folder, &file)?, length))
        });
        Ok(Self {
            name: info.name.clone(),
            shards: shards.collect::<Result<_, String>>()?,
        })
    }
}
