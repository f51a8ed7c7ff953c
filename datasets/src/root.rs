//! The layouts that `--data` accepts: task folders with lists, one folder per class, or Hugging Face parquet files.

use std::path::Path;

use crate::error::DataError;
use crate::images::Task;
use crate::parquet_images::{self, Columns};
use crate::resize::Resize;
use crate::{class_folders, folder};

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
    Err(DataError::read(
        root,
        "no task folder in it (a folder with train800.txt, val200.txt and test.txt), no folder of images per class, and no \
         train-*.parquet",
    ))
}

/// True if `root` has no task folders, but is itself one task: parquet files or a folder per class.
pub fn is_one_task(root: &Path) -> bool {
    folder::tasks(root).is_ok_and(|names| names.is_empty()) && is_whole(root)
}

/// True if `root`, which has no task folders, holds images of its own.
fn is_whole(root: &Path) -> bool {
    parquet_images::is_one(root) || class_folders::is_one(root)
}

/// Task `name` in `root`, without reading its images.
///
/// # Errors
/// Errors of the layout's reader.
pub fn task(root: &Path, name: &str, size: usize, resize: Resize) -> Result<Task, DataError> {
    task_with(root, name, size, resize, &Columns::default())
}

/// Same as [`task`], with the names of the columns to read if the data is parquet.
///
/// # Errors
/// Errors of the layout's reader; column names for a layout without columns.
pub fn task_with(root: &Path, name: &str, size: usize, resize: Resize, columns: &Columns) -> Result<Task, DataError> {
    let lists = !folder::tasks(root)?.is_empty();
    if !lists && parquet_images::is_one(root) {
        return parquet_images::task(root, size, resize, columns);
    }
    if *columns != Columns::default() {
        let message =
            "--image-field and --label-field name columns of parquet files, and there are none; leave them out";
        return Err(DataError::read(root, message));
    }
    match lists {
        true => folder::task(root, name, size, resize),
        false => class_folders::task(root, size, resize),
    }
}
