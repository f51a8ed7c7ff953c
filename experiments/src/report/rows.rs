//! The lines of any program's summary.json.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One outcome; fields that only some programs have may be absent.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Row {
    /// Program.
    pub experiment: String,
    /// Task.
    pub task: String,
    /// Group of the task.
    #[serde(default)]
    pub group: String,
    /// Method.
    pub method: String,
    /// Trainable values beside the head.
    pub trainable_params: usize,
    /// Of the frozen values, percent.
    pub percent_trainable: f64,
    /// Name of `value`.
    pub metric: String,
    /// The result; absent where nothing was held out.
    pub value: Option<f64>,
    /// Peak memory, MB.
    #[serde(default, alias = "peak_rss_mb")] // as earlier runs wrote it
    pub peak_mb: Option<f64>,
    /// Seed.
    pub seed: u64,
}

/// The rows of every run folder among `paths` or below them; a path may be a summary.json itself.
///
/// # Errors
/// A path without any summary.json, a file that cannot be read or is malformed.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for path in paths {
        let mut files = Vec::new();
        find(path, &mut files)?;
        if files.is_empty() {
            return Err(format!(
                "{} holds no summary.json; give run folders, or a folder of run folders",
                path.display()
            ));
        }
        for file in files {
            let text = std::fs::read_to_string(&file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
            let found: Vec<Row> = serde_json::from_str(&text).map_err(|e| {
                format!(
                    "{} is no list of outcomes ({e}); remove it or run its program again",
                    file.display()
                )
            })?;
            rows.extend(found);
        }
    }
    Ok(rows)
}

/// Every summary.json at or below `path`, sorted.
fn find(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    if path.is_file() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    let summary = path.join("summary.json");
    if summary.is_file() {
        files.push(summary);
        return Ok(()); // a run folder holds no other run folder
    }
    let entries = std::fs::read_dir(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let mut folders: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders.iter().try_for_each(|folder| find(folder, files))
}
