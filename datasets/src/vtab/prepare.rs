//! Makes the layout with lists (`folder.rs`) from the files of TFDS.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::ImageFormat;
use indicatif::ProgressBar;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::decode::Decoder;
use crate::error::DataError;
use crate::vtab::dsprites::{self, Dsprites};
use crate::vtab::example::Example;
use crate::vtab::labels::{class_names, label, scaled};
use crate::vtab::lock::Lock;
use crate::vtab::prepared::{Checksum, Prepared};
use crate::vtab::tasks::{Label, Part, TASKS, TaskInfo};
use crate::vtab::tfds::{self, Tfds};
use crate::vtab::verify::{self, PREPARED};
use crate::{decode, progress};

/// Images that are decoded, checked and written at a time.
const CHUNK: usize = 256;

/// What to accept.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Versions and counts of the TFDS datasets other than those that WeGeFT's released code reads.
    pub any_version: bool,
}

/// True if `data` contains the source of `task`.
pub fn is_there(data: &Path, task: &TaskInfo) -> bool {
    tfds::is_there(data, &task.source) || archive(data, task).is_some()
}

/// The archive of dSprites' authors, if it is in `data` or its `dsprites` folder.
fn archive(data: &Path, task: &TaskInfo) -> Option<PathBuf> {
    let places = [data.join(dsprites::FILE), data.join("dsprites").join(dsprites::FILE)];
    let wanted = task.source.name == "dsprites";
    places.into_iter().find(|path| wanted && path.is_file())
}

/// Makes `out/<task>` from the TFDS datasets under `data`: the stored images, lists, class names and checksums. For a
/// finished task, the checksums are verified; an unfinished one, which is in a hidden folder, is made again. Several
/// processes may work in the same `out`: each waits for tasks that another one is making.
///
/// # Errors
/// Data that is missing, damaged or of another version, an image that cannot be decoded, a folder that cannot be
/// written or has a conflicting name, a finished task that was changed.
pub fn prepare(data: &Path, out: &Path, task: &TaskInfo, options: Options) -> Result<Prepared, DataError> {
    let folder = out.join(task.name);
    files::create_folder(out).map_err(|e| DataError::write(out, e))?;
    let path = lock_of(out, task.name);
    let spinner = std::cell::OnceCell::new();
    let waiting = || {
        spinner.get_or_init(|| progress::spinner(format!("{}: waiting for another process to make it", task.name)));
    };
    let _lock = Lock::wait(&path, waiting).map_err(|e| DataError::write(&path, format!("it cannot be locked: {e}")))?;
    if let Some(spinner) = spinner.get() {
        spinner.finish_and_clear();
    }
    if folder.exists() {
        return verify::finished(&folder);
    }
    let reader = Reader::open(data, task, options)?;
    let partial = partial_of(out, task.name);
    if partial.exists() {
        files::remove_folder(&partial).map_err(|e| DataError::write(&partial, e))?;
    }
    let parts = [
        ("train800", task.train.clone()),
        ("val200", task.valid.clone()),
        ("test", task.test.clone()),
    ];
    let total = parts
        .iter()
        .map(|(_, part)| reader.range(part).map(|range| range.len()))
        .sum::<Result<usize, _>>()?;
    let bar = progress::bar(total, task.name.to_string());
    let mut lists = Vec::new();
    for (list, part) in &parts {
        let mut writer = ListWriter::new(&partial, list, task, &bar)?;
        reader.records(task, part, &mut |place, image, label| writer.push(place, image, label))?;
        lists.push(writer.finish()?);
    }
    bar.finish_and_clear();
    let join = |list: &str| fs::read_to_string(partial.join(list)).map_err(|e| DataError::read(&partial, e));
    write(
        &partial.join("train800val200.txt"),
        &(join("train800.txt")? + &join("val200.txt")?),
    )?;
    write(
        &partial.join("classes.txt"),
        &(class_names(task, reader.names(task)).join("\n") + "\n"),
    )?;
    let prepared = Prepared {
        source: reader.source(),
        lists,
    };
    let text = serde_json::to_string_pretty(&prepared).map_err(|e| DataError::write(&partial, e))?;
    write(&partial.join(PREPARED), &text)?;
    files::move_folder(&partial, &folder).map_err(|e| DataError::write(&folder, e))?;
    Ok(prepared)
}

