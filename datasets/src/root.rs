//! What `--data` may point at: task folders with lists, a folder a class, or Hugging Face parquet.

use std::path::Path;

use crate::error::DataError;
use crate::images::Task;
use crate::resize::Resize;
use crate::{class_folders, folder, parquet_images};

/// Names of the tasks under `root`: the task folders if there are any, otherwise one task, named as `root` is.
///
/// # Errors
/// A root that is missing or holds none of them.
pub fn tasks(root: &Path) -> Result<Vec<String>, DataError> {
    let names = folder::tasks(root)?;
    if !names.is_empty() {
        return Ok(names);
    }
    if parquet_images::is_one(root) || class_folders::is_one(root) {
        return Ok(vec![class_folders::name(root)]);
    }
    Err(DataError::read(
        root,
        "no task folder in it (a folder with train800.txt, val200.txt and test.txt), no folder of pictures a class, and no \
         train-*.parquet",
    ))
}

/// Task `name` of `root`, its pictures not yet read.
///
/// # Errors
/// What the layout's reader says.
pub fn task(root: &Path, name: &str, size: usize, resize: Resize) -> Result<Task, DataError> {
    if !folder::tasks(root)?.is_empty() {
        return folder::task(root, name, size, resize);
    }
    if parquet_images::is_one(root) {
        return parquet_images::task(root, size, resize);
    }
    class_folders::task(root, size, resize)
}
