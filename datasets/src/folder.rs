//! The layout VTAB users have: `ROOT/<task>/{images/…, train800.txt, val200.txt, test.txt}`, lines `path label`.

use std::fs;
use std::path::{Path, PathBuf};

use fast_image_resize as resize;
use image::RgbImage;
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;

use crate::images::{Images, Task};

/// What can be wrong with data on disk.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or folder that cannot be read.
    #[error("cannot read {path}: {message}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system or the decoder says.
        message: String,
    },
    /// A line of a list that is not `path label`.
    #[error("{path}, line {line}: {message}")]
    Line {
        /// The list.
        path: PathBuf,
        /// Line number from 1.
        line: usize,
        /// What was found and what is expected.
        message: String,
    },
    /// A list without a line.
    #[error("{path} is empty; expected lines of the form 'path label'")]
    Empty {
        /// The list.
        path: PathBuf,
    },
}

/// Names of the task folders under `root`, sorted.
///
/// # Errors
/// A root that is missing or holds no task.
pub fn tasks(root: &Path) -> Result<Vec<String>, DataError> {
    let read = |message: String| DataError::Read {
        path: root.to_path_buf(),
        message,
    };
    let mut names: Vec<String> = fs::read_dir(root)
        .map_err(|e| read(e.to_string()))?
        .flatten()
        .filter(|entry| entry.path().join("train800.txt").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    if names.is_empty() {
        return Err(read(
            "no task folder in it (a folder with train800.txt, val200.txt and test.txt)".into(),
        ));
    }
    Ok(names)
}

/// Reads the lists of task `name` and looks whether its pictures are there, without reading them.
///
/// # Errors
/// A missing folder, list or picture, a malformed line, a label out of range.
pub fn check(root: &Path, name: &str) -> Result<(), DataError> {
    let folder = root.join(name);
    let (lists, _) = lists(&folder)?;
    for entry in lists.iter().flatten() {
        let path = folder.join(&entry.path);
        fs::metadata(&path).map_err(|e| DataError::Read {
            path,
            message: e.to_string(),
        })?;
    }
    Ok(())
}

/// Reads task `name`: every picture decoded once, resized to `size` × `size` (bilinear, aspect ignored, no
/// antialiasing: protocol section 2.2) and kept as bytes.
///
/// # Errors
/// A missing folder or list, a malformed line, a label out of range, a picture that cannot be decoded.
pub fn task(root: &Path, name: &str, size: usize) -> Result<Task, DataError> {
    let folder = root.join(name);
    let (lists, classes) = lists(&folder)?;
    let total = lists.iter().map(Vec::len).sum::<usize>();
    let bar = ProgressBar::new(total as u64).with_message(format!("{name}: reading pictures"));
    bar.set_style(ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}").unwrap_or(ProgressStyle::default_bar()));
    let images = lists
        .iter()
        .map(|list| decode_all(&folder, list, size, &bar))
        .collect::<Result<Vec<_>, _>>()?;
    bar.finish_and_clear();
    let [train, valid, test]: [Images; 3] = images.try_into().expect("three lists give three sets");
    Ok(Task {
        name: name.into(),
        group: group(name).into(),
        classes,
        train,
        valid,
        test,
    })
}

/// The three lists of a task and its classes.
fn lists(folder: &Path) -> Result<(Vec<Vec<Entry>>, Vec<String>), DataError> {
    if !folder.is_dir() {
        return Err(DataError::Read {
            path: folder.to_path_buf(),
            message: "no such task folder".into(),
        });
    }
    let parts = ["train800.txt", "val200.txt", "test.txt"];
    let lists = parts
        .iter()
        .map(|part| read_list(folder, part))
        .collect::<Result<Vec<_>, _>>()?;
    let classes = class_names(folder, &lists[0])?;
    for (list, part) in lists.iter().zip(parts) {
        if let Some(entry) = list.iter().find(|entry| entry.label >= classes.len()) {
            return Err(DataError::Line {
                path: folder.join(part),
                line: entry.line,
                message: format!(
                    "label {} is out of range; the task has {} classes (0 to {})",
                    entry.label,
                    classes.len(),
                    classes.len() - 1
                ),
            });
        }
    }
    Ok((lists, classes))
}

/// VTAB's group of a task; "other" for a task that is not VTAB's.
pub fn group(task: &str) -> &'static str {
    const NATURAL: [&str; 7] = [
        "cifar",
        "caltech101",
        "dtd",
        "oxford_flowers102",
        "oxford_iiit_pet",
        "svhn",
        "sun397",
    ];
    const SPECIALIZED: [&str; 4] = ["patch_camelyon", "eurosat", "resisc45", "diabetic_retinopathy"];
    const STRUCTURED: [&str; 8] = [
        "clevr_count",
        "clevr_dist",
        "dmlab",
        "kitti",
        "dsprites_loc",
        "dsprites_ori",
        "smallnorb_azi",
        "smallnorb_ele",
    ];
    if NATURAL.contains(&task) {
        "natural"
    } else if SPECIALIZED.contains(&task) {
        "specialized"
    } else if STRUCTURED.contains(&task) {
        "structured"
    } else {
        "other"
    }
}

