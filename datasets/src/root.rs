//! The layouts that `--data` accepts: task folders with lists, one folder per class, images with a table of their labels, or
//! Hugging Face parquet files.

use std::fs;
use std::path::Path;

use crate::error::DataError;
use crate::images::Task;
use crate::parquet_images::{self, Columns};
use crate::resize::Resize;
use crate::{class_folders, folder, image_tables};

/// Names of the tasks under `root`: the task folders if there are any, otherwise a single task named after `root`.
///
/// # Errors
/// A root that is missing or has none of these layouts.
pub fn tasks(root: &Path) -> Result<Vec<String>, DataError> {
    let names = folder::tasks(root)?;
    if !names.is_empty() {
        return Ok(names);
    }
    if is_whole(root) {
        return Ok(vec![class_folders::name(root)]);
    }
    if let Some(message) = other_kind(root) {
        return Err(DataError::read(root, message));
    }
    Err(DataError::read(
        root,
        "no task folder in it (a folder with train800.txt, val200.txt and test.txt), no folder of images per class, no \
         metadata.csv beside images, and no train-*.parquet",
    ))
}

/// How to convert what lies in `root`, if it is a dataset of a kind that is not read.
fn other_kind(root: &Path) -> Option<&'static str> {
    let folders = [root.to_path_buf(), root.join("data"), root.join("train")];
    let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let endings: Vec<_> = files
        .flatten()
        .filter_map(|file| Some(file.path().extension()?.to_ascii_lowercase()))
        .collect();
    if endings.iter().any(|ending| ending == "arrow") {
        return Some(
            "Arrow files are not read; write each part as parquet, in Python: \
             datasets.load_from_disk(FOLDER)['train'].to_parquet('train.parquet')",
        );
    }
    endings.iter().any(|ending| ending == "tar").then_some(
        "archives are not read; unpack them, or write each part as parquet, in Python: \
         datasets.load_dataset('webdataset', data_files=FILES)['train'].to_parquet('train.parquet')",
    )
}

/// True if `root` has no task folders, but is itself one task: parquet files, a table of labels or a folder per class.
pub fn is_one_task(root: &Path) -> bool {
    folder::tasks(root).is_ok_and(|names| names.is_empty()) && is_whole(root)
}

/// True if `root`, which has no task folders, holds images of its own.
fn is_whole(root: &Path) -> bool {
    parquet_images::is_one(root) || has_table(root) || class_folders::is_one(root)
}

/// True if a table of labels lies in `root` or in one of its parts.
fn has_table(root: &Path) -> bool {
    image_tables::in_folder(root).is_some() || image_tables::is_in_parts(root)
}

/// True if only a table can have the labels of `root`, or its columns are asked for.
fn is_by_table(root: &Path, columns: &Columns) -> bool {
    let is_asked = *columns != Columns::default();
    has_table(root) && (is_asked || image_tables::is_in_parts(root) || !class_folders::is_laid_out(root))
}

/// Task `name` in `root`, without reading its images.
///
/// # Errors
/// Errors of the layout's reader.
pub fn task(root: &Path, name: &str, size: usize, resize: Resize) -> Result<Task, DataError> {
    task_with(root, name, size, resize, &Columns::default())
}

/// Same as [`task`], with the names of the columns to read if the data is parquet or has tables of labels.
///
/// # Errors
/// Errors of the layout's reader; column names for a layout without columns.
pub fn task_with(root: &Path, name: &str, size: usize, resize: Resize, columns: &Columns) -> Result<Task, DataError> {
    let lists = !folder::tasks(root)?.is_empty();
    if !lists && parquet_images::is_one(root) {
        return parquet_images::task(root, size, resize, columns);
    }
    if !lists && is_by_table(root, columns) {
        let read = image_tables::task(root, size, resize, columns);
        let is_asked = *columns != Columns::default();
        return match read {
            // Tables without labels, beside folders that name the classes.
            Err(error) if !is_asked && class_folders::is_laid_out(root) => {
                match class_folders::task(root, size, resize) {
                    Ok(mut task) => {
                        task.notes.push(format!(
                            "the tables beside the images are not read ({error}); the folders name the classes"
                        ));
                        Ok(task)
                    }
                    Err(_) => Err(error),
                }
            }
            read => read,
        };
    }
    if *columns != Columns::default() {
        let message = "--image-field and --label-field name columns of parquet files or of a metadata.csv, .jsonl or \
                       .parquet beside images, and there are none; leave them out";
        return Err(DataError::read(root, message));
    }
    if lists {
        return folder::task(root, name, size, resize);
    }
    let read = class_folders::task(root, size, resize);
    let read = read.map_err(|error| match class_folders::is_laid_out(root) {
        true => error,
        false => other_kind(root).map_or(error, |message| DataError::read(root, message)),
    });
    match image_tables::in_folder(root) {
        Some(table) => folders_or_table(read, image_tables::task(root, size, resize, columns), &table),
        None => read,
    }
}

/// Which of the two has the labels, where class folders lie beside a table whose columns nobody asked for: the folders, if
/// they can be read.
fn folders_or_table(
    folders: Result<Task, DataError>,
    labels: Result<Task, DataError>,
    table: &Path,
) -> Result<Task, DataError> {
    match (folders, labels) {
        (Ok(folders), Ok(labels)) if image_tables::agree(&folders, &labels) => Ok(folders),
        (Ok(mut folders), _) => {
            folders.notes.push(format!(
                "{} is not read, because the folders name the classes; --label-field takes its labels instead",
                table.display()
            ));
            Ok(folders)
        }
        (Err(_), Ok(mut labels)) => {
            labels.notes.push(format!(
                "the labels are those in {}, not the names of the folders; take it away to use those",
                table.display()
            ));
            Ok(labels)
        }
        (Err(error), Err(_)) => Err(error),
    }
}
