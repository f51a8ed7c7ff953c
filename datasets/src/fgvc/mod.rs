//! FGVC: five fine-grained datasets, from their authors' archives (unpacked) or from the split files that VPT and TOAST
//! distribute.

mod birds;
mod cars;
mod dogs;
mod flowers;
pub mod mat;
mod split_files;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::decode::Decoder;
use crate::error::DataError;
use crate::images::{ImageSource, Images, Task};
use crate::resize::Resize;
use crate::split::take;

/// One dataset.
#[derive(Debug, Clone)]
pub struct Info {
    /// Name of the task.
    pub name: &'static str,
    /// Possible names of its folder: ours, the archive's, and those of other projects.
    pub folders: &'static [&'static str],
    /// Number of classes.
    pub classes: usize,
    /// Number of images for training, validation and testing.
    pub sizes: [usize; 3],
    read: fn(&Path) -> Result<Splits, DataError>,
}

/// The datasets, in the order of the paper's table.
pub static DATASETS: [Info; 5] = [
    Info {
        name: "cub",
        folders: &["cub", "CUB_200_2011", "CUB"],
        classes: 200,
        sizes: [5_394, 600, 5_794],
        read: birds::read,
    },
    Info {
        name: "nabirds",
        folders: &["nabirds", "NABirds"],
        classes: 555,
        sizes: [21_536, 2_393, 24_633],
        read: birds::read,
    },
    Info {
        name: "flowers",
        folders: &[
            "flowers",
            "OxfordFlower",
            "OxfordFlowers",
            "oxford_flowers",
            "102flowers",
        ],
        classes: 102,
        sizes: [1_020, 1_020, 6_149],
        read: flowers::read,
    },
    Info {
        name: "dogs",
        folders: &[
            "dogs",
            "Stanford-dogs",
            "StanfordDogs",
            "stanford_dogs",
            "Stanford_Dogs",
        ],
        classes: 120,
        sizes: [10_800, 1_200, 8_580],
        read: dogs::read,
    },
    Info {
        name: "cars",
        folders: &[
            "cars",
            "Stanford-cars",
            "StanfordCars",
            "stanford_cars",
            "Stanford_Cars",
        ],
        classes: 196,
        sizes: [7_329, 815, 8_041],
        read: cars::read,
    },
];

/// How the class ids of the files become labels from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassIds {
    /// One mapping for the ids of all splits.
    #[default]
    Joint,
    /// One mapping per split, as in the paper's released code: if a split lacks a class, the labels of all later
    /// classes are shifted (1,440 of NABirds' 2,393 validation labels).
    PerSplit,
}

impl FromStr for ClassIds {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "joint" => Ok(Self::Joint),
            "per-split" => Ok(Self::PerSplit),
            _ => Err(format!("class_ids '{name}' is unknown; choose joint or per-split")),
        }
    }
}

/// Images with the class ids in the files.
type Labelled = Vec<(PathBuf, i64)>;

/// The splits that a reader finds.
#[derive(Debug, Default)]
struct Splits {
    train: Labelled,
    /// `None` if the archive has none: then a tenth of `train`, rounded up, is used.
    valid: Option<Labelled>,
    test: Labelled,
    /// Names of class ids, if the files have them.
    names: BTreeMap<i64, String>,
}

/// The dataset of that name.
///
/// # Errors
/// An unknown name.
pub fn info(name: &str) -> Result<&'static Info, DataError> {
    DATASETS.iter().find(|info| info.name == name).ok_or_else(|| {
        let names: Vec<&str> = DATASETS.iter().map(|info| info.name).collect();
        DataError::Mismatch(format!("task '{name}' is unknown; there are: {}", names.join(", ")))
    })
}

impl Info {
    /// The folder of this dataset under `root`.
    fn folder(&self, root: &Path) -> Option<PathBuf> {
        self.folders
            .iter()
            .map(|name| root.join(name))
            .find(|path| path.is_dir())
    }
}

/// Names of the datasets that have a folder under `root`.
///
/// # Errors
/// A root that contains none.
pub fn tasks(root: &Path) -> Result<Vec<String>, DataError> {
    let found: Vec<String> = DATASETS
        .iter()
        .filter(|info| info.folder(root).is_some())
        .map(|info| info.name.to_string())
        .collect();
    if found.is_empty() {
        let folders: Vec<&str> = DATASETS.iter().map(|info| info.folders[1]).collect();
        let message = format!(
            "no dataset's folder in it; expected one or more of {}",
            folders.join(", ")
        );
        return Err(DataError::read(root, message));
    }
    Ok(found)
}

/// Task `name` under `root`, without reading its images: from train.json, val.json and test.json if they exist,
/// otherwise from the archive's own files.
///
/// # Errors
/// A folder or file that is missing or malformed, a class that is missing in the training split.
pub fn task(root: &Path, name: &str, size: usize, resize: Resize, ids: ClassIds) -> Result<Task, DataError> {
    let info = info(name)?;
    let folder = info
        .folder(root)
        .ok_or_else(|| DataError::read(&root.join(info.folders[0]), "there is no such folder"))?;
    let mut splits = match split_files::read(&folder)? {
        Some(splits) => splits,
        None => (info.read)(&folder)?,
    };
    let valid = splits.valid.take().unwrap_or_else(|| take(&mut splits.train, 10));
    let parts = [splits.train, valid, splits.test];
    for (part, what) in parts.iter().zip(["train", "validate", "test"]) {
        if part.is_empty() {
            return Err(DataError::read(&folder, format!("there is no image to {what} on")));
        }
    }
    let ids_of = |parts: &[Labelled]| -> Vec<i64> {
        let ids: BTreeSet<i64> = parts.iter().flatten().map(|(_, id)| *id).collect();
        ids.into_iter().collect()
    };
    let all = ids_of(&parts);
    let trained = ids_of(&parts[..1]);
    if let Some(id) = all.iter().find(|id| trained.binary_search(id).is_err()) {
        return Err(DataError::read(&folder, format!("class {id} has no image to train on")));
    }
    let [train, valid, test] = parts.map(|part| {
        let known = match ids {
            ClassIds::Joint => all.clone(),
            ClassIds::PerSplit => ids_of(std::slice::from_ref(&part)),
        };
        let mut images = Images::new(size, resize);
        for (path, id) in part {
            let label = known.partition_point(|other| *other < id);
            images.push(ImageSource::File(path.into()), label);
        }
        images
    });
    let class = |id: &i64| splits.names.get(id).cloned().unwrap_or_else(|| id.to_string());
    Ok(Task {
        name: name.into(),
        group: "fgvc".into(),
        classes: all.iter().map(class).collect(),
        train,
        valid,
        test,
        notes: Vec::new(),
    }
    .with_decoder(Decoder::of_benchmarks()))
}
