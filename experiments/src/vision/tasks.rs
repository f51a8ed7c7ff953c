//! The source of a program's tasks, and the checksum of a task.

use std::path::Path;

use datasets::{ImageSource, Task};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// Source of a program's tasks.
pub trait Tasks {
    /// A task whose images have not been read; `None` if they are part of the program.
    ///
    /// # Errors
    /// Data that is missing or malformed.
    fn unread(&self, name: &str) -> Result<Option<Task>, String>;

    /// Checks that prepared data has not changed.
    ///
    /// # Errors
    /// A file that is missing or has changed.
    fn verify(&self, _name: &str) -> Result<(), String> {
        Ok(())
    }

    /// A task with its images, `size` pixels wide; stops reading once `go_on` returns false.
    ///
    /// # Errors
    /// Data that is missing or malformed, an interruption.
    fn load(&self, name: &str, size: usize, go_on: &dyn Fn() -> bool) -> Result<Task, String>;
}

/// Adds the labels, the names relative to `root` and the content of a task's images.
pub fn add_task(sum: &mut Sha256, task: &Task, root: Option<&Path>) -> Result<(), String> {
    for class in &task.classes {
        sum.update(class);
        sum.update([0]);
    }
    for part in [&task.train, &task.valid, &task.test] {
        sum.update(part.len().to_le_bytes());
        let contents: Vec<u32> = part.sources.par_iter().map(content).collect::<Result<_, _>>()?;
        for ((image, label), content) in part.sources.iter().zip(&part.labels).zip(contents) {
            sum.update(label.to_le_bytes());
            sum.update(content.to_le_bytes());
            if let ImageSource::File(path) = image {
                let name = root.and_then(|root| path.strip_prefix(root).ok()).unwrap_or(path);
                sum.update(name.to_string_lossy().as_bytes());
            }
        }
    }
    Ok(())
}

/// CRC-32C of an image's bytes.
fn content(image: &ImageSource) -> Result<u32, String> {
    Ok(match image {
        ImageSource::File(path) => {
            let bytes = files::read_regular(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
            crc32c::crc32c(&bytes)
        }
        ImageSource::Encoded { bytes, .. } => crc32c::crc32c(bytes),
        ImageSource::Decoded(image) => crc32c::crc32c(image.as_raw()),
    })
}