/// The folder of a task until it is finished.
fn partial_of(out: &Path, task: &str) -> PathBuf {
    out.join(format!(".{task}.partial"))
}

/// The file that is locked while a task is made.
fn lock_of(out: &Path, task: &str) -> PathBuf {
    out.join(format!(".{task}.lock"))
}

/// Removes files of killed processes from `out`: unfinished tasks that no process is making. Returns their names.
///
/// # Errors
/// A folder that cannot be removed.
pub fn clean(out: &Path) -> Result<Vec<&'static str>, DataError> {
    let mut removed = Vec::new();
    for name in TASKS.iter().map(|task| task.name) {
        let (partial, path) = (partial_of(out, name), lock_of(out, name));
        if !partial.exists() && !path.exists() {
            continue;
        }
        let lock = Lock::try_now(&path).map_err(|e| DataError::write(&path, e))?;
        if lock.is_some() && partial.exists() {
            files::remove_folder(&partial).map_err(|e| DataError::write(&partial, e))?;
            removed.push(name);
        }
    }
    Ok(removed)
}

/// Checks that a task's lists have the same lengths as when they were prepared; tasks that were not prepared are not
/// checked.
pub(crate) fn check_lengths(folder: &Path, found: [usize; 3]) -> Result<(), DataError> {
    let Some(prepared) = verify::read(folder)? else {
        return Ok(());
    };
    for (list, found) in prepared.lists.iter().zip(found) {
        if list.images != found {
            let message = format!(
                "{} lists {found} images, and {} were prepared; make the task anew with vtab-prepare",
                list.list, list.images
            );
            return Err(DataError::read(folder, message));
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), DataError> {
    files::write(path, text.as_bytes()).map_err(|e| DataError::write(path, e))
}

/// Source of the records.
enum Reader {
    Tfds(Tfds),
    Archive(Dsprites),
}

type Each<'a> = dyn FnMut(&Path, Vec<u8>, usize) -> Result<(), DataError> + 'a;

impl Reader {
    fn open(data: &Path, task: &TaskInfo, options: Options) -> Result<Self, DataError> {
        let Some(path) = archive(data, task).filter(|_| !tfds::is_there(data, &task.source)) else {
            return Tfds::open(data, task, options.any_version).map(Self::Tfds);
        };
        let parts = [task.train.clone(), task.valid.clone(), task.test.clone()];
        let places: Vec<_> = parts.into_iter().filter_map(|part| part.records).collect();
        let waiting = progress::spinner(format!("{}: reading {}", task.name, path.display()));
        let opened = Dsprites::open(&path, &places);
        waiting.finish_and_clear();
        opened.map(Self::Archive)
    }

    fn source(&self) -> String {
        match self {
            Self::Tfds(data) => data.source.clone(),
            Self::Archive(_) => dsprites::FILE.into(),
        }
    }

    fn range(&self, part: &Part) -> Result<std::ops::Range<usize>, DataError> {
        let count = match self {
            Self::Tfds(data) => data.count(part.split)?,
            Self::Archive(data) => data.count,
        };
        Ok(part.records.clone().unwrap_or(0..count))
    }

    fn names(&self, task: &TaskInfo) -> Option<Vec<String>> {
        match (self, task.label) {
            (Self::Tfds(data), Label::Given(feature)) => data.class_names(feature),
            _ => None,
        }
    }

    fn records(&self, task: &TaskInfo, part: &Part, each: &mut Each) -> Result<(), DataError> {
        let range = self.range(part)?;
        match self {
            Self::Tfds(data) => data.records(part.split, range, &mut |path, index, bytes| {
                let error = |message: String| DataError::read(path, format!("record {index}: {message}"));
                let example = Example::read(bytes).map_err(error)?;
                let label = label(task.label, task.classes, &example).map_err(error)?;
                each(path, example.bytes("image").map_err(error)?.to_vec(), label)
            }),
            Self::Archive(data) => {
                let Label::Scaled(feature, times, by) = task.label else {
                    return Err(DataError::Mismatch(format!(
                        "{} has no label in {}",
                        task.name,
                        dsprites::FILE
                    )));
                };
                data.records(feature, range, &mut |path, image, factor| {
                    let label = scaled(factor, times, by, task.classes).map_err(|m| DataError::read(path, m))?;
                    each(path, image, label)
                })
            }
        }
    }
}

/// Writes the images of a list, in chunks on all cores.
struct ListWriter<'a> {
    folder: &'a Path,
    list: &'a str,
    task: &'a TaskInfo,
    bar: &'a ProgressBar,
    waiting: Vec<(PathBuf, Vec<u8>, usize)>,
    lines: String,
    count: usize,
    hash: Sha256,
}

impl<'a> ListWriter<'a> {
    fn new(folder: &'a Path, list: &'a str, task: &'a TaskInfo, bar: &'a ProgressBar) -> Result<Self, DataError> {
        let images = folder.join("images").join(list);
        files::create_folder(&images).map_err(|e| DataError::write(&images, e))?;
        Ok(Self {
            folder,
            list,
            task,
            bar,
            waiting: Vec::with_capacity(CHUNK),
            lines: String::new(),
            count: 0,
            hash: Sha256::new(),
        })
    }

    fn push(&mut self, place: &Path, image: Vec<u8>, label: usize) -> Result<(), DataError> {
        self.waiting.push((place.to_path_buf(), image, label));
        if self.waiting.len() == CHUNK {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<(), DataError> {
        let written = self
            .waiting
            .par_iter()
            .enumerate()
            .map(|(at, (place, bytes, _))| {
                let (bytes, hashed) = stored(bytes, self.task.gain).map_err(|message| {
                    DataError::read(place, format!("image {} of {}: {message}", self.count + at, self.list))
                })?;
                let ending = decode::extension(&bytes).map_err(|message| DataError::read(place, message))?;
                let name = format!("images/{}/{:06}.{ending}", self.list, self.count + at);
                let path = self.folder.join(&name);
                files::write(&path, &bytes).map_err(|e| DataError::write(&path, e))?;
                self.bar.inc(1);
                Ok((name, hashed))
            })
            .collect::<Result<Vec<_>, DataError>>()?;
        for ((name, hashed), (_, _, label)) in written.into_iter().zip(self.waiting.drain(..)) {
            self.lines += &format!("{name} {label}\n");
            self.hash.update((label as u64).to_le_bytes());
            self.hash.update(hashed);
            self.count += 1;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Checksum, DataError> {
        self.flush()?;
        write(&self.folder.join(format!("{}.txt", self.list)), &self.lines)?;
        let digest = self.hash.finalize();
        Ok(Checksum {
            list: self.list.into(),
            images: self.count,
            sha256: verify::hex(&digest),
        })
    }
}

/// The bytes to write for an image, and those for its checksum. The bytes stay unchanged if `gain` is 1.
fn stored(bytes: &[u8], gain: u8) -> Result<(Vec<u8>, Vec<u8>), String> {
    let mut image = Decoder::of_benchmarks().bytes(bytes)?.image;
    if gain == 1 {
        let hashed = match decode::extension(bytes)? {
            "png" => image.into_raw(),
            _ => bytes.to_vec(),
        };
        return Ok((bytes.to_vec(), hashed));
    }
    for value in image.iter_mut() {
        *value = value.saturating_mul(gain);
    }
    let mut png = Cursor::new(Vec::new());
    image::DynamicImage::ImageRgb8(image.clone())
        .to_luma8()
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|e| e.to_string())?;
    Ok((png.into_inner(), image.into_raw()))
}