/// The lines of classes.txt if there is one, otherwise the numbers up to the greatest training label: a label
/// that occurs in a test list alone could never be predicted and is far more likely a mistake.
fn class_names(folder: &Path, train: &[Entry]) -> Result<Vec<String>, DataError> {
    let path = folder.join("classes.txt");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let names: Vec<String> = text
                .lines()
                .map(|line| line.trim().to_string())
                .filter(|line| !line.is_empty())
                .collect();
            if names.is_empty() {
                return Err(DataError::Empty { path });
            }
            Ok(names)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let greatest = train.iter().map(|entry| entry.label).max().unwrap_or(0);
            // A mistyped label must not reserve a head of millions of rows.
            if greatest >= 100_000 {
                return Err(DataError::Read {
                    path: folder.join("train800.txt"),
                    message: format!("label {greatest} is out of range; labels count from 0 to 99999"),
                });
            }
            Ok((0..=greatest).map(|class| class.to_string()).collect())
        }
        Err(error) => Err(DataError::Read {
            path,
            message: error.to_string(),
        }),
    }
}

struct Entry {
    path: String,
    label: usize,
    line: usize,
}

fn read_list(folder: &Path, part: &str) -> Result<Vec<Entry>, DataError> {
    let path = folder.join(part);
    let text = fs::read_to_string(&path).map_err(|e| DataError::Read {
        path: path.clone(),
        message: e.to_string(),
    })?;
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let error = |message: String| DataError::Line {
            path: path.clone(),
            line: index + 1,
            message,
        };
        let (picture, label) = line
            .trim()
            .rsplit_once(char::is_whitespace)
            .ok_or_else(|| error(format!("found '{line}', expected 'path label'")))?;
        let label = label
            .parse()
            .map_err(|_| error(format!("label '{label}' is not a whole number of 0 or more")))?;
        entries.push(Entry {
            path: picture.trim().to_string(),
            label,
            line: index + 1,
        });
    }
    if entries.is_empty() {
        return Err(DataError::Empty { path });
    }
    Ok(entries)
}

fn decode_all(folder: &Path, list: &[Entry], size: usize, bar: &ProgressBar) -> Result<Images, DataError> {
    let len = 3 * size * size;
    let mut pixels = vec![0; list.len() * len];
    pixels.par_chunks_mut(len).zip(list).try_for_each(|(out, entry)| {
        bar.inc(1);
        picture(&folder.join(&entry.path), size, out)
    })?;
    Ok(Images {
        size,
        pixels,
        labels: list.iter().map(|entry| entry.label).collect(),
    })
}

/// Decodes one picture into `out`, `[3, size, size]`.
///
/// # Errors
/// A file that is missing, truncated or not a picture.
pub fn picture(path: &Path, size: usize, out: &mut [u8]) -> Result<(), DataError> {
    let error = |message: String| DataError::Read {
        path: path.to_path_buf(),
        message,
    };
    let picture = image::open(path).map_err(|e| error(e.to_string()))?.to_rgb8();
    let resized = resized(picture, size as u32).map_err(error)?;
    for (index, pixel) in resized.pixels().enumerate() {
        for channel in 0..3 {
            out[channel * size * size + index] = pixel[channel];
        }
    }
    Ok(())
}

fn resized(picture: RgbImage, size: u32) -> Result<RgbImage, String> {
    let (width, height) = picture.dimensions();
    if (width, height) == (size, size) {
        return Ok(picture);
    }
    let source = resize::images::Image::from_vec_u8(width, height, picture.into_raw(), resize::PixelType::U8x3)
        .map_err(|e| e.to_string())?;
    let mut target = resize::images::Image::new(size, size, resize::PixelType::U8x3);
    let bilinear = resize::ResizeAlg::Interpolation(resize::FilterType::Bilinear);
    resize::Resizer::new()
        .resize(&source, &mut target, &resize::ResizeOptions::new().resize_alg(bilinear))
        .map_err(|e| e.to_string())?;
    RgbImage::from_raw(size, size, target.into_vec()).ok_or_else(|| "resizing gave no picture".to_string())
}
